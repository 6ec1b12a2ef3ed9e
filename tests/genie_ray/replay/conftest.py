"""Small datasets whose frames encode their origin."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import read_metadata, write_metadata, write_shard

ACTION_NAMES = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
FRAME_SHAPE = (4, 6, 3)  # not square, so that a swap of the axes shows


def _make_episode(index: int, length: int = 20, game: str = "Hero-Atari2600-v0", **changes: object) -> Episode:
    """Random frames, but pixel [0, 0] holds (index, step // 256, step % 256)."""
    rng = np.random.default_rng(index)
    frames = rng.integers(256, size=(length + 1, *FRAME_SHAPE), dtype=np.uint8)
    steps = np.arange(length + 1)
    frames[:, 0, 0] = np.stack([np.full_like(steps, index), steps // 256, steps % 256], axis=1)
    fields: dict = {
        "episode_id": episode_id(game, "random", 0, index),
        "game": game,
        "frames": frames,
        "actions": rng.integers(5, size=length).astype(np.int8),
        "action_logp": rng.standard_normal(length).astype(np.float32),
        "reward_env": rng.standard_normal(length).astype(np.float32),
        "reward_uncertainty": rng.random(length).astype(np.float32),
        "terminated": index % 2 == 0,
        "truncated": index % 2 == 1,
        "infos": [{"lives": 3, "score": 10 * step} for step in range(length + 1)],
    }
    return Episode(**fields | changes)


def _finish(root: Path, frame_shape: tuple[int, int, int] = FRAME_SHAPE) -> ReplayDataset:
    """Write `_dataset.json` for the existing shards, and open the dataset."""
    counts = count_episodes(index_episodes(root))
    write_metadata(
        root, DatasetMetadata(action_names=ACTION_NAMES, frame_shape=frame_shape, policy="random", counts=counts)
    )
    return ReplayDataset(root)


@pytest.fixture(scope="session")
def relist() -> Callable[[Path], None]:
    """Call with a dataset's root after changing its files, to update their digests in `_dataset.json` but not the
    counts."""

    def relist(root: Path) -> None:
        write_metadata(root, read_metadata(root))

    return relist


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    """`make_episode(index, length=20, game="Hero-Atari2600-v0", **fields)`."""
    return _make_episode


@pytest.fixture(scope="session")
def finish() -> Callable[..., ReplayDataset]:
    """Call with the root of some shards, and their frame shape, to make them a dataset."""
    return _finish


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., ReplayDataset]:
    """Call with episode lengths and a game; call again to add another game."""

    def make(lengths: list[int], game: str = "Hero-Atari2600-v0", per_shard: int = 3) -> ReplayDataset:
        for first in range(0, len(lengths), per_shard):
            indices = range(first, min(first + per_shard, len(lengths)))
            write_shard(tmp_path, game, f"{first:05d}", (_make_episode(i, lengths[i], game) for i in indices))
        return _finish(tmp_path)

    return make
