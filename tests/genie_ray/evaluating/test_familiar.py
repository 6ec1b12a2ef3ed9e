"""What training data show of a test dataset: windows met bit for bit, and the rarest cells."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.familiar import find_familiar, find_unreached, frame_hashes, rarest, sequences
from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard
from tests.genie_ray.tiny_world import GAMES, NAMES, tiny_dataset

CONFIG = EvaluationConfig(prime_frames=1, predicted_frames=2, delta_psnr_frame=1, stride=1)
GAME = GAMES[0]


def dataset_of(root: Path, *shades: list[int]) -> ReplayDataset:
    """An episode for each list of grey values, one for each frame."""
    episodes = [
        Episode(
            episode_id=episode_id(GAME, "random", 0, index),
            game=GAME,
            frames=frames_of(values),
            actions=np.zeros(len(values) - 1, np.int8),
            action_logp=None,
            reward_env=np.zeros(len(values) - 1, np.float32),
            reward_uncertainty=None,
            terminated=False,
            truncated=True,
            infos=[{}] * len(values),
        )
        for index, values in enumerate(shades)
    ]
    write_shard(root, GAME, "00000", episodes)
    counts = count_episodes(index_episodes(root))
    write_metadata(root, DatasetMetadata(action_names=NAMES, frame_shape=(16, 16, 3), policy="random", counts=counts))
    return ReplayDataset(root)


def frames_of(values: list[int]) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), 16, 16, 3)).copy()


def test_a_window_is_seen_only_where_all_its_frames_follow_one_another(tmp_path: Path) -> None:
    """Windows of three frames of 10, 20, 30, 40, 50: the first is met; the second in another order, or across ends."""
    test = dataset_of(tmp_path / "test", [10, 20, 30, 40, 50])
    train = dataset_of(tmp_path / "train", [7, 10, 20, 30], [40, 30, 20, 40], [20, 30], [40, 50])
    assert find_familiar(test.root, [train.root], CONFIG)[GAME].seen_W.tolist() == [True, False, False]
    more = dataset_of(tmp_path / "more", [30, 40, 50])
    found = find_familiar(test.root, [train.root, more.root], CONFIG)[GAME]
    assert found.seen_W.tolist() == [True, False, True]


def test_one_pixel_makes_another_window() -> None:
    frames = frames_of([10, 20, 30])
    other = frames.copy()
    other[1, 5, 5, 0] += 1
    ours, theirs = frame_hashes(frames), frame_hashes(other)
    assert (ours == theirs).tolist() == [True, False, True]
    assert sequences(ours, 3) != sequences(theirs, 3)
    assert sequences(ours, 3) != sequences(ours[::-1], 3)
    assert len(sequences(ours, 4)) == 0


def test_rare_cells_are_those_that_training_shows_least(tmp_path: Path) -> None:
    """Cells are 8 grey levels, 32 values each. Predicted frames show 4 cells; a tenth of these, rounded up, is one."""
    test = dataset_of(tmp_path / "test", [0, 40, 80, 120, 160])
    train = dataset_of(tmp_path / "train", [40, 41, 80, 81, 160, 161], [120, 121, 82])
    found = find_familiar(test.root, [train.root], CONFIG)[GAME]
    # Training shows the cells of 40, 120 and 160 twice each and that of 80 three times: the three rarest are equal.
    assert found.rare_WT.tolist() == [[True, False], [False, True], [True, True]]
    more = dataset_of(tmp_path / "more", [160, 160, 40])
    found = find_familiar(test.root, [train.root, more.root], CONFIG)[GAME]
    assert found.rare_WT.tolist() == [[False, False], [False, True], [True, False]]  # now 120 alone


def test_a_window_is_unreached_where_its_last_given_frame_shows_a_new_cell(tmp_path: Path) -> None:
    """Cells are 8 grey levels, 32 values each; windows of one given frame and two predicted begin at 0, 40, 80."""
    test = dataset_of(tmp_path / "test", [0, 40, 80, 120, 160])
    play = dataset_of(tmp_path / "play", [41, 200], [120, 160])
    assert find_unreached(test.root, [play.root], CONFIG)[GAME].tolist() == [True, False, True]
    more = dataset_of(tmp_path / "more", [7, 7])
    assert find_unreached(test.root, [play.root, more.root], CONFIG)[GAME].tolist() == [False, False, True]
    later = EvaluationConfig(prime_frames=2, predicted_frames=1, delta_psnr_frame=1, stride=1)  # at 40, 80 and 120
    assert find_unreached(test.root, [play.root], later)[GAME].tolist() == [False, True, False]


def test_the_rarest_tenth_is_rounded_up_and_holds_equals() -> None:
    assert rarest(np.arange(20)).tolist() == [True] * 2 + [False] * 18
    assert rarest(np.array([5, 1, 1, 1])).tolist() == [False, True, True, True]


def test_training_data_of_other_frames_are_refused(tmp_path: Path) -> None:
    test, other = tiny_dataset(tmp_path / "test"), tiny_dataset(tmp_path / "train", size=32)
    told = r"frame shape of training data .*train is \(32, 32, 3\): must be \(16, 16, 3\)"
    with pytest.raises(ValueError, match=told):
        find_familiar(test.root, [other.root], CONFIG)
