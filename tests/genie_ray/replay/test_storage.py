"""Datasets that are not on disk: an in-memory fsspec file system, reached by URI, stands in for an object store."""

import uuid

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.loading.windows import WindowLoader, iter_windows
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import write_metadata, write_shard
from genie_ray.storage.paths import RemotePath, resolve

HERO, KANGAROO = "Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"


@pytest.fixture
def uri() -> str:
    return f"fsspec+memory://{uuid.uuid4().hex}/data"


@pytest.fixture
def stored(uri: str, make_episode) -> str:
    """A URI that holds the same dataset as `make_dataset` makes locally."""
    for game, lengths in ((HERO, [40, 31, 20]), (KANGAROO, [25])):
        write_shard(uri, game, "00000", (make_episode(i, length, game) for i, length in enumerate(lengths)))
    counts = count_episodes(index_episodes(uri))
    metadata = DatasetMetadata(
        action_names=("RIGHT", "LEFT", "UP", "DOWN", "JUMP"), frame_shape=(4, 6, 3), policy="random", counts=counts
    )
    write_metadata(uri, metadata)
    return uri


def test_remote_equals_local(stored: str, make_dataset) -> None:
    make_dataset([40, 31, 20])
    local, remote = make_dataset([25], game=KANGAROO), ReplayDataset(stored)
    assert [(ref.episode_id, ref.length) for ref in remote.episodes] == [
        (ref.episode_id, ref.length) for ref in local.episodes
    ]
    assert remote.content_hash() == local.content_hash()
    assert remote.metadata == local.metadata
    ours, theirs = (list(iter_windows(dataset, "all", 16, stride=3, batch_size=8)) for dataset in (remote, local))
    assert len(ours) == len(theirs) > 2
    for a, b in zip(ours, theirs, strict=True):
        assert a["games"] == b["games"]
        np.testing.assert_array_equal(a["frames_BTHWC"], b["frames_BTHWC"])
        np.testing.assert_array_equal(a["actions_BT"], b["actions_BT"])
    ours, theirs = (
        WindowLoader(dataset, split="train", length=8, stride=2, batch_size=4, seed=3) for dataset in (remote, local)
    )
    for _ in range(20):
        np.testing.assert_array_equal(next(ours)["frames_BTHWC"], next(theirs)["frames_BTHWC"])


def test_problems_are_named_by_uri(stored: str) -> None:
    assert verify(stored) == []
    root = resolve(stored)
    assert isinstance(root, RemotePath)
    shard = root / f"game={HERO}" / "00000.parquet"
    with shard.open("rb") as file:
        content = bytearray(file.read())
    content[len(content) // 3] ^= 1
    with shard.filesystem.open_output_stream(shard.path) as stream:
        stream.write(bytes(content))
    with root.filesystem.open_output_stream(f"{root.path}/notes.txt") as stream:
        stream.write(b"mine")
    problems = verify(stored)
    assert {str(problem.path).rpartition("/")[2] for problem in problems} == {"00000.parquet", "notes.txt"}
    assert all(str(problem.path).startswith("fsspec+memory://") for problem in problems)


def test_a_failed_write_leaves_nothing(uri: str, make_episode) -> None:
    def dying():
        yield make_episode(0)
        raise RuntimeError("worker died")

    with pytest.raises(RuntimeError, match="worker died"):
        write_shard(uri, HERO, "0", dying())
    assert list(resolve(uri).rglob("*")) == []


def test_file_uri_is_a_local_path(make_dataset) -> None:
    dataset = make_dataset([20])
    assert ReplayDataset(f"file://{dataset.root}").root == dataset.root
    assert ReplayDataset(f"file://{dataset.root}").episodes == dataset.episodes


def test_missing_and_unknown_places_are_named(uri: str) -> None:
    with pytest.raises(ValueError, match=rf"no replay dataset in fsspec\+memory://.*{METADATA_FILE} is missing"):
        ReplayDataset(uri)
    with pytest.raises(ValueError, match="xyz://bucket/data: Unrecognized filesystem type"):
        ReplayDataset("xyz://bucket/data")
    with pytest.raises(ValueError, match=r"fsspec\+xyz://bucket/data: "):
        ReplayDataset("fsspec+xyz://bucket/data")


def test_object_stores_are_known_by_their_scheme() -> None:
    path = resolve("s3://bucket/data?region=eu-central-1") / f"game={HERO}" / "0.parquet"
    assert isinstance(path, RemotePath)
    assert str(path) == f"s3://bucket/data/game={HERO}/0.parquet"
    assert path.filesystem.region == "eu-central-1"
    assert (path.name, path.stem, path.parent.name) == ("0.parquet", "0", f"game={HERO}")
