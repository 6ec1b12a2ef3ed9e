"""How much predictions depend on actions: by hand, against one-step logits, and after a short training."""

import pytest
import torch
from tiny_models import ACTIONS, guided_model, random_clip, shown_actions, train

from world_model.control import ActionLikelihoods, action_likelihoods


def test_control_by_hand() -> None:
    nll_BA = torch.tensor([[1.0, 4.0, 3.0], [6.0, 2.0, 4.0], [9.0, 9.0, 9.0]])
    found = ActionLikelihoods(nll_BA, changed_B=torch.tensor([2, 3, 0])).control(torch.tensor([0, 2, 1]))
    # True actions: 1 and 4 nats; others' means: 3.5 and 4; five tokens changed; the third clip has none.
    assert {key: float(value) for key, value in found.items()} == pytest.approx(
        {"nll_changed": 5 / 5, "nll_gap": 2.5 / 5, "action_accuracy": 0.5, "action_rank": 1.5}
    )
    still = ActionLikelihoods(nll_BA, changed_B=torch.zeros(3, dtype=torch.int64))
    assert still.control(torch.tensor([0, 2, 1])) == {}


@pytest.mark.parametrize("alignment", ["aligned", "shifted"])
def test_likelihoods_are_those_of_the_one_step_logits(alignment: str) -> None:
    model = guided_model(alignment=alignment)
    frames_BTHWC, actions_BT = random_clip()
    found = action_likelihoods(model, frames_BTHWC, actions_BT)
    tokens_BTHW = model.tokenizer.encode(frames_BTHWC)
    changed_BN = (tokens_BTHW[:, -1] != tokens_BTHW[:, -2]).flatten(1)
    for action in range(ACTIONS):
        actions_BT[:, -1] = action
        logits_BNK = model.one_step_logits(frames_BTHWC[:, :-1], actions_BT)[:, 0]
        log_probs_BN = logits_BNK.log_softmax(dim=-1).gather(-1, tokens_BTHW[:, -1].flatten(1)[..., None])[..., 0]
        torch.testing.assert_close(found.nll_BA[:, action], -(log_probs_BN * changed_BN).sum(dim=1))
    assert torch.equal(found.changed_B, changed_BN.sum(dim=1))


def test_training_with_a_complete_past_teaches_what_actions_do() -> None:
    """Each frame is a picture of the action. Masks over all frames alike give it away; asking for it does not."""
    gaps = {}
    for masking in ("clip", "paired"):
        model = guided_model(
            "fsq",
            alignment="aligned",
            masking=masking,
            conditioning="embedding",
            actions_at="every_block",
            tdce_weight=0.0,
        ).train()
        train(model.dynamics, lambda model=model: model(*shown_actions()).loss, steps=100)
        frames_BTHWC, actions_BT = shown_actions(batch=64)
        control = action_likelihoods(model.eval(), frames_BTHWC, actions_BT).control(actions_BT[:, -1])
        gaps[masking] = control["nll_gap"]
    assert control["action_accuracy"] > 0.95
    assert gaps["paired"] > 1
    assert gaps["paired"] > 1.5 * gaps["clip"]
