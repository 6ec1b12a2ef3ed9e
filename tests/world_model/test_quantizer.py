"""The three codebooks behind one interface."""

import pytest
import torch
import torch.nn.functional as F

from world_model.layers.quantizer import CosineQuantizer, Quantizer, QuantizerConfig, build_quantizer

DIM = 12
KINDS = ["cosine", "ema", "fsq"]


def quantizer(kind: str) -> Quantizer:
    return build_quantizer(QuantizerConfig(kind=kind, codes=16, code_dim=4, levels=(5, 4, 3)), DIM)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_stand_for_the_vectors_returned(kind: str) -> None:
    codebook = quantizer(kind)
    vectors = torch.randn(2, 3, 4, 4, DIM)
    codebook(vectors)  # an "ema" codebook starts from the first training batch
    quantized = codebook.eval()(vectors)
    size = QuantizerConfig(kind=kind, codes=16, levels=(5, 4, 3)).size
    assert codebook.code_vectors().shape[0] == size == codebook.token_vectors().shape[0]
    assert quantized.tokens.dtype == torch.int64
    assert quantized.tokens.shape == vectors.shape[:-1]
    assert quantized.tokens.unique().numel() > 1
    assert 0 <= quantized.tokens.min() <= quantized.tokens.max() < size
    torch.testing.assert_close(F.embedding(quantized.tokens, codebook.token_vectors()), quantized.vectors)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_to_the_encoder(kind: str) -> None:
    vectors = torch.randn(1, 2, 4, 4, DIM, requires_grad=True)
    quantizer(kind)(vectors).vectors.square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().amax(dim=-1).min() > 0


def test_cosine_lookup_and_loss_by_hand() -> None:
    codebook = build_quantizer(QuantizerConfig(kind="cosine", codes=3, code_dim=2, commitment=0.5), dim=2)
    with torch.no_grad():
        codebook.to_code.weight.copy_(torch.eye(2))
        codebook.to_code.bias.zero_()
        # Rows need not have length 1 after training: the longer row wins a larger share of the circle.
        codebook.codebook_KC.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]))
    quantized = codebook(torch.tensor([[3.0, 4.0], [5.0, 0.0]]))
    assert quantized.tokens.tolist() == [1, 0]  # (0.6, 0.8): 0.6 against 1.6; (1, 0): 1 against 0
    squared = torch.tensor([0.6**2, 1.2**2, 0.0, 0.0])  # (0.6, 0.8) − (0, 2); (1, 0) − (1, 0)
    torch.testing.assert_close(quantized.loss, 1.5 * squared.mean())


def test_an_ema_codebook_learns_in_training_only() -> None:
    codebook = quantizer("ema")
    codebook(torch.randn(1, 4, 4, 4, DIM))
    before = codebook.code_vectors().clone()
    codebook.eval()(torch.randn(1, 4, 4, 4, DIM))
    assert torch.equal(codebook.code_vectors(), before)
    codebook.train()(torch.randn(1, 4, 4, 4, DIM))
    assert not torch.equal(codebook.code_vectors(), before)


def test_an_ema_codebook_without_codes_is_refused_and_stays_as_it_is() -> None:
    codebook = quantizer("ema").eval()
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    with pytest.raises(ValueError, match="has no codes before its first training batch"):
        codebook(torch.randn(1, 4, 4, 4, DIM))
    assert all(torch.equal(before[name], value) for name, value in codebook.state_dict().items())


@pytest.mark.parametrize(
    "wrong", [{"kind": "lfq"}, {"codes": 1}, {"code_dim": 0}, {"commitment": -1.0}, {"levels": ()}, {"levels": (8, 2)}]
)
def test_impossible_configs_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="allowed"):
        QuantizerConfig(**wrong)


def test_codes_are_looked_up_in_fp32_under_autocast() -> None:
    codebook = build_quantizer(QuantizerConfig(codes=1024), 32).eval()
    assert isinstance(codebook, CosineQuantizer)
    vectors = torch.randn(4096, 32).bfloat16().float()  # exact in bf16, as is the identity that projects them
    torch.nn.init.eye_(codebook.to_code.weight)
    torch.nn.init.zeros_(codebook.to_code.bias)
    tokens = codebook(vectors).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(codebook(vectors).tokens, tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_has_no_distance_from_itself(kind: str) -> None:
    codebook = quantizer(kind)
    codebook(torch.randn(2, 3, 4, 4, DIM))  # an "ema" codebook starts from the first training batch
    vectors_KC = codebook.distance_vectors().detach()
    distances_KK = torch.cdist(vectors_KC, vectors_KC).square()
    assert distances_KK.diagonal().abs().max() < 1e-5
    assert distances_KK.mean() == pytest.approx(1.0, abs=0.4)  # so that λ means about the same for every codebook


def test_fsq_neighbours_are_alike_wherever_they_lie() -> None:
    """One level apart is as far through the middle as elsewhere, and nearer than two levels."""
    codebook = quantizer("fsq")
    codes_KC, vectors_KC = codebook.code_vectors().detach(), codebook.distance_vectors().detach()
    steps_KK = ((codes_KC[:, None] - codes_KC[None]) * torch.tensor([2.0, 2.0, 1.0])).abs()  # in levels of 5, 4, 3
    distances_KK = torch.cdist(vectors_KC, vectors_KC).square()
    first = (steps_KK[..., 1:] == 0).all(dim=-1)  # pairs that differ in the first dimension only
    by_levels = [distances_KK[first & (steps_KK[..., 0] == levels)] for levels in (0, 1, 2)]
    for distances, levels in zip(by_levels, (0, 1, 4), strict=True):
        torch.testing.assert_close(distances, torch.full_like(distances, levels * float(by_levels[1].mean())))


def test_cosine_distances_are_those_of_the_paper() -> None:
    codebook = quantizer("cosine")
    codes_KC, vectors_KC = codebook.code_vectors().detach(), codebook.distance_vectors().detach()
    wanted_KK = 1 - torch.cosine_similarity(codes_KC[:, None], codes_KC[None], dim=-1)
    torch.testing.assert_close(torch.cdist(vectors_KC, vectors_KC).square(), wanted_KK, rtol=0, atol=1e-5)
