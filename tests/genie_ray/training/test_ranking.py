"""Ranked replay: weights by hand, errors against a slow reader, and the same order after a resume."""

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import mix_of
from genie_ray.replay.loading.windows import WindowLoader
from genie_ray.training.config import RankingConfig
from genie_ray.training.ranking import Ranking, episode_weights, ranks
from world_model import checkpoint
from world_model.control import action_likelihoods
from world_model.genie import GenieReduxG

NAN = float("nan")
LENGTH = 4


def model_of(path: Path) -> GenieReduxG:
    return checkpoint.load_as(GenieReduxG, path).eval()


def updated(ranking: Ranking, model: GenieReduxG, iteration: int) -> list[float]:
    return ranking.update(
        model,
        iteration,
        device=torch.device("cpu"),
        autocast=contextlib.nullcontext(),
        rank=0,
        world_size=1,
    )


def ranking_of(replay: ReplayDataset, loader: WindowLoader, **settings: float) -> Ranking:
    config = RankingConfig(every=5, **settings)
    return Ranking(config, mix_of(replay), window=LENGTH, episodes=loader.episodes, seed=0)


@pytest.fixture
def loader(replay: ReplayDataset) -> WindowLoader:
    return WindowLoader(replay, split="train", length=LENGTH, stride=1, batch_size=4, seed=0)


def test_equal_values_share_their_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 1.0, 9.0])).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1.0])


def test_weights_follow_the_error_then_error_and_progress() -> None:
    config = RankingConfig(every=1, groups=4, strength=0.6)
    errors_E = np.array([4.0, 1.0, NAN, 3.0, 2.0])
    unknown_E = np.full(5, NAN)
    by_error = [1.6, 0.4, 1.0, 1.2, 0.8]
    assert episode_weights(errors_E, unknown_E, config).tolist() == pytest.approx(by_error)
    # The worst stays as bad as it was (noise); the second worst still falls.
    progress_E = np.array([0.0, 0.1, NAN, 0.9, 0.3])
    assert episode_weights(errors_E, progress_E, config).tolist() == pytest.approx([0.8, 0.4, 1.0, 1.6, 1.2])
    assert episode_weights(errors_E[:3], unknown_E[:3], config).tolist() == [1, 1, 1]  # fewer than groups


def test_errors_are_those_of_every_frame_after_its_true_past(
    replay: ReplayDataset, loader: WindowLoader, world_model: Path
) -> None:
    model = model_of(world_model)
    ranking = ranking_of(replay, loader, windows=2)
    updated(ranking, model, 0)
    found = ranking.state_dict()["errors"]
    assert len(found) == loader.episodes == len(replay.split("train"))
    for error, ref in zip(found, replay.split("train"), strict=True):
        frames, actions = replay.read_frames_and_actions(ref)
        last, nll, changed = len(frames) - LENGTH, 0.0, 0
        for first in {round(last / 4), round(3 * last / 4)}:
            for end in range(2, LENGTH + 1):
                clip = torch.from_numpy(frames[first : first + end].copy())[None]
                taken = torch.from_numpy(actions[first : first + end - 1].astype(np.int64))[None]
                likelihoods = action_likelihoods(model, clip, taken)
                nll += float(likelihoods.nll_BA[0, taken[0, -1]])
                changed += int(likelihoods.changed_B)
        assert error == pytest.approx(nll / changed, rel=1e-4)


def test_a_resumed_ranking_gives_the_same_batches(
    replay: ReplayDataset, loader: WindowLoader, world_model: Path
) -> None:
    model, ranking = model_of(world_model), ranking_of(replay, loader, groups=2)
    loader.weigh(updated(ranking, model, 0))
    before = [next(loader) for _ in range(3)]
    with torch.no_grad():
        for parameter in model.dynamics.parameters():
            parameter.mul_(0.9)
    kept, state = loader.state_dict(), ranking.state_dict()
    loader.weigh(updated(ranking, model, 5))
    after = [batch["frames_BTHWC"] for batch in itertools.islice(loader, 5)]
    loader.close()

    other = WindowLoader(replay, split="train", length=LENGTH, stride=1, batch_size=4, seed=0)
    other.load_state_dict(kept)
    resumed = ranking_of(replay, other, groups=2)
    resumed.load_state_dict(state)
    assert not np.isnan(ranking.state_dict()["progress"]).any()
    assert ranking.due(5)
    assert not ranking.due(6)
    other.weigh(updated(resumed, model, 5))
    for ours, theirs in zip(itertools.islice(other, 5), after, strict=True):
        assert torch.equal(ours["frames_BTHWC"], theirs)
    other.load_state_dict({"epoch": 1, "examples": 0, "weights": kept["weights"]})
    for ours, theirs in zip(itertools.islice(other, 3), before, strict=True):
        assert torch.equal(ours["frames_BTHWC"], theirs["frames_BTHWC"])
    other.close()
