"""The last layer by FSQ's levels: which codes share what, and that it is a sum."""

from pathlib import Path

import pytest
import torch
from tiny_models import guided_model, random_clip

from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.layers.head import LevelsHead, code_levels
from world_model.layers.quantizer import QuantizerConfig, build_quantizer

LEVELS = (8, 5, 3)


def test_levels_are_those_of_the_codebook() -> None:
    codes_KC = build_quantizer(QuantizerConfig(kind="fsq", levels=LEVELS), dim=16).code_vectors()
    parts = code_levels(LEVELS).split(LEVELS, dim=1)
    for dimension, members_KL in enumerate(parts):
        values_L = codes_KC[:, dimension].unique()  # sorted
        assert len(values_L) == LEVELS[dimension]
        assert torch.equal(values_L[members_KL.argmax(dim=1)], codes_KC[:, dimension])
        assert torch.equal(members_KL.sum(dim=1), torch.ones(len(codes_KC)))


def test_a_logit_is_the_sum_over_a_codes_levels_and_its_own_part() -> None:
    head = LevelsHead(6, LEVELS)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    x_D = torch.randn(6)
    by_level = head.level_weight @ x_D + head.level_bias
    own = head.weight @ x_D + head.bias
    code = 3 + 8 * (4 + 5 * 1)  # levels 3, 4 and 1
    expected = own[code] + by_level[3] + by_level[8 + 4] + by_level[8 + 5 + 1]
    torch.testing.assert_close(head(x_D)[code], expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(x_D.bfloat16()).dtype == torch.float32


def test_a_model_with_such_a_head_is_saved_and_loaded(tmp_path: Path) -> None:
    model = guided_model("fsq", head="levels", alignment="aligned")
    checkpoint.save(model, tmp_path / "model", provenance={})
    frames_BTHWC, actions_BT = random_clip()
    logits = [
        each.one_step_logits(frames_BTHWC[:, :2], actions_BT)
        for each in (model, checkpoint.load_as(GenieReduxG, tmp_path / "model"))
    ]
    assert logits[0].shape[-1] == 4 * 3 * 3
    assert torch.equal(*logits)


def test_only_fsq_has_levels() -> None:
    with pytest.raises(ValueError, match=r"allowed with quantizer\.kind 'cosine'"):
        guided_model("cosine", head="levels")
