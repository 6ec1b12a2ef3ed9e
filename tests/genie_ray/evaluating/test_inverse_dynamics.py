"""The inverse-dynamics classifier: a toy game whose frames show the action, shuffled actions, numbers by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_ray.evaluating.inverse_dynamics import (
    InverseDynamicsConfig,
    action_accuracy,
    train_classifier,
)
from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard

GAME, SIZE, ACTIONS, LENGTH = "Toy", 16, 4, 60
SMALL = InverseDynamicsConfig(width=8, hidden=32, updates=300, batch_size=32)


def dataset(directory: Path, *, shown: bool) -> ReplayDataset:
    """A square that each action puts at the top, right, bottom or left; `shown`: the actions are recorded."""
    rng, sides = np.random.default_rng(0), np.array([[0, 6], [6, 11], [11, 6], [6, 0]])
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    square[:4, :4] = 255
    episodes = []
    for index in range(20):
        actions = rng.integers(ACTIONS, size=LENGTH)
        places = np.concatenate([[[6, 6]], sides[actions]]) + rng.integers(2, size=(LENGTH + 1, 2))
        recorded = actions if shown else rng.permutation(actions)
        episodes.append(
            Episode(
                episode_id=episode_id(GAME, "toy", 0, index),
                game=GAME,
                frames=np.stack([np.roll(square, place, axis=(0, 1)) for place in places]),
                actions=recorded.astype(np.int8),
                action_logp=None,
                reward_env=np.zeros(LENGTH, np.float32),
                reward_uncertainty=None,
                terminated=False,
                truncated=True,
                infos=[{}] * (LENGTH + 1),
            )
        )
    write_shard(directory, GAME, "0", iter(episodes))
    counts = count_episodes(index_episodes(directory))
    names = ("UP", "RIGHT", "DOWN", "LEFT")
    write_metadata(
        directory, DatasetMetadata(action_names=names, frame_shape=(SIZE, SIZE, 3), policy="toy", counts=counts)
    )
    return ReplayDataset(directory)


def test_an_action_that_frames_show_is_recognised_in_episodes_never_seen(tmp_path: Path) -> None:
    replay = dataset(tmp_path, shown=True)
    random_state = torch.get_rng_state()
    trained = train_classifier(replay, ACTIONS, seed=0, config=SMALL)
    assert torch.equal(torch.get_rng_state(), random_state)
    held_out = replay.split("validation")
    assert trained.real.confusion_AA.sum() == len(held_out) * LENGTH
    assert trained.real.overall > 0.95
    assert trained.real.per_frame == [trained.real.overall]
    assert trained.real.chance < 0.35

    episode = replay.read(held_out[0])
    frames_BTHWC = torch.from_numpy(episode.frames[None].copy())
    actions_BT = torch.from_numpy(episode.actions[None].astype(np.int64))
    answer = action_accuracy(trained.network, frames_BTHWC, actions_BT)
    assert answer.overall > 0.95
    assert len(answer.per_frame) == LENGTH
    assert answer.confusion_AA.sum(1).tolist() == actions_BT.flatten().bincount(minlength=ACTIONS).tolist()
    backwards = action_accuracy(trained.network, frames_BTHWC.flip(1), actions_BT.flip(1))  # shows the action before
    assert backwards.overall < 0.5

    again = train_classifier(replay, ACTIONS, seed=0, config=SMALL)
    assert torch.equal(again.real.confusion_AA, trained.real.confusion_AA)


def test_shuffled_actions_stay_at_chance(tmp_path: Path) -> None:
    trained = train_classifier(dataset(tmp_path, shown=False), ACTIONS, seed=0, config=SMALL)
    assert abs(trained.real.overall - 1 / ACTIONS) < 0.1


def test_accuracies_by_hand() -> None:
    """A classifier that answers with the second frame's brightness."""

    def brightness(pairs_N2HWC: Tensor) -> Tensor:
        return F.one_hot(pairs_N2HWC[:, 1, 0, 0, 0].long(), 3).float()

    answers = torch.tensor([[0, 1, 1], [2, 1, 0]])
    frames_BTHWC = F.pad(answers, (1, 0))[..., None, None, None].expand(-1, -1, 8, 8, 3).byte()
    accuracy = action_accuracy(brightness, frames_BTHWC, torch.tensor([[0, 1, 0], [0, 1, 0]]))
    assert accuracy.confusion_AA.tolist() == [[2, 1, 1], [0, 2, 0], [0, 0, 0]]
    assert accuracy.per_frame == [0.5, 1.0, 0.5]
    assert accuracy.overall == pytest.approx(4 / 6)
    assert accuracy.per_action == [0.5, 1.0, None]
    assert accuracy.chance == pytest.approx(4 / 6)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="updates is 0: must be at least 1"):
        InverseDynamicsConfig(updates=0)
