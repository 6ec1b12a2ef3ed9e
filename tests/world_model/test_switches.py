"""Switches that trade time and memory: they change neither outputs nor gradients (beyond rounding)."""

import shutil

import pytest
import torch
from tiny_models import guided_model, random_clip
from torch import Tensor
from torch._dynamo.utils import counters

from world_model.genie import GenieReduxG
from world_model.layers.transformer import transformers

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")


def training_pass(model: GenieReduxG) -> tuple[Tensor, list[Tensor], int]:
    """Loss, gradients, and the bytes kept for the backward pass."""
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    torch.manual_seed(1)
    frames_BTHWC, actions_BT = random_clip()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = model(frames_BTHWC, actions_BT, torch.Generator().manual_seed(0)).loss
    gradients = torch.autograd.grad(loss, list(model.dynamics.parameters()))
    return loss.detach(), list(gradients), kept


@pytest.mark.parametrize("alignment", ["shifted", "aligned"])
def test_checkpointed_activations_change_nothing_but_memory(alignment: str) -> None:
    model = guided_model(alignment=alignment)
    loss, gradients, kept = training_pass(model)
    for stack in transformers(model):
        stack.checkpoint_activations = True
    checkpointed_loss, checkpointed_gradients, checkpointed_kept = training_pass(model)
    assert torch.equal(checkpointed_loss, loss)
    torch.testing.assert_close(checkpointed_gradients, gradients)
    assert checkpointed_kept < 0.5 * kept


@NEEDS_COMPILER
@pytest.mark.slow
def test_a_compiled_model_is_the_same_model() -> None:
    model = guided_model(blocks=1)
    names = list(model.state_dict())
    loss, gradients, _ = training_pass(model)
    for stack in transformers(model.dynamics):
        stack.compile_halves()
    counters.clear()
    compiled_loss, compiled_gradients, _ = training_pass(model)
    assert counters["stats"]["unique_graphs"] == 2  # one of the spatial, one of the temporal half
    assert list(model.state_dict()) == names
    torch.testing.assert_close(compiled_loss, loss)
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_bf16_stays_close() -> None:
    model = guided_model()
    frames_BTHWC, actions_BT = random_clip()
    tokens_BTHW = torch.randint(0, model.dynamics.codes, (2, actions_BT.shape[1] + 1, *model.dynamics.grid))
    vectors_KD = model.tokenizer.token_vectors()
    logits, whole = model.dynamics(tokens_BTHW, actions_BT, vectors_KD), model.tokenizer(frames_BTHWC)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, half = model.dynamics(tokens_BTHW, actions_BT, vectors_KD), model.tokenizer(frames_BTHWC)
    pixels, rounded_pixels = (output.reconstruction_BTHWC for output in (whole, half))
    for exact, coarse in ((logits, rounded), (pixels, rounded_pixels)):
        assert coarse.dtype == torch.float32
        assert (coarse != coarse.bfloat16()).float().mean() > 0.9  # finer than bf16: the last layer is in fp32
        assert not torch.equal(coarse, exact)
    assert (rounded - logits).square().mean().sqrt() < 0.05 * logits.std()
