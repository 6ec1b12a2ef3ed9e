"""Many games inside a world model, played as one batch: the core of the environments in `envs/world_model.py`.

All games start together, from prime frames of a replay dataset or of the caller, and advance together in one
`world_model.rollout.Rollout`.

Axes: B games, T prime frames, H W C pixels of `frames_BTHWC`, N tokens of a frame, h w their grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genie_ray.base.precision import Precision, autocast
from genie_ray.base.seeding import seeded_generator
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from world_model.checkpoint import WorldModel
from world_model.genie import GenieRedux, GenieReduxG
from world_model.maskgit import DecodingConfig
from world_model.rollout import Rollout
from world_model.uncertainty import top_k_mean

PRIME_OPTIONS = ("prime_frames", "prime_actions")

INTERACTIVE = DecodingConfig(steps=4, temperature=0.0, mode="autoregressive", frames_per_step=1)
"""Fast, and deterministic because no token is sampled. Over 40 frames of Kangaroo, on windows of a test set, a small
model lost 0.05 dB against 25 steps and was five times as fast."""


@dataclass(frozen=True, kw_only=True)
class WorldModelEnvConfig:
    """How episodes start and end, and how a frame is decoded."""

    prime_frames: int = 2  # from the dataset, at the start of an episode; paper, Sec. 5
    game: str | None = None  # whose episodes they come from; None: all of the dataset's
    max_episode_steps: int = 700  # longer episodes are truncated; as in the games' own environments
    decoding: DecodingConfig = INTERACTIVE  # `mode` and `frames_per_step` are ignored: one frame at a time
    precision: Precision = "auto"
    top_k_fraction: float = 0.25  # share of a frame's tokens in info["uncertainty_top_k"]; paper, eq. 4

    def __post_init__(self) -> None:
        for name in ("prime_frames", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        if not 0 < self.top_k_fraction <= 1:
            raise ValueError(f"top_k_fraction is {self.top_k_fraction}: must be above 0, up to 1")


class ImaginedGames:
    """The games of one rollout. `infos` are arrays with an axis of games."""

    _frames_BHWC: Tensor  # the latest ones
    _steps: int  # of these episodes
    _origin: dict[str, Any]  # infos that tell where the prime frames come from

    def __init__(
        self, count: int, model: WorldModel, dataset: ReplayDataset | None, config: WorldModelEnvConfig
    ) -> None:
        self._count, self._model, self._config = count, model, config
        self._size, self._most_primes = model.tokenizer.config.frame_size, model.dynamics.config.max_frames - 1
        if config.prime_frames > self._most_primes:
            raise ValueError(f"prime_frames is {config.prime_frames}: the model takes 1 to {self._most_primes}")
        self._rollout: Rollout | None = None
        self._starts: PrimeWindows | None = None
        if dataset is not None:
            num_actions = model.num_actions if isinstance(model, GenieReduxG) else None
            dataset.metadata.require_fit(frame_size=self._size, num_actions=num_actions)
            self._starts = PrimeWindows(dataset, config.game, config.prime_frames)

    def spaces(self) -> tuple[gym.spaces.Box, gym.spaces.Discrete]:
        """The observation and action spaces of one game."""
        return (
            gym.spaces.Box(0, 255, (self._size, self._size, 3), np.uint8),
            gym.spaces.Discrete(self._model.num_actions),
        )

    def start(
        self, rngs: Sequence[np.random.Generator], options: dict[str, NDArray[Any]]
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start new episodes, with one random stream per game. Returns frames [B, H, W, 3] and infos."""
        if unknown := sorted(options.keys() - set(PRIME_OPTIONS)):
            raise ValueError(f"reset options are {', '.join(unknown)}: allowed are {', '.join(PRIME_OPTIONS)}")
        self._origin = {}
        if not options:
            options = self._drawn_primes(rngs)
        device = next(self._model.parameters()).device
        frames_BTHWC = self._checked_frames(options).to(device)
        prime_actions_BT = self._prime_actions(frames_BTHWC, options)
        with autocast(self._config.precision, device):
            self._rollout = Rollout(
                self._model,
                frames_BTHWC,
                prime_actions_BT,
                decoding=self._config.decoding,
                generator=seeded_generator(device, *(int(rng.integers(2**63)) for rng in rngs)),
            )
        self._frames_BHWC, self._steps = frames_BTHWC[:, -1], 0
        return self.frames(), dict(self._origin)

    def step(self, actions_B: NDArray[Any]) -> tuple[NDArray[np.uint8], bool, dict[str, Any]]:
        """Play one action in each game. Returns frames [B, H, W, 3], whether the step limit is reached, and infos."""
        assert self._rollout is not None, "reset() comes before step()"
        actions = _as_tensor(actions_B).to(self._frames_BHWC.device)
        with autocast(self._config.precision, actions.device):
            self._frames_BHWC, uncertainty_BN = self._rollout.step(actions)
        self._steps += 1
        infos = self._origin | {
            "uncertainty": uncertainty_BN.unflatten(1, self._model.dynamics.grid).cpu().numpy(),
            "uncertainty_top_k": top_k_mean(uncertainty_BN, self._config.top_k_fraction).cpu().numpy(),
        }
        return self.frames(), self._steps >= self._config.max_episode_steps, infos

    def frames(self) -> NDArray[np.uint8]:
        """A copy of the latest frames, [B, H, W, 3]."""
        return self._frames_BHWC.cpu().numpy().copy()

    def _drawn_primes(self, rngs: Sequence[np.random.Generator]) -> dict[str, NDArray[Any]]:
        """Prime frames and actions drawn from the dataset, as reset options; records where they come from."""
        if self._starts is None:
            raise ValueError("no prime frames: give a dataset, or prime_frames in the options of each reset")
        origins = [self._starts.draw(rng) for rng in rngs]
        primes = [self._starts.read(ref, step) for ref, step in origins]
        self._origin = {
            "episode_id": np.array([ref.episode_id for ref, _ in origins], object),
            "prime_step": np.array([step for _, step in origins]),
        }
        frames_BTHWC, actions_BT = (np.stack(arrays) for arrays in zip(*primes, strict=True))
        drawn = {"prime_frames": frames_BTHWC, "prime_actions": actions_BT}
        if isinstance(self._model, GenieRedux):  # its latent actions are not the recorded ones
            del drawn["prime_actions"]
        return drawn

    def _checked_frames(self, options: dict[str, NDArray[Any]]) -> Tensor:
        frames = options.get("prime_frames", np.empty(0))
        games, most, size = self._count, self._most_primes, self._size
        fits = frames.ndim == 5 and frames.shape[0] == games and frames.shape[2:] == (size, size, 3)
        if not fits or frames.dtype != np.uint8 or not 1 <= frames.shape[1] <= most:
            raise ValueError(
                f"prime_frames are {frames.dtype} {list(frames.shape)}: must be uint8 "
                f"[games: {games}, frames: 1 to {most}, {size}, {size}, 3]"
            )
        return torch.tensor(frames)

    def _prime_actions(self, frames_BTHWC: Tensor, options: dict[str, NDArray[Any]]) -> Tensor:
        """The actions between the prime frames, [B, T−1]."""
        if "prime_actions" in options:
            return _as_tensor(options["prime_actions"]).to(frames_BTHWC.device)
        if (frames := frames_BTHWC.shape[1]) == 1:
            return torch.empty(self._count, 0, dtype=torch.int64, device=frames_BTHWC.device)
        if isinstance(self._model, GenieRedux):
            return self._model.latent_actions.encode(frames_BTHWC)
        raise ValueError(f"prime_actions are missing: must be {frames - 1} for {frames} prime frames")


class PrimeWindows:
    """The windows of T frames that an episode can start from, all equally likely.

    Raises:
        ValueError: no episode of the game, or none that has T frames.
    """

    def __init__(self, dataset: ReplayDataset, game: str | None, frames: int) -> None:
        self._dataset, self._frames = dataset, frames
        self._episodes = episodes_of(dataset, game)
        counts = [max(0, ref.length + 2 - frames) for ref in self._episodes]
        self._ends = np.cumsum(counts)
        if not self._ends[-1]:
            longest = max(ref.length for ref in self._episodes) + 1
            raise ValueError(f"no episode in {dataset.root} has {frames} prime frames: the longest has {longest}")

    def draw(self, rng: np.random.Generator) -> tuple[EpisodeRef, int]:
        """An episode, and the step of its first prime frame."""
        index = int(rng.integers(self._ends[-1]))
        episode = int(np.searchsorted(self._ends, index, side="right"))
        return self._episodes[episode], int(self._ends[episode]) - 1 - index

    def read(self, ref: EpisodeRef, step: int) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """Its frames [T, H, W, 3] and the actions between them [T−1]."""
        frames, actions = self._dataset.read_frames_and_actions(ref)
        return frames[step : step + self._frames], actions[step : step + self._frames - 1]


def episodes_of(dataset: ReplayDataset, game: str | None) -> list[EpisodeRef]:
    """The episodes of a game (its id with or without `-v0`), or of all games.

    Raises:
        ValueError: the dataset has none of that game.
    """
    episodes = [ref for ref in dataset.episodes if game is None or ref.game in (game, f"{game}-v0")]
    if not episodes:
        raise ValueError(f"{dataset.root} has no episode of {game}: it has {', '.join(dataset.metadata.counts)}")
    return episodes


def _as_tensor(actions: NDArray[Any]) -> Tensor:
    if not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(f"actions are {actions.dtype}: must be integers")
    return torch.from_numpy(actions.astype(np.int64))
