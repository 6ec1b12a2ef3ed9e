"""A Stable-Retro game as a gymnasium environment.

Every game looks the same to an agent: uint8 frames of one size and one small set of actions. One step holds an action
for `frame_skip` emulator frames and keeps the last of them. A game starts from its integration's start state and draws
no random numbers, so the same actions give the same frames: an episode can be replayed from its actions alone.

Stable-Retro allows one emulator per process. It is therefore built by the first `reset()`, not by the constructor, so
that an environment made only for its spaces costs nothing and stands in nobody's way.
"""

import os
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import gymnasium as gym
import numpy as np
import stable_retro
from numpy.typing import NDArray

from genie_ray.games.actions import action_names, button_table
from genie_ray.games.roms import COINRUN, INTEGRATIONS, add_integrations, require_rom, resolve_game

if TYPE_CHECKING:
    from genie_ray.envs.coinrun import CoinRunEnv

RLLIB_NAME = "genie_ray/RetroEnv"


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """What an agent sees and may do."""

    frame_size: int = 64  # pixels, height and width; the paper's frames are 64×64
    frame_skip: int = 4  # emulator frames per step
    max_episode_steps: int = 700  # longer episodes are truncated; the length of the paper's test episodes
    fit: Literal["pad", "stretch"] = "pad"  # how the console's picture becomes a square
    action_set: str = "paper"  # a name in games/actions.yaml, or actions joined by commas
    integrations: tuple[str, ...] = ()  # directories of games of one's own, see roms.add_integrations
    paint_vel_info: bool = False  # CoinRun: paint the player's speed into a corner of the picture; procgen's default
    coinrun_levels: tuple[int, int] = (0, 10_000)  # first, and how many; Genie's data (arXiv 2402.15391)

    def __post_init__(self) -> None:
        absolute = tuple(os.path.abspath(directory) for directory in self.integrations)
        object.__setattr__(self, "integrations", absolute)  # rollout workers have working directories of their own
        for name in ("frame_size", "frame_skip", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.fit not in ("pad", "stretch"):
            raise ValueError(f"fit is {self.fit!r}: must be 'pad' or 'stretch'")
        first, count = self.coinrun_levels
        if first < 0 or count < 1 or first + count > 2**31 - 1:
            raise ValueError(
                f"coinrun_levels is {first}, {count}: must be a first level from 0 on and a number of them"
            )
        action_names(self.action_set)


class RetroEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """One game: observations uint8 [H, W, 3], `Discrete` actions in the order of the action set.

    The reward is the game's own, summed over the skipped frames. `info` holds the emulator's variables after the last
    of them (score, lives, …: whatever the game's integration reads from memory) as ints.

    Args:
        game: a Stable-Retro id, with or without `-v0`.
        config: frames, actions and episode length.
        native_frame_every: put the console's own picture into `info["native_frame"]`, uint8 [H', W', 3], of an
            episode's steps 0, n, 2·n, …; 0: of none.

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
        self._native_frame_every = native_frame_every
        self._emulator: stable_retro.RetroEnv | None = None
        self._steps = 0
        size = self.config.frame_size
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self.button_table))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode from the game's start state; builds the emulator the first time.

        Raises:
            RuntimeError: another environment of this process holds an emulator, or the start state is damaged.
        """
        super().reset(seed=seed)
        if self._emulator is None:
            self._emulator = _build_emulator(self)
        screen, _ = self._emulator.reset()
        self._steps = 0
        return self._observe(screen, self._emulator.data.lookup_all())

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` emulator frames, fewer if the game ends within them."""
        assert self._emulator is not None, "reset() comes before step()"
        console, variables = self._emulator.em, self._emulator.data
        console.set_button_mask(self.button_table[action], 0)
        reward, terminated = 0.0, False
        for _ in range(self.config.frame_skip):  # what stable_retro.RetroEnv.step does, but for pictures nobody sees
            console.step()
            variables.update_ram()
            reward += variables.current_reward()
            terminated = bool(variables.is_done())
            if terminated:
                break
        self._steps += 1
        truncated = not terminated and self._steps >= self.config.max_episode_steps
        frame, info = self._observe(self._emulator.get_screen(apply_rotation=True), variables.lookup_all())
        return frame, reward, terminated, truncated, info

    def close(self) -> None:
        """Give the emulator back; a later `reset()` builds a new one."""
        if self._emulator is not None:
            self._emulator.close()
            self._emulator = None

    def _observe(
        self, screen: NDArray[np.uint8], variables: dict[str, int]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        info: dict[str, Any] = dict(variables)
        if self._native_frame_every and self._steps % self._native_frame_every == 0:
            info["native_frame"] = screen.copy()
        return fit_frame(screen, self.config.frame_size, self.config.fit), info


def fit_frame(screen: NDArray[np.uint8], size: int, fit: Literal["pad", "stretch"]) -> NDArray[np.uint8]:
    """A picture uint8 [H', W', 3] as a square uint8 [size, size, 3], by area averaging.

    `pad` keeps the aspect ratio of the pixels by centring the picture on black; `stretch` fills the square.
    """
    if fit == "pad":
        height, width = screen.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + height, left : left + width] = screen
        screen = square
    return cv2.resize(screen, (size, size), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def make_game(game: str, config: EnvConfig | None = None, *, native_frame_every: int = 0) -> "RetroEnv | CoinRunEnv":
    """The environment of a game, by its id: Stable-Retro's, or `CoinRun`.

    Raises:
        ValueError: see `RetroEnv` and `CoinRunEnv`.
    """
    if game == COINRUN:
        from genie_ray.envs.coinrun import CoinRunEnv

        return CoinRunEnv(config, native_frame_every=native_frame_every)
    return RetroEnv(game, config, native_frame_every=native_frame_every)


def register_rllib_env() -> str:
    """Make the games known to RLlib; the name to give to `AlgorithmConfig.environment`.

    Its `env_config` is `{"game": <id>, "env": EnvConfig}`, and `"native_frame_every"` where that is not 0.
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> "RetroEnv | CoinRunEnv":
    return make_game(env_config["game"], env_config["env"], native_frame_every=env_config.get("native_frame_every", 0))


# Whose environment holds this process's emulator; dead or None when nobody's does.
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
    if emulator.initial_state is None:  # without a start state, an episode begins where the console is switched on
        emulator.initial_state = emulator.em.get_state()
    elif not emulator.em.set_state(emulator.initial_state):  # which Stable-Retro would pass over
        raise RuntimeError(f"start state {emulator.statename} of {env.game} is damaged, or of another emulator or ROM")
    _holder = weakref.ref(env)
    return emulator
