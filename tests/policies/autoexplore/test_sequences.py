"""What the learner gets from the replay buffer; it is the same after a restart."""

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from policies.autoexplore.algorithm import AutoExplore
from policies.autoexplore.judging import SCALE
from policies.replay import LEARNED
from tests.policies.autoexplore.small_run import LEARNING, config, weights
from tests.policies.toys import Judges

pytestmark = pytest.mark.usefixtures("ray_session")
ROWS, ROW_LENGTH = LEARNING.sequences_per_update, LEARNING.burn_in + LEARNING.sequence_length + 1


@pytest.fixture(scope="module")
def trained() -> Iterator[AutoExplore]:
    """Two epochs of play with terminating episodes of 30 steps, which are longer than a fragment."""
    algorithm = config(updates=2, terminates=True).build_algo()
    for _ in range(2):
        algorithm.train()
    yield algorithm
    algorithm.stop()


def batch_of(algorithm: AutoExplore, sequences: list) -> dict:
    learner = algorithm.learner_group._learner
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=sequences, shared_data={})
    return batch[DEFAULT_MODULE_ID]


def test_columns_fit_each_other(trained: AutoExplore) -> None:
    """Padding is masked, burn-in is marked, and the LSTM state is the stored one."""
    sequences = trained.sample_sequences()
    expected = []
    for sequence in sequences:
        state = np.zeros(16)
        if sequence.t_started:
            state = sequence.get_extra_model_outputs(Columns.STATE_OUT, -1, neg_index_as_lookback=True)["h"]
        expected.append((len(sequence), sequence.is_terminated, sequence.t_started, state))
    rewards = [s.get_rewards().copy() for s in sequences]
    batch = batch_of(trained, sequences)
    assert batch[Columns.OBS].shape == (ROWS, ROW_LENGTH, 16, 16, 3)
    assert batch[Columns.OBS].dtype == torch.uint8
    assert any(length < ROW_LENGTH - 1 for length, *_ in expected)
    for b, (length, terminated, started, state) in enumerate(expected):
        assert batch[Columns.LOSS_MASK][b].tolist() == [True] * length + [False] * (ROW_LENGTH - length)
        assert batch[Columns.TERMINATEDS][b, length - 1].item() == terminated
        assert batch[Columns.TERMINATEDS][b].sum() == terminated
        shown = batch[Columns.OBS][b, 1 : length + 1, 0, 0, 0]
        torch.testing.assert_close(shown.long(), 50 * (batch[Columns.ACTIONS][b, :length].long() + 1))
        assert batch[Columns.OBS][b, 0, 0, 0, 1].item() == started
        torch.testing.assert_close(batch[Columns.REWARDS][b, :length].numpy(), rewards[b])
        assert (batch[Columns.ACTION_LOGP][b, :length] < 0).all()
        np.testing.assert_array_equal(batch[Columns.STATE_IN]["h"][b], state)
        # Burn-in is 2 steps, but fewer right after an episode's start, where the state is known.
        learned = batch[LEARNED][b, :length].tolist()
        burnt = learned.index(True)
        assert all(learned[burnt:])
        assert burnt == LEARNING.burn_in or (started == 0 and burnt < LEARNING.burn_in)


def test_every_step_is_learned_from_equally_often(trained: AutoExplore) -> None:
    """Including an episode's first and last steps."""
    learned = np.zeros(30)
    for _ in range(400):
        for sequence in trained.replay.sample_sequences(16, length=10, burn_in=2):
            marks = sequence.get_extra_model_outputs(LEARNED)
            learned[sequence.t_started : sequence.t_started + len(marks)] += marks
    stored = sum(np.arange(30) < len(episode) for episode in trained.replay.episodes)
    np.testing.assert_allclose(learned / learned.sum() / (stored / stored.sum()), 1.0, atol=0.05)


def test_a_share_of_the_sequences_begins_in_the_newest_play(trained: AutoExplore) -> None:
    newest = set(trained.replay._indices[-60:])
    drawn = trained.replay.sample_sequences(200, length=10, burn_in=2, newest_steps=60, newest_share=0.75)
    numbers = {episode.id_: number for number, episode in enumerate(trained.replay.episodes)}
    begins = [
        (numbers[sequence.id_], sequence.t_started + int(np.argmax(sequence.get_extra_model_outputs(LEARNED))))
        for sequence in drawn
    ]
    assert all(begin in newest for begin in begins[50:])
    assert not all(begin in newest for begin in begins[:50])


def test_rewards_can_be_learned_from_as_they_are(trained: AutoExplore) -> None:
    learning = dataclasses.replace(trained.config.learning, reward_scaling="none")
    raw = config(updates=2).training(learning=learning)
    assert raw.learning.reward_scaling == "none"
    before, trained.config = trained.config, raw
    try:
        sequences = trained.sample_sequences()
    finally:
        trained.config = before
    for sequence in sequences:
        actions, first = sequence.get_actions(), 3 if sequence.t_started == 0 else 0
        np.testing.assert_array_equal(sequence.get_rewards()[first:], actions[first:] == 2)
        assert not sequence.get_rewards()[:first].any()


def test_undefined_rewards_are_neutral(trained: AutoExplore) -> None:
    starts = [s for _ in range(20) for s in trained.sample_sequences() if s.t_started == 0]
    assert starts
    for sequence in starts:
        assert not sequence.get_rewards()[:3].any()
        assert sequence.get_rewards()[3:].all()
    # The replay buffer keeps the raw rewards.
    assert all(np.isnan(episode.get_rewards()[0]) for episode in trained.replay.episodes)


def loss_and_gradients(algorithm: AutoExplore, batch: dict) -> tuple[torch.Tensor, list[torch.Tensor]]:
    learner = algorithm.learner_group._learner
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    loss = learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID, config=learner.config, batch=batch, fwd_out=module.forward_train(dict(batch))
    )
    return loss.detach(), [gradient.clone() for gradient in torch.autograd.grad(loss, list(module.parameters()))]


@pytest.mark.parametrize("column", ["obs", "actions", "rewards", "action_logp", "terminateds", "learned"])
def test_garbage_in_the_padding_changes_neither_loss_nor_gradients(trained: AutoExplore, column: str) -> None:
    batch = batch_of(trained, trained.sample_sequences())
    loss, gradients = loss_and_gradients(trained, batch)
    padding = ~batch[Columns.LOSS_MASK]
    assert padding[:, -2].any()
    if column == "obs":  # the frame after the last step is not padding: its value bootstraps
        padding = padding & torch.cat([torch.zeros(ROWS, 1, dtype=torch.bool), padding[:, :-1]], dim=1)
    spoilt = batch | {column: batch[column].clone()}
    garbage = {"obs": 77, "actions": 3, "rewards": np.nan, "action_logp": -np.inf, "terminateds": True, "learned": True}
    spoilt[column][padding] = garbage[column]
    assert not torch.equal(spoilt[column], batch[column])
    again, gradients_again = loss_and_gradients(trained, spoilt)
    torch.testing.assert_close(again, loss, atol=0, rtol=0)
    for one, other in zip(gradients, gradients_again, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_burn_in_warms_up_the_state_and_is_not_learned_from(trained: AutoExplore) -> None:
    """Rewards in the burn-in change nothing that is learned later; frames do, through the state."""
    sequences = [s for _ in range(5) for s in trained.sample_sequences() if s.t_started]
    batch = batch_of(trained, sequences[:ROWS])
    loss, _ = loss_and_gradients(trained, batch)
    for column, matters in ((Columns.REWARDS, False), (Columns.OBS, True)):
        changed = batch | {column: batch[column].clone()}
        changed[column][:, : LEARNING.burn_in] = 99
        assert (loss_and_gradients(trained, changed)[0] != loss) == matters


def test_the_policys_change_over_an_epoch_is_logged(trained: AutoExplore) -> None:
    learner = trained.learner_group._learner
    batch = batch_of(trained, trained.sample_sequences())
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    with torch.no_grad():
        logits = module.forward_train(dict(batch))[Columns.ACTION_DIST_INPUTS][:, :-1]
        log_now = torch.log_softmax(logits, -1)
        log_then = torch.log_softmax(logits + torch.tensor([1.0, 0, 0, 0]), -1)
    learner._earlier_weights = {name: weight.clone() for name, weight in module.state_dict().items()}
    learner._earlier_weights["policy.bias"][0] += 1
    mask = batch[Columns.LOSS_MASK][:, :-1]
    learner._log_change(DEFAULT_MODULE_ID, batch, logits, mask)
    expected = (log_now.exp() * (log_now - log_then)).sum(-1)[mask].mean()
    assert learner.metrics.peek((DEFAULT_MODULE_ID, "kl_of_epoch")) == pytest.approx(expected.item(), rel=1e-5)


def test_a_restored_algorithm_makes_the_same_updates_bit_for_bit(trained: AutoExplore, tmp_path: Path) -> None:
    trained.save_to_path(tmp_path)
    restored = config(updates=2, terminates=True).build_algo()
    restored.restore_from_path(tmp_path)
    try:
        assert restored.iteration == trained.iteration == 2
        assert (restored.env_steps, restored.updates) == (trained.env_steps, trained.updates) == (320, 4)
        assert restored.judge.get_state() == trained.judge.get_state()
        optimizer = restored.learner_group._learner.get_optimizer(DEFAULT_MODULE_ID)
        assert {int(state["step"]) for state in optimizer.state.values()} == {4}
        before = weights(trained)
        for algorithm in (trained, restored):
            for _ in range(3):
                algorithm._update()
        for name, value in weights(trained).items():
            np.testing.assert_array_equal(weights(restored)[name], value)
        assert any((before[name] != value).any() for name, value in weights(trained).items())
        assert restored.train()["training_iteration"] == 3
        assert restored.env_steps >= 480
    finally:
        restored.stop()


@pytest.mark.parametrize("old_rewards", ["mark", "ask"])
def test_rewards_of_an_earlier_judge(old_rewards: str) -> None:
    """A second judge's rewards are ten times as large. "mark" gives each judge a scale, "ask" renews all rewards."""
    judges = Judges(second_from=2)
    algorithm_config = config(updates=1, client=lambda: judges, length=200)
    algorithm_config.training(learning=replace(LEARNING, updates_per_epoch=1, old_rewards=old_rewards))
    algorithm = algorithm_config.build_algo()
    algorithm.train()
    algorithm.train()
    algorithm.stop()
    rewards = np.concatenate([episode.get_rewards() for episode in algorithm.replay.episodes])
    known = rewards[~np.isnan(rewards)]
    assert set(known) == ({0.0, 10.0} if old_rewards == "ask" else {0.0, 1.0, 10.0})
    # If a judge rewarded a share p of the steps, 0 and its reward have mean p and spread √(p(1 − p)), times the reward.
    scales = np.concatenate([episode.get_extra_model_outputs(SCALE) for episode in algorithm.replay.episodes])
    shares = [(known[scales[~np.isnan(rewards)] == scale] > 0).mean() for scale in np.unique(scales)]
    normalised = np.concatenate([sequence.get_rewards() for sequence in algorithm.sample_sequences()])
    highest = max(np.sqrt((1 - share) / share) for share in shares)
    # Part of what is judged again was already counted once.
    assert normalised.max() == pytest.approx(highest, rel=0.01 if old_rewards == "mark" else 0.2)
    assert algorithm.judge.scale.judges == 2
