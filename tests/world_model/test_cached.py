"""Cached decoding against recomputing every frame at each step."""

import pytest
import torch
from tiny_models import FRAMES, dynamics_config, guided_model, random_clip, unguided_config
from torch import Tensor

from world_model.cached import CachedPredictor
from world_model.dynamics import Dynamics
from world_model.genie import GenieRedux
from world_model.maskgit import DecodingConfig, Predict, decode

ALIGNMENTS = ["shifted", "aligned"]
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def uncached(dynamics: Dynamics, vectors_KD: Tensor, actions: Tensor) -> Predict:
    return lambda tokens_BTHW, first: dynamics(
        tokens_BTHW, actions[:, : tokens_BTHW.shape[1] - 1], vectors_KD, first=first
    ).detach()


def random_tokens(dynamics: Dynamics, batch: int, frames: int = FRAMES) -> Tensor:
    return torch.randint(0, dynamics.codes, (batch, frames, *dynamics.grid))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("actions_at", ["input", "every_block"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames_per_step", [1, 2, 3])
def test_the_logits_are_those_of_the_whole_clip(
    alignment: str, actions_at: str, batch: int, frames_per_step: int
) -> None:
    """At every refinement step of every frame, even when the tokens being refined change."""
    model = guided_model(alignment=alignment, actions_at=actions_at)
    dynamics, vectors_KD = model.dynamics, model.tokenizer.token_vectors()
    _, actions_BT = random_clip(batch)
    slow, fast = uncached(dynamics, vectors_KD, actions_BT), CachedPredictor(dynamics, vectors_KD, actions_BT)
    final_BTHW = random_tokens(dynamics, batch)
    for first in range(2, FRAMES, frames_per_step):
        last = min(first + frames_per_step, FRAMES)
        for _ in range(3):
            tokens_BTHW = final_BTHW[:, :last].clone()
            guesses_BTHW = torch.randint(0, dynamics.codes + 1, tokens_BTHW[:, first:].shape)  # some are masked
            tokens_BTHW[:, first:] = guesses_BTHW
            torch.testing.assert_close(fast(tokens_BTHW, first), slow(tokens_BTHW, first), **TOLERANCE)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("mode", ["one_go", "autoregressive"])
def test_decoding_gives_the_same_tokens(alignment: str, mode: str) -> None:
    model = guided_model(alignment=alignment)
    dynamics, vectors_KD = model.dynamics, model.tokenizer.token_vectors()
    torch.nn.init.normal_(dynamics.to_logits.weight, std=3)  # confident distributions
    _, actions_BT = random_clip(batch=4)
    primes_BTHW = random_tokens(dynamics, 4, frames=2)
    decoding = DecodingConfig(steps=5, mode=mode, frames_per_step=2)

    def tokens(predict: Predict) -> Tensor:
        return decode(
            predict,
            primes_BTHW,
            FRAMES - 2,
            mask_token=dynamics.mask_token,
            decoding=decoding,
            generator=torch.Generator().manual_seed(0),
        )

    cached_BTHW = tokens(CachedPredictor(dynamics, vectors_KD, actions_BT))
    assert torch.equal(cached_BTHW, tokens(uncached(dynamics, vectors_KD, actions_BT)))


def test_latent_actions_are_cached_too() -> None:
    model = GenieRedux(unguided_config()).eval()
    dynamics, vectors_KD = model.dynamics, model.tokenizer.token_vectors()
    actions_BTD = torch.randn(2, FRAMES - 1, dynamics_config().dim)
    slow, fast = uncached(dynamics, vectors_KD, actions_BTD), CachedPredictor(dynamics, vectors_KD, actions_BTD)
    tokens_BTHW = random_tokens(dynamics, 2)
    for first in range(2, FRAMES):
        clip_BTHW = tokens_BTHW[:, : first + 1]
        torch.testing.assert_close(fast(clip_BTHW, first), slow(clip_BTHW, first), **TOLERANCE)


@pytest.mark.parametrize(("alignment", "frames_per_step"), [("shifted", 2), ("aligned", 1)])
def test_a_refinement_step_computes_only_what_is_refined(
    alignment: str, frames_per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that go through the transformer: all final ones once, and those being refined once per step."""
    model = guided_model(alignment=alignment)
    dynamics, vectors_KD = model.dynamics, model.tokenizer.token_vectors()
    _, actions_BT = random_clip(batch=1)
    fed: list[int] = []
    stream = dynamics.stream
    monkeypatch.setattr(
        dynamics, "stream", lambda tokens, *rest, **more: fed.append(tokens.shape[1]) or stream(tokens, *rest, **more)
    )
    decode(
        CachedPredictor(dynamics, vectors_KD, actions_BT),
        random_tokens(dynamics, 1, frames=2),
        4,
        mask_token=dynamics.mask_token,
        decoding=DecodingConfig(steps=3, mode="autoregressive", frames_per_step=frames_per_step),
    )
    if alignment == "shifted":  # two given frames and the one refined; then that one again, final, with the next two
        assert fed == [3, 1, 1, 3, 1, 1]
    else:
        assert fed == [3, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1]


@pytest.mark.parametrize("kind", ["cosine", "fsq"])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_bf16_stays_close(alignment: str, kind: str) -> None:
    model = guided_model(kind, alignment=alignment)
    dynamics = model.dynamics
    _, actions_BT = random_clip()
    slow = uncached(dynamics, model.tokenizer.token_vectors(), actions_BT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = CachedPredictor(dynamics, model.tokenizer.token_vectors(), actions_BT)
    assert dynamics.to_logits.weight.dtype == torch.float32  # the model itself is unchanged
    tokens_BTHW = random_tokens(dynamics, 2)
    for first in range(2, FRAMES):
        rounded, logits = (predict(tokens_BTHW[:, : first + 1], first) for predict in (fast, slow))
        assert rounded.dtype == torch.float32
        assert (rounded != rounded.bfloat16()).any()  # finer than bf16
        assert (rounded - logits).square().mean().sqrt() < 0.05 * logits.std()
