"""One dataset out of several, without copying."""

from pathlib import Path

import numpy as np
import pytest

from genie_ray.replay import writer
from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.gather import gather
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.replay.verify import verify


def made(root: Path, shard: str, *names: str, actions: tuple[str, ...] = ("A", "B")) -> Path:
    episodes = [
        Episode(
            episode_id=f"Game/{name}",
            game="Game",
            frames=np.full((4, 8, 8, 3), ord(name), np.uint8),
            actions=np.zeros(3, np.int8),
            action_logp=None,
            reward_env=np.zeros(3, np.float32),
            reward_uncertainty=None,
            terminated=False,
            truncated=True,
            infos=[{}] * 4,
        )
        for name in names
    ]
    writer.write_shard(root, "Game", shard, episodes)
    counts = count_episodes(index_episodes(root))
    writer.write_metadata(
        root, DatasetMetadata(action_names=actions, frame_shape=(8, 8, 3), policy="test", counts=counts)
    )
    return root


def names(root: Path) -> list[str]:
    assert verify(root) == []
    return [ref.episode_id.removeprefix("Game/") for ref in ReplayDataset(root).episodes]


def test_a_dataset_that_grows_is_read_as_it_was(tmp_path: Path) -> None:
    source = made(tmp_path / "a", "one", "x")
    snapshot = gather(tmp_path / "snapshot", [source], policy="both")
    made(source, "two", "y")
    made(source, "one", "z")  # a shard is replaced, never changed
    assert names(source) == ["y", "z"]
    assert names(snapshot) == ["x"]
    (file,) = snapshot.glob("game=*/*.parquet")
    assert file.stat().st_nlink == 1  # its source is gone by now


def test_shards_of_the_same_name_stay_apart(tmp_path: Path) -> None:
    sources = [made(tmp_path / "a", "one", "x"), made(tmp_path / "b", "one", "y")]
    assert names(gather(tmp_path / "all", sources, policy="both")) == ["x", "y"]
    assert ReplayDataset(tmp_path / "all").metadata.policy == "both"
    assert all(path.stat().st_nlink == 2 for path in (tmp_path / "all").glob("game=*/*.parquet"))
    assert names(gather(tmp_path / "all", sources, policy="both")) == ["x", "y"]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    sources = [made(tmp_path / "a", "one", "x"), made(tmp_path / "b", "one", "y", actions=("A", "C"))]
    with pytest.raises(ValueError, match=r"b has action_names \('A', 'C'\): must be \('A', 'B'\), as in .*a$"):
        gather(tmp_path / "all", sources, policy="both")
    assert not (tmp_path / "all").exists()
