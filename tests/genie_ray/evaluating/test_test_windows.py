"""Windows: which there are, how often an episode is decoded, and the random actions that they are given."""

import dataclasses
from pathlib import Path

import pytest
import torch

from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.windows import blackened, evenly_spaced, random_actions, read_batches, window_starts
from tests.genie_ray.tiny_world import GAMES, tiny_dataset

CONFIG = EvaluationConfig(stride=3, batch_size=2)


def test_windows_are_spread_evenly_and_never_twice() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 10) == [0, 1, 2]


def test_random_actions_replace_all_that_lead_to_predicted_frames() -> None:
    """2 given frames (0 and 1): action 0 leads from one to the other and stays."""
    actions_BT = torch.full((64, 11), 5)
    every = random_actions(actions_BT, 5, CONFIG, seeds=[*range(64)])
    assert torch.all(every[:, 0] == 5)
    assert every[:, 1:].unique().tolist() == [0, 1, 2, 3, 4]
    four = random_actions(actions_BT, 5, dataclasses.replace(CONFIG, prime_frames=4), seeds=[*range(64)])
    assert torch.all(four[:, :3] == 5)
    assert torch.all(four[:, 3:] != 5)
    assert torch.all(actions_BT == 5)


def test_or_only_the_one_that_leads_to_the_frame() -> None:
    actions_BT = torch.zeros(64, 11, dtype=torch.int64)
    last = random_actions(actions_BT, 5, dataclasses.replace(CONFIG, random_actions="last"), seeds=[*range(64)])
    # 2 given frames (0 and 1); predicted frame 4 is frame 5 of the window, and action 4 leads to it
    assert last[:, 4].unique().tolist() == [1, 2, 3, 4]
    assert torch.all(last[:, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]] == 0)


def test_random_actions_depend_on_the_window_alone() -> None:
    actions_BT = torch.zeros(3, 11, dtype=torch.int64)
    together = random_actions(actions_BT, 5, CONFIG, seeds=[7, 8, 9])
    assert torch.equal(random_actions(actions_BT[:1], 5, CONFIG, seeds=[9]), together[2:])


def test_each_episode_is_decoded_once_whatever_the_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(tmp_path, [12, 30, 24])
    read, decoded = dataset.read_frames_and_actions, []
    monkeypatch.setattr(dataset, "read_frames_and_actions", lambda ref: decoded.append(ref) or read(ref))
    starts = window_starts(dataset, GAMES[1], CONFIG)
    assert [start for _, start in starts] == [0, 3, 6, 9, 12, 15, 18, 0, 3, 6, 9, 12]
    batches = list(read_batches(dataset, starts, CONFIG))
    assert len(decoded) == 2
    assert [len(batch.starts) for batch in batches] == [2] * 6
    for batch in batches:
        for frames, actions, (ref, start) in zip(*batch, strict=True):
            true_frames, true_actions = read(ref)
            assert torch.equal(frames, torch.tensor(true_frames[start : start + 12]))
            assert actions.tolist() == true_actions[start : start + 11].tolist()
    seeds = [seed for batch in batches for seed in batch.seeds(0)]
    assert len(set(seeds)) == 12
    (whole,) = read_batches(dataset, starts, dataclasses.replace(CONFIG, batch_size=100))
    assert whole.seeds(0) == seeds
    assert not set(seeds) & {*whole.seeds(1), *whole.seeds(0, "random")}


def test_a_test_set_without_a_window_is_refused(tmp_path: Path) -> None:
    long = dataclasses.replace(CONFIG, predicted_frames=200)
    with pytest.raises(ValueError, match=f"no window of 202 frames of {GAMES[1]}, its longest episode has 31"):
        window_starts(tiny_dataset(tmp_path, [12, 30]), GAMES[1], long)


def test_a_corner_is_black_where_frames_are_compared() -> None:
    frames_BTHWC = torch.full((2, 3, 8, 8, 3), 200, dtype=torch.uint8)
    assert blackened(frames_BTHWC, CONFIG) is frames_BTHWC
    shown = blackened(frames_BTHWC, dataclasses.replace(CONFIG, black_corner=(2, 5)))
    assert torch.all(shown[:, :, :2, :5] == 0)
    assert int((shown == 200).sum()) == 2 * 3 * 3 * (64 - 10)
    assert torch.all(frames_BTHWC == 200)
    with pytest.raises(ValueError, match=r"black_corner = \[-1, 3\]"):
        dataclasses.replace(CONFIG, black_corner=(-1, 3))
