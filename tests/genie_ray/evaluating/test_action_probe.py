"""Probes of latent actions, against hand-computed cases."""

import pytest
import torch

from genie_ray.evaluating.action_probe import fit_logistic, fit_majority, held_out_accuracy, probe_actions


def test_codes_stand_for_their_most_frequent_action() -> None:
    """Code 0 occurs with action 2 twice and with 1 once, code 1 with action 0; overall, 2 is as frequent as 1."""
    codes_N, actions_N = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 2, 1, 0, 0])
    classify = fit_majority(codes_N, actions_N)
    assert classify(torch.tensor([1, 0])).tolist() == [0, 2]
    assert classify(torch.tensor([5])).tolist() == [0]  # never seen: the most frequent overall, the first of equals


def test_accuracy_is_that_on_the_other_half_by_hand() -> None:
    """Fitted on the first three, code 0 → 1 and code 1 → 0: of the others 1 in 3 is right. Fitted on those, code 0 → 1
    and code 1 → 1: of the first three 2 are right."""
    codes_N = torch.tensor([0, 0, 1, 0, 1, 1])
    actions_N = torch.tensor([1, 1, 0, 1, 1, 1])
    half_N = torch.tensor([False, False, False, True, True, True])
    assert held_out_accuracy(fit_majority, codes_N, actions_N, half_N) == pytest.approx(3 / 6)


def test_probes_tell_what_can_be_told_and_no_more() -> None:
    """Codes that rename the actions with uninformative vectors, and the other way round."""
    generator = torch.Generator().manual_seed(0)
    actions_N = torch.randint(0, 4, (800,), generator=generator)
    episodes = [f"episode {index // 20}" for index in range(800)]
    noise_N, noise_ND = torch.randint(0, 7, (800,), generator=generator), torch.randn(800, 8, generator=generator)
    names, directions = torch.tensor([3, 0, 6, 2]), torch.randn(4, 8, generator=generator)
    told = probe_actions(names[actions_N], noise_ND, actions_N, episodes)
    seen = probe_actions(noise_N, 3 * directions[actions_N] + noise_ND, actions_N, episodes)
    assert told is not None
    assert seen is not None
    assert told.codes == 1.0
    assert seen.vectors > 0.95
    assert told.chance == seen.chance == pytest.approx(float(actions_N.bincount().max()) / 800)
    assert abs(told.vectors - 0.25) < 0.06
    assert abs(seen.codes - 0.25) < 0.06


def test_a_code_for_each_episode_tells_nothing() -> None:
    """What a probe can only memorise is worth nothing on other episodes."""
    codes_N = torch.arange(6).repeat_interleave(10)
    actions_N = codes_N % 3
    probe = probe_actions(codes_N, codes_N[:, None].float(), actions_N, [str(int(code)) for code in codes_N])
    assert probe is not None
    assert probe.codes <= probe.chance + 1e-6


def test_logistic_regression_draws_the_line_in_the_middle() -> None:
    """Two classes that mirror each other: the boundary lies at 1.5, whatever the penalty."""
    inputs_ND = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    classify = fit_logistic(inputs_ND, torch.tensor([0, 0, 1, 1]))
    assert classify(torch.tensor([[-1.0], [1.4], [1.6], [9.0]])).tolist() == [0, 0, 1, 1]


def test_one_episode_has_no_other_half() -> None:
    codes_N = torch.tensor([0, 1])
    assert probe_actions(codes_N, torch.zeros(2, 3), codes_N, ["a", "a"]) is None
