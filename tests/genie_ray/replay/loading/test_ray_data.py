"""Ray Data gives the same as the reader."""

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading import ray_data
from genie_ray.replay.loading.windows import iter_windows

KANGAROO = "Kangaroo-Atari2600-v0"


@pytest.fixture
def dataset(make_dataset) -> ReplayDataset:
    make_dataset([40, 7, 33, 25])
    return make_dataset([61], game=KANGAROO)


@pytest.mark.slow
def test_windows_are_those_of_the_reader(ray_session: None, dataset: ReplayDataset) -> None:
    rows = ray_data.windows(dataset, "all", 16, stride=5).take_all()
    rows.sort(key=lambda row: (row["episode_id"], row["step"]))
    batches = list(iter_windows(dataset, "all", 16, stride=5, batch_size=4))
    assert [row["game"] for row in rows] == [game for batch in batches for game in batch["games"]]
    for name, theirs in (("frames", "frames_BTHWC"), ("actions", "actions_BT")):
        expected = np.concatenate([batch[theirs] for batch in batches])  # type: ignore[literal-required]
        found = np.stack([row[name] for row in rows])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_rows_are_those_that_are_stored(ray_session: None, dataset: ReplayDataset) -> None:
    rows = ray_data.rows(dataset, "validation").take_all()
    rows.sort(key=lambda row: (row["episode_id"], row["step"]))
    episodes = [dataset.read(ref) for ref in dataset.split("validation")]
    assert len(rows) == sum(len(episode.frames) for episode in episodes)
    np.testing.assert_array_equal([row["frame"] for row in rows], np.concatenate([e.frames for e in episodes]))
    assert [row["action"] for row in rows] == [action for e in episodes for action in [*e.actions, -1]]
    assert [row["reward_env"] for row in rows if row["action"] >= 0] == [r for e in episodes for r in e.reward_env]
    assert [row["terminated"] for row in rows if row["action"] < 0] == [e.terminated for e in episodes]


def test_what_cannot_work_is_refused_before_ray_starts(dataset: ReplayDataset) -> None:
    with pytest.raises(ValueError, match="has no window of 100 frames"):
        ray_data.windows(dataset, "all", 100, stride=1)
    with pytest.raises(ValueError, match="length is 16 and stride 0"):
        ray_data.windows(dataset, "all", 16, stride=0)
