"""The rewards, each against numbers computed another way; those that learn, on play that was seen and that was not."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genie_ray.base.settings import build
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge
from genie_ray.rewards.learned import DisagreementJudge
from genie_ray.rewards.novelty import Novelty
from genie_ray.rewards.state import build_judge, save_state
from genie_ray.rewards.windows import Windows, join, unfold
from policies.baselines.config import CuriosityConfig, DisagreementConfig
from tests.genie_ray.rewards.small_world import SCALE, TOP_K, fragment, noise_windows, rewards_by_hand, world_model
from world_model.checkpoint import save, weights_hash
from world_model.genie import GenieReduxG

BASE = RewardConfig(
    precision="fp32",
    top_k_fraction=TOP_K,
    scale=SCALE,
    curiosity=CuriosityConfig(features=32, hidden=32, residual_blocks=1, learning_rate=1e-3),
    disagreement=DisagreementConfig(hidden=32, learning_rate=3e-3),
)


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for number, model in enumerate(models):
        save(model, root / str(number), provenance={})
    return [root / str(number) for number in range(len(models))]


def judge(checkpoint: Path, state: Path | None = None, **changes: Any) -> Judge:
    config = dataclasses.replace(BASE, **changes)
    version = weights_hash(world_model(int(checkpoint.name)))
    return build_judge(config, checkpoint, version, state, torch.device("cpu"))


def test_entropy_is_the_definitions(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    frames, actions = fragment(9)
    judged = judge(checkpoints[0]).judge(unfold(frames, actions))
    np.testing.assert_allclose(judged.rewards_M, rewards_by_hand(models[0], frames, actions)[3:], atol=1e-5)
    assert judged.maps_Mhw is not None
    highest_MN = np.sort(judged.maps_Mhw.reshape(6, -1), axis=1)[:, 2:]  # half of four tokens
    np.testing.assert_allclose(judged.rewards_M, SCALE * highest_MN.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(judged.statistics["entropy_top"] * SCALE, judged.rewards_M, atol=1e-6)


def test_rewards_tell_actions_apart(models: list[GenieReduxG]) -> None:
    """Otherwise the alignment tests could not fail."""
    frames, actions = fragment(30)
    rewards, shifted = (rewards_by_hand(models[0], frames, taken)[3:] for taken in (actions, np.roll(actions, 1)))
    assert (np.abs(rewards - shifted) > 1e-3).mean() > 0.5


def test_learning_progress_is_what_a_swap_took_off(checkpoints: list[Path], tmp_path: Path) -> None:
    """… also when a replica restarts between the swaps."""
    windows = noise_windows(5)
    entropies = [judge(path).judge(windows).rewards_M for path in checkpoints]
    first = judge(checkpoints[0], tmp_path, kind="learning_progress")
    np.testing.assert_array_equal(first.judge(windows).rewards_M, 0)
    save_state(first, tmp_path)
    second = judge(checkpoints[1], tmp_path, kind="learning_progress")
    np.testing.assert_allclose(second.judge(windows).rewards_M, entropies[0] - entropies[1], atol=1e-5)
    save_state(second, tmp_path)
    restarted = judge(checkpoints[1], tmp_path, kind="learning_progress")
    np.testing.assert_array_equal(restarted.judge(windows).rewards_M, second.judge(windows).rewards_M)
    assert restarted.version == second.version != first.version
    third = judge(checkpoints[2], tmp_path, kind="learning_progress")
    np.testing.assert_allclose(third.judge(windows).rewards_M, entropies[1] - entropies[2], atol=1e-5)


def test_learning_progress_of_weights_that_come_back_is_the_same(checkpoints: list[Path], tmp_path: Path) -> None:
    windows = noise_windows(5)

    def serve(*numbers: int) -> list[np.ndarray]:
        rewards = []
        for number in numbers:
            served = judge(checkpoints[number], tmp_path, kind="learning_progress")
            save_state(served, tmp_path)
            rewards.append(served.judge(windows).rewards_M)
        return rewards

    first, second, third = serve(0, 1, 2)
    assert not first.any()
    # A run that is resumed starts with the world model it began with, then swaps to where it was.
    for given, expected in zip(serve(0, 2, 1, 0), (first, third, second, first), strict=True):
        np.testing.assert_array_equal(given, expected)


def similar(seed: int, count: int = 24) -> Windows:
    """Windows of similar play: the same five frames and actions, with a little noise."""
    rng = np.random.default_rng(seed)
    frames, actions = fragment(4, seed)
    parts = []
    for _ in range(count):
        noisy = np.clip(frames.astype(int) + rng.integers(-3, 4, frames.shape), 0, 255).astype(np.uint8)
        parts.append(unfold(noisy, actions))
    return join(parts)


@pytest.mark.parametrize("kind", ["rf", "vae", "disagreement"])
def test_learned_rewards_fall_where_play_has_been(checkpoints: list[Path], tmp_path: Path, kind: Any) -> None:
    learner, seen, unseen = judge(checkpoints[0], kind=kind), similar(1), similar(2)
    before = learner.judge(seen).rewards_M.mean()
    for _ in range(150):
        learner.judge(seen)
        learner.learn()
    after_seen, after_unseen = (learner.judge(windows).rewards_M for windows in (seen, unseen))
    assert after_seen.mean() < before / 3
    assert after_unseen.mean() > 3 * after_seen.mean()
    save_state(learner, tmp_path)
    restarted = judge(checkpoints[0], tmp_path, kind=kind)
    np.testing.assert_array_equal(restarted.judge(seen).rewards_M, after_seen)
    assert (learner.version[-6:], restarted.version[-6:]) == ("+0.150", "+1.150")


def test_codes_of_a_grid_keep_their_lengths(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    learner = judge(checkpoints[0], kind="disagreement")
    assert isinstance(learner, DisagreementJudge)
    torch.testing.assert_close(learner._targets_KC, models[0].tokenizer.code_vectors())  # of "fsq"


def test_novelty_by_hand() -> None:
    novelty = Novelty(tolerance=0.25)
    tokens_MN = np.array([[1, 2, 3, 4], [1, 2, 3, 9], [1, 2, 8, 9], [1, 2, 3, 4]])
    # The second differs from the first in a quarter of its tokens: the same place. The third, in half: a new one.
    np.testing.assert_allclose(novelty.factors(tokens_MN, ["a"] * 4), [1, 2**-0.5, 1, 3**-0.5])
    np.testing.assert_allclose(novelty.factors(tokens_MN[:1], ["b"]), [1])
    np.testing.assert_allclose(novelty.factors(tokens_MN[:1], ["a"]), [4**-0.5])
    lifelong = Novelty(tolerance=0.25, lifelong=True)
    np.testing.assert_allclose(lifelong.factors(tokens_MN, ["a", "b", "c", "d"]), [1, 2**-0.5, 1, 3**-0.5])


def test_novelty_forgets_the_places_found_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie_ray.rewards.novelty.MAX_PLACES", 100)
    novelty = Novelty(tolerance=0.0, lifelong=True)
    tokens_MN = np.stack([np.arange(105), np.zeros(105)], axis=1)
    assert (novelty.factors(tokens_MN, ["a"] * 105) == 1).all()
    # There was no room for the 101st: the first ten were forgotten.
    restarted = Novelty(tolerance=0.0, lifelong=True)
    restarted.set_state(novelty.get_state())
    np.testing.assert_allclose(restarted.factors(tokens_MN[10:20], ["b"] * 10), 2**-0.5)
    assert (restarted.factors(tokens_MN[:1], ["b"]) == 1).all()
    assert (restarted.visits, restarted.incarnation) == (116, 1)


def test_novelty_multiplies_and_survives_a_restart(checkpoints: list[Path], tmp_path: Path) -> None:
    windows = noise_windows(6, episode="a")
    plain = judge(checkpoints[0]).judge(windows)
    with_novelty = judge(checkpoints[0], novelty="episodic", novelty_tolerance=0.0)
    first = with_novelty.judge(windows)
    np.testing.assert_allclose(first.rewards_M, plain.rewards_M * first.statistics["novelty"])
    save_state(with_novelty, tmp_path)
    restarted = judge(checkpoints[0], tmp_path, novelty="episodic", novelty_tolerance=0.0)
    second = restarted.judge(windows)
    # Each place was seen before: its count is at least 2, and 1 more than the first time where it was seen once.
    assert (second.statistics["novelty"] < first.statistics["novelty"]).all()
    other = restarted.judge(dataclasses.replace(windows, episodes=["b"] * 6))
    np.testing.assert_array_equal(other.statistics["novelty"], first.statistics["novelty"])


def test_lifelong_novelty_is_of_all_episodes_and_survives_a_restart(checkpoints: list[Path], tmp_path: Path) -> None:
    windows = noise_windows(6, episode="a")
    lifelong = judge(checkpoints[0], novelty="lifelong", novelty_tolerance=0.0)
    first = lifelong.judge(windows)
    save_state(lifelong, tmp_path)
    assert lifelong.version.endswith("+0.6")
    restarted = judge(checkpoints[0], tmp_path, novelty="lifelong", novelty_tolerance=0.0)
    assert restarted.version.endswith("+1.6")  # rewards so far are not comparable with later ones
    other = restarted.judge(dataclasses.replace(windows, episodes=["b"] * 6))
    assert (other.statistics["novelty"] < first.statistics["novelty"]).all()


def test_a_checkpoint_that_changed_is_refused(checkpoints: list[Path]) -> None:
    with pytest.raises(ValueError, match="was replaced while it was served"):
        build_judge(BASE, checkpoints[0], "0" * 64, None, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k_fraction": 0.0}, "top_k_fraction is 0.0"),
        ({"top_k_fraction": 1.5}, "top_k_fraction is 1.5"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"gpus": -1.0}, "gpus is -1.0"),
        ({"replicas": 2, "max_replicas": 1}, r"max_replicas is 1; allowed: replicas \(2\) or more"),
        ({"kind": "vae", "replicas": 2}, "allowed with kind 'vae'"),
        ({"novelty": "episodic", "max_replicas": 2}, "allowed with novelty 'episodic'"),
    ],
)
def test_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardConfig(**settings)


def test_config_survives_its_way_to_the_replicas() -> None:
    config = dataclasses.replace(BASE, kind="vae", max_replicas=None, gpus=0.5)
    assert build(RewardConfig, dataclasses.asdict(config)) == config
