"""Decoding: schedules and sampling against closed forms; a revealed token stays."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from world_model.maskgit import DecodingConfig, decode, gumbel_sample, masked_count, reveal

CODES, MASK = 5, 5


@pytest.mark.parametrize("steps", [1, 8, 25])
def test_schedules(steps: int) -> None:
    tokens = 1000
    for step in range(1, steps + 1):
        progress = step / steps
        assert masked_count(progress, tokens, "cosine") == math.floor(math.cos(math.pi / 2 * progress) * tokens)
        wanted = 1 - 2 ** (-math.log2(tokens) * (1 - progress))  # as in MaskGIT's own code
        assert masked_count(progress, tokens, "exp") == pytest.approx(wanted * tokens, abs=1)
    for schedule in ("cosine", "exp"):
        counts = [masked_count(step / steps, tokens, schedule) for step in range(1, steps + 1)]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] == 0


def test_gumbel_samples_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([2.0, 0.5, -1.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    draws = gumbel_sample(logits.expand(100_000, 4), temperature=0.7, generator=generator)
    frequencies = torch.bincount(draws, minlength=4) / 100_000
    torch.testing.assert_close(frequencies, (logits / 0.7).softmax(dim=-1), rtol=0, atol=0.01)
    assert gumbel_sample(logits, temperature=0.0) == 0


def test_reveal_keeps_known_tokens_and_masks_the_least_sure() -> None:
    tokens_BL = torch.tensor([[4, MASK, MASK, MASK]])
    sampled_BL = torch.tensor([[0, 1, 2, 3]])
    probabilities = torch.full((4, CODES), 0.01)
    for position, (code, probability) in enumerate([(0, 0.05), (1, 0.9), (2, 0.3), (3, 0.6)]):
        probabilities[position] = (1 - probability) / (CODES - 1)
        probabilities[position, code] = probability
    logits_BLK = probabilities.log()[None] + 3
    assert reveal(tokens_BL, sampled_BL, logits_BLK, 2, MASK).tolist() == [[4, 1, MASK, MASK]]
    assert reveal(tokens_BL, sampled_BL, logits_BLK, 1, MASK).tolist() == [[4, 1, MASK, 3]]
    assert reveal(tokens_BL, sampled_BL, logits_BLK, 0, MASK).tolist() == [[4, 1, 2, 3]]


class RandomPredictor:
    """Returns random logits and keeps every token grid that it was given."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, tokens_BTHW: Tensor, first: int) -> Tensor:
        self.seen.append(tokens_BTHW)
        return torch.randn(*tokens_BTHW[:, first:].shape, CODES)


def decode_randomly(**changes: object) -> tuple[RandomPredictor, Tensor]:
    predictor, prime = RandomPredictor(), torch.randint(0, CODES, (2, 2, 4, 4))
    config = DecodingConfig(**changes)
    return predictor, decode(predictor, prime, 4, mask_token=MASK, decoding=config)


@pytest.mark.parametrize("schedule", ["cosine", "exp"])
@pytest.mark.parametrize("temperature", [0.0, 4.0])
def test_a_revealed_token_stays(schedule: str, temperature: float) -> None:
    predictor, decoded_BTHW = decode_randomly(steps=8, temperature=temperature, schedule=schedule)
    grids = [*(seen[:, 2:] for seen in predictor.seen), decoded_BTHW]
    assert (grids[0] == MASK).all()
    assert not (grids[-1] == MASK).any()
    for step, (before, after) in enumerate(pairwise(grids)):
        known = before != MASK
        assert torch.equal(before[known], after[known])
        per_row = (after == MASK).flatten(1).sum(dim=1)
        assert (per_row == masked_count((step + 1) / 8, 64, schedule)).all()


def test_modes_decode_together_what_they_say() -> None:
    one_go, _ = decode_randomly(steps=3)
    assert [grid.shape[1] for grid in one_go.seen] == [6, 6, 6]
    by_two, _ = decode_randomly(steps=3, mode="autoregressive", frames_per_step=2)
    assert [grid.shape[1] for grid in by_two.seen] == [4, 4, 4, 6, 6, 6]
    by_three, decoded_BTHW = decode_randomly(steps=1, mode="autoregressive", frames_per_step=3)
    assert [grid.shape[1] for grid in by_three.seen] == [5, 6]
    assert decoded_BTHW.shape == (2, 4, 4, 4)
    assert torch.equal(by_three.seen[1][:, 2:5], decoded_BTHW[:, :3])


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"frames_per_step": 0}, {"temperature": -1.0}, {"schedule": "linear"}, {"mode": "all"}],
)
def test_impossible_configs_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="allowed"):
        DecodingConfig(**wrong)
