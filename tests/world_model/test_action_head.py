"""The auxiliary loss of inverse dynamics: who learns from what, and that the head tells actions apart."""

import torch
from tiny_models import guided_model, shown_actions, train

from world_model.layers.action_head import ActionHead

GRID, CODES, ACTIONS = (2, 3), 7, 4


def test_the_head_learns_from_true_frames_and_the_predictor_from_the_head() -> None:
    head = ActionHead(GRID, CODES, ACTIONS)
    tokens_BTHW, actions_BT = torch.randint(CODES, (5, 4, *GRID)), torch.randint(ACTIONS, (5, 3))
    mask_BTHW = torch.rand(5, 3, *GRID) < 0.5
    mask_BTHW[1, 2] = mask_BTHW[3, 0] = True  # two frames are hidden completely
    logits_MK = torch.randn(int(mask_BTHW.sum()), CODES, requires_grad=True)
    own, predicted = head.losses(tokens_BTHW, actions_BT, mask_BTHW, logits_MK)
    (of_model,) = torch.autograd.grad(predicted, logits_MK, retain_graph=True)
    hidden_BTHW = mask_BTHW.all(dim=(2, 3))[:, :, None, None].expand_as(mask_BTHW)[mask_BTHW]
    assert hidden_BTHW.sum() == 2 * 6
    assert (of_model[hidden_BTHW] != 0).any(dim=-1).all()
    assert not of_model[~hidden_BTHW].any()
    assert all(grad is None for grad in torch.autograd.grad(predicted, list(head.parameters()), allow_unused=True))
    assert all(grad.any() for grad in torch.autograd.grad(own, list(head.parameters())))


def test_only_predictions_that_were_told_the_action_are_asked_for_it() -> None:
    head = ActionHead(GRID, CODES, ACTIONS)
    tokens_BTHW, actions_BT = torch.randint(CODES, (3, 4, *GRID)), torch.randint(ACTIONS, (3, 3))
    mask_BTHW = torch.ones(3, 3, *GRID, dtype=torch.bool)
    logits_MK = torch.randn(mask_BTHW.numel(), CODES, requires_grad=True)
    told_B = torch.tensor([True, False, True])
    own, predicted = head.losses(tokens_BTHW, actions_BT, mask_BTHW, logits_MK, told_B)
    (of_model,) = torch.autograd.grad(predicted, logits_MK)
    assert of_model.unflatten(0, mask_BTHW.shape).abs().sum(dim=(1, 2, 3, 4)).bool().tolist() == told_B.tolist()
    told_only = head.losses(
        tokens_BTHW[told_B], actions_BT[told_B], mask_BTHW[told_B], logits_MK.view(3, -1, CODES)[told_B].flatten(0, 1)
    )
    torch.testing.assert_close(predicted, told_only[1])
    assert own == head.losses(tokens_BTHW, actions_BT, mask_BTHW, logits_MK)[0]


def test_certain_predictions_of_the_truth_cost_what_true_frames_cost() -> None:
    head = ActionHead(GRID, CODES, ACTIONS)
    tokens_BTHW, actions_BT = torch.randint(CODES, (5, 4, *GRID)), torch.randint(ACTIONS, (5, 3))
    mask_BTHW = torch.ones(5, 3, *GRID, dtype=torch.bool)
    certain_MK = 100.0 * torch.nn.functional.one_hot(tokens_BTHW[:, 1:].flatten(), CODES)
    own, predicted = head.losses(tokens_BTHW, actions_BT, mask_BTHW, certain_MK)
    torch.testing.assert_close(own, predicted)
    own, predicted = head.losses(tokens_BTHW, actions_BT, torch.zeros_like(mask_BTHW), certain_MK[:0])
    assert own > 0
    assert predicted == 0  # nothing was predicted


def test_the_head_learns_what_actions_look_like() -> None:
    """Each frame is a picture of the action, so true frames tell it; and the model's, which learned with them."""
    model = guided_model("fsq", alignment="aligned", inverse_weight=0.3, tdce_weight=0.0).train()
    train(model.dynamics, lambda: model(*shown_actions()).loss, steps=100)
    metrics = model(*shown_actions(batch=64)).metrics
    assert metrics["inverse_true"] < 0.2
    assert metrics["inverse_predicted"] < 0.4
