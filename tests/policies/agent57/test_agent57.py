"""Agent57 through RLlib: acting and learning agree, rewards belong to their steps, nothing is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from policies.agent57 import novelty
from policies.agent57.algorithm import Agent57, check_room
from policies.agent57.config import Agent57Settings
from policies.agent57.learner import td_errors
from policies.agent57.module import LAST_ACTION, LAST_INTRINSIC, LAST_REWARD, MEMORY, Agent57Module
from policies.agent57.replay import BURNED, INTRINSIC_REWARDS
from policies.agent57.values import greedy_mixture
from tests.policies.agent57.small_agent import Corridor, config, settings, weights

pytestmark = pytest.mark.usefixtures("ray_session")


def tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key: torch.from_numpy(np.asarray(value)) for key, value in batch.items()}


def module_of(algorithm: Agent57) -> Agent57Module:
    return algorithm.learner_group._learner.module[DEFAULT_MODULE_ID].unwrapped()


@pytest.fixture(scope="module")
def whole_episodes() -> Iterator[Agent57]:
    """Play without learning, whose sequences are whole episodes of 25 steps, from three fragments each."""
    made = settings(learning={"sequence_length": 30, "burn_in": 0, "period": 30, "learning_starts": 4000})
    algorithm = config(made, length=25, game_reward=2.5, terminates=True).build_algo()
    for _ in range(3):
        algorithm.train()
    yield algorithm
    algorithm.stop()


@pytest.mark.parametrize("arms_as", ["heads", "input"])
def test_learning_sees_what_acting_saw(arms_as: str) -> None:
    """The recorded probabilities follow from the replayed inputs, with ε-random actions and across fragments."""
    shares = {"own_share": 0.5 if arms_as == "heads" else 1.0}
    made = settings(
        network={"arms_as": arms_as, "shared_torso": arms_as == "heads"},
        learning={"sequence_length": 30, "burn_in": 0, "period": 30, "learning_starts": 4000, **shares},
    )
    algorithm = config(made, length=25, game_reward=2.5, terminates=True).build_algo()
    algorithm.train()
    module, batch = module_of(algorithm), tensors(algorithm.replay.sample())
    algorithm.stop()
    values = module.online_and_target(batch)["online"]
    arms_BT = batch["arm"][:, :-1]
    q_BTA = module.of_arm({name: value[:, :-1] for name, value in values.items()}, arms_BT)
    mask_BT = batch[Columns.LOSS_MASK]
    greedy_BT = q_BTA.argmax(-1) == batch[Columns.ACTIONS]
    logp_BT = batch[Columns.ACTION_LOGP]
    assert len(arms_BT[:, 0].unique()) > 1
    # Of each row, greedy actions all have one probability, and others another, 1 − ε + ε/4 and ε/4.
    for row in range(len(mask_BT)):
        best = logp_BT[row][mask_BT[row] & greedy_BT[row]].exp()
        rest = logp_BT[row][mask_BT[row] & ~greedy_BT[row]].exp()
        assert best.numel()
        assert torch.allclose(best, best[0].expand_as(best), atol=1e-5)
        assert torch.allclose(rest, ((1 - best[0]) / 3).expand_as(rest), atol=1e-5)


def test_the_stored_state_is_that_of_acting(whole_episodes: Agent57) -> None:
    module, batch = module_of(whole_episodes), tensors(whole_episodes.replay.sample())
    first = {column: batch[column][:, :10] for column in (Columns.OBS, LAST_ACTION, LAST_REWARD, LAST_INTRINSIC, "arm")}
    after = module.online(first, module.unpack(batch[MEMORY])).state
    stored = np.stack([episode.columns["memory"][10] for episode in whole_episodes.replay._episodes.values()])
    distances = torch.cdist(module.pack(after), torch.from_numpy(stored.astype(np.float32)), p=torch.inf)
    assert (distances.min(1).values < 2e-3).all()  # float16
    assert distances.max() > 1e-2


@pytest.mark.parametrize("arms_as", ["heads", "input"])
def test_first_priorities_are_those_of_the_learner_without_traces(arms_as: str) -> None:
    """As long as both networks are one. What follows a fragment's last step is not known when it is sent."""
    made = settings(
        network={"arms_as": arms_as},
        novelty={"scaled": False},
        learning={
            "sequence_length": 30,
            "burn_in": 0,
            "period": 30,
            "learning_starts": 4000,
            "trace_decay": 0.0,
            "own_share": 0.5 if arms_as == "heads" else 1.0,
        },
    )
    algorithm = config(made, length=25, game_reward=2.5, terminates=True).build_algo()
    algorithm.train()
    module, replay = module_of(algorithm), algorithm.replay
    algorithm.stop()
    for number, (name, _) in replay._entries.items():
        batch = tensors({key: np.stack([value]) for key, value in replay._row(number).items()})
        arm = int(batch["arm"][0, 0])
        by_stream = errors(module, made, batch)[:, 0, :25, arm if arms_as == "heads" else 0]
        expected = (by_stream[0] + module.betas_N[arm] * by_stream[1]).detach().numpy()
        known = np.arange(25) % 10 != 9
        found = replay._episodes[name].columns["errors"]
        np.testing.assert_allclose(found[known], expected[known], atol=2e-3)
        assert np.isnan(found[~known]).all()
        sizes = np.abs(found[known])
        assert replay._priorities[number] == pytest.approx(0.9 * sizes.max() + 0.1 * sizes.mean(), abs=1e-4)
    assert len(replay) > 2


def test_an_intrinsic_reward_is_that_of_the_frame_it_led_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty.EpisodicMemory, "reward", lambda *_: 1.0)
    monkeypatch.setattr(novelty.NoveltyNets, "lifelong", lambda _, frames: frames[:, 0, 0, 1].float())
    algorithm = config(length=25, terminates=True).build_algo()
    algorithm.train()
    algorithm.stop()
    ended = 0
    for episode in algorithm.replay._episodes.values():
        expected = np.arange(1, episode.steps + 1)  # the frame shows its step; that of the end has a reward, too
        np.testing.assert_array_equal(episode.columns["rewards"][: episode.steps], expected)
        np.testing.assert_array_equal(episode.columns["frames"][: episode.steps + 1, 0, 0, 1], np.r_[0, expected])
        ended += episode.done
    assert ended


def test_the_bandit_learns_from_the_games_own_returns(whole_episodes: Agent57) -> None:
    returns = [value for _, value in whole_episodes.bandits[0].played]
    assert len(returns) >= 8
    assert returns == [25 * 2.5] * len(returns)  # whole episodes, undiscounted, without any novelty
    assert sum(whole_episodes.bandits[0].counts()) == len(returns)
    for episode in whole_episodes.replay._episodes.values():
        assert (episode.columns["rewards"][: episode.steps] != 2.5).all()


def errors(module: Agent57Module, made: Agent57Settings, batch: dict[str, Any]) -> torch.Tensor:
    found = td_errors(module, made, batch, module.online_and_target(batch))
    mask = batch[Columns.LOSS_MASK].unsqueeze(-1)
    return torch.stack([torch.where(mask, value, 0.0) for value in found.values()])


@pytest.fixture(scope="module")
def trained() -> Iterator[Agent57]:
    algorithm = config(length=13, game_reward=1.0, terminates=True).build_algo()
    for _ in range(3):
        algorithm.train()
    yield algorithm
    algorithm.stop()


def test_padding_has_no_effect(trained: Agent57) -> None:
    made, module = trained.config.settings, module_of(trained)
    batch = tensors(trained.replay.sample())
    before = errors(module, made, batch)
    burn_in, mask = made.learning.burn_in, batch[Columns.LOSS_MASK]
    assert (~mask).any()
    assert (~batch[BURNED]).any()
    for column in (Columns.REWARDS, Columns.ACTION_LOGP, INTRINSIC_REWARDS):
        batch[column][~mask] = float("nan")
    batch[Columns.TERMINATEDS][~mask] = True
    ends = mask.sum(1)
    for row in range(len(mask)):
        batch[Columns.OBS][row, burn_in + int(ends[row]) + 1 :] = 77
        batch[LAST_REWARD][row, burn_in + int(ends[row]) + 1 :] = 1e6
        if not batch[BURNED][row]:
            batch[Columns.OBS][row, :burn_in] = 77
            batch[LAST_REWARD][row, :burn_in] = 1e6
    assert torch.equal(errors(module, made, batch), before)


def test_burn_in_has_no_gradient(trained: Agent57) -> None:
    module, batch = module_of(trained), tensors(trained.replay.sample())
    batch[LAST_REWARD] = batch[LAST_REWARD].float().requires_grad_()
    sum(value.sum() for value in module.online_and_target(batch)["online"].values()).backward()  # type: ignore[union-attr]
    gradient = batch[LAST_REWARD].grad
    assert gradient[:, :2].abs().max() == 0
    assert gradient[:, 2:].abs().min(dim=0).values.max() > 0


def test_an_end_does_not_bootstrap_but_a_truncation_does(trained: Agent57) -> None:
    made, module = trained.config.settings, module_of(trained)
    batch = tensors(trained.replay.sample())
    last = batch[Columns.TERMINATEDS]
    assert last.any()
    ended = errors(module, made, batch)
    batch[Columns.TERMINATEDS] = torch.zeros_like(last)
    assert (errors(module, made, batch)[0][last] != ended[0][last]).all()
    # With a target network of zeros, what remains at an end is the reward.
    for parameter in module.target.parameters():
        parameter.data.zero_()
    batch[Columns.TERMINATEDS] = last
    values = module.online_and_target(batch)["online"]["extrinsic"]
    action = batch[Columns.ACTIONS][last][:, None, None].expand(-1, values.shape[2], 1)
    taken = values[:, :-1][last].gather(-1, action).squeeze(-1)
    reward = torch.tensor(np.sqrt(2) - 1 + 1e-3, dtype=torch.float32)  # h(1)
    assert torch.allclose(errors(module, made, batch)[0][last], reward - taken, atol=1e-5)


def test_priorities_come_back(trained: Agent57) -> None:
    found = set(trained.replay._priorities.values())
    assert len(found) > 5
    assert trained.updates == int((trained.env_steps - 80) / 20) + 1


def test_a_restored_learner_makes_the_same_updates(tmp_path: Path) -> None:
    first = config(length=13, game_reward=1.0).build_algo()
    first.train()
    first.save_to_path(tmp_path / "state")
    second = config(length=13, game_reward=1.0).build_algo()
    second.restore_from_path(tmp_path / "state")
    assert second.env_steps == first.env_steps
    assert second.bandits[0].get_state() == first.bandits[0].get_state()
    for algorithm in (first, second):
        for _ in range(3):
            algorithm._update()
        algorithm.stop()
    after = weights(first)
    for name, value in weights(second).items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_the_target_network_follows_by_updates() -> None:
    algorithm = config(settings(learning={"target_every": 3}), length=13, game_reward=1.0).build_algo()
    algorithm._receive([algorithm._source.fetch(0)[0] for _ in range(3)])
    follows = []
    for _ in range(6):
        algorithm._update()
        module = module_of(algorithm)
        pairs = zip(module.target.parameters(), module.online.parameters(), strict=True)
        follows.append(all(torch.equal(*pair) for pair in pairs))
    algorithm.stop()
    assert follows == [False, False, True, False, False, True]


@pytest.mark.slow
def test_a_killed_runner_costs_its_fragment_only() -> None:
    algorithm = config(settings(runners=2), length=13, game_reward=1.0).build_algo()
    algorithm.train()
    before, counted = algorithm.bandits[0].get_state()["played"], algorithm.env_steps
    pids = algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    os.kill(pids[0], signal.SIGKILL)
    restarts = 0
    while not restarts:
        restarts = algorithm.train()["agent57"]["runner_restarts"]
    algorithm.stop()
    assert algorithm.env_steps > counted
    assert algorithm.bandits[0].get_state()["played"][: len(before)] == before or algorithm.env_steps > 400
    assert {value for _, value in algorithm.bandits[0].played} == {13.0}  # no torn episode is counted


def ends_reached(*, arms: int, iterations: int) -> float:
    """How often an agent reaches the corridor's end in training, of a thousand steps an iteration."""
    made = settings(
        arms=arms,
        play={"epsilon": 0.1, "alpha": 0.0, "fragment_length": 15},
        learning={
            "batch_size": 16,
            "steps_per_update": 16,
            "learning_starts": 240,
            "replay_capacity": 20_000,
            "learning_rate": 2e-3,
        },
    )
    algorithm = config(made, iteration=1_000, make=Corridor).build_algo()
    reached = 0.0
    for _ in range(iterations):
        algorithm.train()
        reached += sum(episode.value for each in algorithm.arrived for episode in each.finished)
    algorithm.stop()
    return reached


@pytest.mark.slow
def test_novelty_finds_the_end_of_a_corridor_that_greed_hardly_sees() -> None:
    """Seeds 0 to 3: greed never; four arms 141, 18, 68, 169 times."""
    assert ends_reached(arms=1, iterations=5) <= 2
    assert ends_reached(arms=4, iterations=10) > 8


def test_a_replay_that_does_not_fit_is_refused_before_anything_starts() -> None:
    made = settings(learning={"replay_capacity": 10**9})
    with pytest.raises(ValueError, match=r"replay_capacity is 1,000,000,000 steps, which take [\d.]+ GiB; allowed"):
        check_room(made, (64, 64, 3))
    check_room(settings(), (64, 64, 3))


def test_greedy_mixture_is_what_acts() -> None:
    probs = greedy_mixture(torch.tensor([[0.0, 1.0]]), torch.tensor([0.1]))
    assert probs.tolist() == [[pytest.approx(0.05), pytest.approx(0.95)]]
