"""procgen's games as gymnasium environments with the interface of the Stable-Retro games.

procgen (Cobbe et al., 2019, arXiv 1912.01588) has 16 games, CoinRun (Cobbe et al., 2018, arXiv 1812.02341) among them.
They generate their levels: each episode is a level, drawn from `EnvConfig.coinrun_levels` by the seed of `reset()`. The
same seed and actions give the same frames. Two things differ from a console's games. `frame_skip` counts the game's own
ticks; published CoinRun data has a frame for every tick (`frame_skip: 1`). And the tick that ends an episode already
shows the next level, so an episode's last picture cannot be observed: the one before stands in for it.

It needs procgen, which `genie-ray roms import --procgen` installs (`genie_ray/games/procgen.py`).
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from genie_ray.base.frames import fit_frame
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen_state import UNITS, end, player_cell, time_limit
from genie_ray.games.actions import action_names
from genie_ray.games.roms import require_rom

if TYPE_CHECKING:
    from procgen import ProcgenGym3Env

ARROWS, LETTERS = ("LEFT", "RIGHT", "UP", "DOWN"), ("D", "A", "W", "S", "Q", "E")  # procgen's keys
KEY_OF = {"JUMP": "UP", "FIRE": "D"}
NO_SPEED = ("Chaser", "Heist", "Maze", "Miner", "Plunder")  # games that cannot paint it


class ProcgenState(NamedTuple):
    """Where an episode stands; only an environment with the same settings and level can go on from it."""

    game: bytes
    level: int
    steps: int
    ticks: int
    screen: NDArray[np.uint8]
    native_screen: NDArray[np.uint8] | None
    cell: tuple[float, float]


class ProcgenEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """A game of procgen's: observations uint8 [H, W, 3], `Discrete` actions in the order of the action set.

    The reward is the game's, 10 for the coin at the end of a level of CoinRun. `info` holds `level`, its number;
    `level_complete`, 1 if the episode ended with the level's aim; `x` and `y` of the player's centre from the level's
    left and bottom, as ints, 16 to a cell of the level; and, in games whose levels end at one side (CoinRun, Ninja,
    Leaper), `progress`, his way along that axis as a share of the end's, about 1 there. Arguments are those of
    `RetroEnv`; the native picture has 512×512 pixels. Nothing flickers or waits here, so `pool` and `skip_start` change
    nothing.

    Raises:
        ValueError: procgen is not installed; an action needs a key that there is not, opposite arrows, or a letter and
            another key; or a game without a speed to show is to paint it.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, game: str, config: EnvConfig | None = None, *, native_frame_every: int = 0) -> None:
        require_rom(game)
        self.game = game
        self.config = config or EnvConfig()
        if self.config.paint_vel_info and game in NO_SPEED:
            raise ValueError(
                f"paint_vel_info is true: {game} has no speed to paint; so it is with {', '.join(NO_SPEED)}"
            )
        self._keys = [_keys(game, action) for action in action_names(self.config.action_set)]
        self._native_frame_every = native_frame_every
        self._level: ProcgenGym3Env | None = None
        self._native_screen: NDArray[np.uint8] | None = None
        size = self.config.frame_size
        self.observation_space = gym.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self._keys))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start a level: that of `options["level"]`, or one drawn with the seed."""
        from procgen import ProcgenGym3Env

        super().reset(seed=seed)
        first, count = self.config.coinrun_levels
        self._number = int((options or {}).get("level", first + self.np_random.integers(count)))
        self.close()
        self._level = ProcgenGym3Env(
            num=1,
            env_name=self.game.lower(),
            start_level=self._number,
            num_levels=1,
            num_threads=0,
            rand_seed=0,  # unused, as there is only one level; without it procgen draws a random seed
            distribution_mode=self.config.coinrun_mode,
            paint_vel_info=self.config.paint_vel_info,
            render_mode="rgb_array" if self._native_frame_every else None,
        )
        combinations = {frozenset(keys): number for number, keys in enumerate(self._level.get_combos())}
        self._actions = np.array([combinations[keys] for keys in self._keys], np.int32)
        self._steps = self._ticks = 0
        (state,) = self._level.get_state()
        self._end, self._time_limit = end(self.game, state), time_limit(state)
        self._look()
        self._locate()
        return self._observe(complete=False)

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` ticks, fewer if the episode ends within them."""
        if self._level is None:
            raise gym.error.ResetNeeded(f"{self.game}: step() without an episode: reset() comes first")
        reward, ended, complete = 0.0, False, False
        for _ in range(self.config.frame_skip):
            self._level.act(self._actions[action : action + 1])
            self._ticks += 1
            rewards, _, firsts = self._level.observe()
            reward += float(rewards[0])
            ended = bool(firsts[0])
            if ended:  # the picture is already the next episode's
                complete = bool(self._level.get_info()[0]["prev_level_complete"])
                break
            self._look()
        if not ended:
            self._locate()
        self._steps += 1
        terminated = ended and (complete or self._ticks < self._time_limit)
        truncated = not terminated and (ended or self._steps >= self.config.max_episode_steps)
        frame, info = self._observe(complete=complete)
        return frame, reward, terminated, truncated, info

    def get_state(self) -> ProcgenState:
        """Where the episode stands, for `set_state`; the game goes on undisturbed."""
        if self._level is None:
            raise gym.error.ResetNeeded(f"{self.game}: get_state() without an episode: reset() comes first")
        (game,) = self._level.get_state()
        return ProcgenState(game, self._number, self._steps, self._ticks, self._screen, self._native_screen, self._cell)

    def set_state(self, state: ProcgenState) -> None:
        """Go back to where this level's episode stood: the same actions then give the same steps."""
        if self._level is None:
            raise gym.error.ResetNeeded(f"{self.game}: set_state() without an episode: reset() comes first")
        assert self._number == state.level, "a state is set in its own level"
        self._level.set_state([state.game])
        self._steps, self._ticks = state.steps, state.ticks
        self._screen, self._native_screen, self._cell = state.screen, state.native_screen, state.cell

    def close(self) -> None:
        """Free the game's memory."""
        if self._level is not None:
            self._level.close()
            self._level = None

    def _look(self) -> None:
        """Keep the current picture."""
        assert self._level is not None
        self._screen = self._level.observe()[1]["rgb"][0]
        if self._native_frame_every:
            self._native_screen = self._level.get_info()[0]["rgb"]

    def _locate(self) -> None:
        """Keep the player's position; this takes longer than a tick of the game."""
        assert self._level is not None
        self._cell = player_cell(self._level.get_state()[0])

    def _observe(self, *, complete: bool) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        x, y = self._cell
        info: dict[str, Any] = {
            "level": self._number,
            "level_complete": int(complete),
            "x": int(x * UNITS),
            "y": int(y * UNITS),
        }
        if self._end is not None:
            info["progress"] = round(self._cell[self._end.axis] / self._end.cell, 3)
        if self._native_frame_every and self._steps % self._native_frame_every == 0:
            assert self._native_screen is not None
            info["native_frame"] = self._native_screen.copy()
        return fit_frame(self._screen, self.config.frame_size, self.config.fit), info


def _keys(game: str, action: str) -> frozenset[str]:
    """The keys that an action holds down."""
    names = action.split("+") if action != "NOOP" else []
    keys = frozenset(KEY_OF.get(name, name) for name in names)
    if unknown := sorted(keys.difference(ARROWS, LETTERS)):
        has = ", ".join((*ARROWS, *LETTERS))
        raise ValueError(f"action {action} needs {', '.join(unknown)}, which {game} lacks: it has {has}")
    if keys >= {"LEFT", "RIGHT"} or keys >= {"UP", "DOWN"} or (len(keys) > 1 and keys.intersection(LETTERS)):
        raise ValueError(f"action {action} holds opposite arrows, or a letter with another key: {game} accepts neither")
    return keys
