"""A Stable-Retro game as a gymnasium environment.

Every game looks the same to an agent: uint8 frames of one size and one small set of actions. One step holds an action
for `frame_skip` emulator frames and keeps the last of them, or the brighter pixels of the last two (`pool`). A game
starts from its integration's start state and draws no random numbers, so the same actions give the same frames: an
episode can be replayed from its actions alone.

Stable-Retro allows one emulator per process. The first `reset()` therefore builds it, not the constructor, so that an
environment made only for its spaces costs nothing and blocks no other.
"""

import weakref
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import stable_retro
from numpy.typing import NDArray

from genie_ray.base.frames import fit_frame
from genie_ray.envs.config import EnvConfig
from genie_ray.games.actions import button_table
from genie_ray.games.memory import memory_of
from genie_ray.games.roms import INTEGRATIONS, add_integrations, require_rom, resolve_game


class RetroState(NamedTuple):
    """Where an episode stands; another emulator or ROM cannot go on from it."""

    console: bytes
    actions: tuple[int, ...]  # since the episode began


class RetroEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """One game: observations uint8 [H, W, 3], `Discrete` actions in the order of the action set.

    The reward is the game's own, summed over the skipped frames. `info` holds the emulator's variables after the last
    of them (score, lives, …: whatever the game's integration reads from memory) as ints, and where `memory.yaml` has
    them the player's `x` and `y` in pixels, and `screen`, `room` or `level`.

    Args:
        game: a Stable-Retro id, with or without `-v0`.
        config: frames, actions and episode length.
        native_frame_every: put the console's own picture into `info["native_frame"]`, uint8 [H', W', 3], at an
            episode's steps 0, n, 2·n, …; 0: never.

    Raises:
        ValueError: an unknown game, a missing ROM, or an action set that the console has no buttons for.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, game: str, config: EnvConfig | None = None, *, native_frame_every: int = 0) -> None:
        self.config = config or EnvConfig()
        add_integrations(self.config.integrations)
        self.game = resolve_game(game)
        require_rom(self.game)
        rom = stable_retro.data.get_romfile_path(self.game, INTEGRATIONS)
        console = stable_retro.get_system_info(stable_retro.get_romfile_system(rom))
        self.button_table = button_table(self.game, console["buttons"], self.config.action_set).astype(np.uint8)
        self._memory = memory_of(self.game)
        self._native_frame_every = native_frame_every
        self._emulator: stable_retro.RetroEnv | None = None
        self._actions: list[int] = []  # since the episode began
        self._pooled = 2 if self.config.pool == "max2" else 1
        size = self.config.frame_size
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self.button_table))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode from the game's start state; builds the emulator the first time.

        With `skip_start`, no button is held until the game listens to actions; these frames are no steps.

        Raises:
            RuntimeError: another environment of this process holds an emulator, or the start state is damaged.
        """
        super().reset(seed=seed)
        if self._emulator is None:
            self._emulator = _build_emulator(self)
            self._locate_player(self._emulator.data)
        screen, _ = self._emulator.reset()
        if self.config.skip_start and self._memory.dead_start:
            self._emulator.em.set_button_mask(np.zeros(self.button_table.shape[1], np.uint8), 0)
            for _ in range(self._memory.dead_start):
                self._emulator.em.step()
                self._emulator.data.update_ram()
            screen = self._emulator.get_screen(apply_rotation=True)
        self._actions = []
        return self._observe(screen, self._emulator.data.lookup_all())

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` emulator frames, fewer if the game ends within them."""
        emulator = self._running("step")
        console, variables = emulator.em, emulator.data
        console.set_button_mask(self.button_table[action], 0)
        reward, terminated, screens = 0.0, False, []
        for left in reversed(range(self.config.frame_skip)):
            console.step()  # as in stable_retro.RetroEnv.step, without the pictures nobody sees
            variables.update_ram()
            reward += variables.current_reward()
            terminated = bool(variables.is_done())
            if terminated or left < self._pooled:
                screens.append(emulator.get_screen(apply_rotation=True))
            if terminated:
                break
        self._actions.append(int(action))
        truncated = not terminated and len(self._actions) >= self.config.max_episode_steps
        frame, info = self._observe(screens[0] if len(screens) == 1 else np.maximum(*screens), variables.lookup_all())
        return frame, reward, terminated, truncated, info

    def get_state(self) -> RetroState:
        """Where the episode stands, for `set_state`; the game goes on undisturbed."""
        emulator = self._running("get_state")
        return RetroState(emulator.em.get_state(), tuple(self._actions))

    def set_state(self, state: RetroState) -> None:
        """Go back to where an episode of this environment stood: the same actions then give the same steps.

        A few games are played again from the episode's start instead, because what their emulator saves is not all
        that there is (`partial_state` in memory.yaml). What a scenario's Lua script remembers from one emulator frame
        to the next is not part of the state.

        Raises:
            RuntimeError: the emulator refuses the state.
        """
        emulator = self._running("set_state")
        if self._memory.partial_state:
            self.reset()
            for action in state.actions:
                self.step(action)
            return
        if not emulator.em.set_state(state.console):
            step = len(state.actions)
            raise RuntimeError(f"{self.game} cannot go back to step {step}: its emulator refuses the state")
        emulator.data.update_ram()  # rewards and ends may depend on how the memory changes in the next frame
        self._actions = list(state.actions)

    def _running(self, method: str) -> Any:
        """The emulator.

        Raises:
            gymnasium.error.ResetNeeded: there is none, before the first reset or after `close()`.
        """
        if self._emulator is None:
            raise gym.error.ResetNeeded(f"{self.game}: {method}() without an episode: reset() comes first")
        return self._emulator

    def close(self) -> None:
        """Release the emulator; a later `reset()` builds a new one."""
        if self._emulator is not None:
            self._emulator.close()
            self._emulator = None

    def _locate_player(self, data: stable_retro.data.GameData) -> None:
        """Have the emulator read the player's position, where the game's integration does not."""
        known = data.list_variables()
        self._pixels = {name: pixels for name, pixels in self._memory.pixels.items() if name not in known}
        for name, address in self._memory.addresses.items():
            if name not in known:
                data.set_variable(name, {"address": address, "type": "|u1"})

    def _observe(
        self, screen: NDArray[np.uint8], variables: dict[str, int]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        info: dict[str, Any] = dict(variables)
        for name, pixels in self._pixels.items():
            info[name] *= pixels
        if self._native_frame_every and len(self._actions) % self._native_frame_every == 0:
            info["native_frame"] = screen.copy()
        return fit_frame(screen, self.config.frame_size, self.config.fit), info


# The environment that holds this process's emulator; dead or None if none does.
_holder: "weakref.ref[RetroEnv] | None" = None


def _build_emulator(env: RetroEnv) -> stable_retro.RetroEnv:
    global _holder
    other = _holder() if _holder is not None else None
    if other is not None and other is not env and other._emulator is not None:
        raise RuntimeError(
            f"cannot start {env.game}: this process already runs the emulator of {other.game}, and Stable-Retro "
            "allows one per process; close() that environment first"
        )
    emulator = stable_retro.RetroEnv(
        env.game, inttype=INTEGRATIONS, use_restricted_actions=stable_retro.Actions.ALL, render_mode="rgb_array"
    )
    if emulator.initial_state is None:  # without a start state, an episode begins at power-on
        emulator.initial_state = emulator.em.get_state()
    elif not emulator.em.set_state(emulator.initial_state):  # which Stable-Retro would ignore
        emulator.close()  # or this process could start no other
        raise RuntimeError(f"start state {emulator.statename} of {env.game} is damaged, or of another emulator or ROM")
    _holder = weakref.ref(env)
    return emulator
