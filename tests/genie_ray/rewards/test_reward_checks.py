"""Checkpoints and settings that cannot work are refused before anything starts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from genie_ray.rewards.deployment import check_checkpoint
from genie_ray.rewards.service import reward_service
from tests.genie_ray.rewards.small_world import CONFIG, FITS
from world_model.checkpoint import save, weights_hash
from world_model.genie import GenieReduxG


def test_checkpoints_that_do_not_fit_are_refused(
    checkpoints: list[Path], models: list[GenieReduxG], tmp_path: Path
) -> None:
    assert check_checkpoint(checkpoints[0], **FITS) == weights_hash(models[0])
    with pytest.raises(ValueError, match="has frame_size 16; the environments have 64"):
        check_checkpoint(checkpoints[0], **{**FITS, "frame_size": 64})
    with pytest.raises(ValueError, match="has num_actions 4; the environments have 5"):
        check_checkpoint(checkpoints[0], **{**FITS, "action_names": (*FITS["action_names"], "DOWN")})
    for names in (FITS["action_names"], ("0", "1", "2", "3")):  # a dataset without action names has numbers
        save(models[0], tmp_path / "named", provenance={"action_names": names})
        check_checkpoint(tmp_path / "named", **FITS)
    save(models[0], tmp_path / "named", provenance={"action_names": ("LEFT", "RIGHT", "UP", "JUMP")})
    with pytest.raises(ValueError, match=r"has action_names \['LEFT', .*; the environments have \['RIGHT', "):
        check_checkpoint(tmp_path / "named", **FITS)
    config = models[0].config
    short = dataclasses.replace(config, dynamics=dataclasses.replace(config.dynamics, max_frames=4))
    save(GenieReduxG(short), tmp_path / "short", provenance={})
    with pytest.raises(ValueError, match="has max_frames 4; allowed: 5 or more"):
        check_checkpoint(tmp_path / "short", **FITS)
    save(models[0].tokenizer, tmp_path / "tokenizer", provenance={})
    with pytest.raises(ValueError, match="holds Tokenizer, needed: GenieReduxG"):
        check_checkpoint(tmp_path / "tokenizer", **FITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 999.0}, "needs 999 GPUs; the cluster has"),
        ({"kind": "vae"}, "no state directory; needed by kind 'vae'"),
    ],
)
def test_what_cannot_start_is_refused(
    checkpoints: list[Path], ray_session: None, changes: dict[str, Any], message: str
) -> None:
    with (
        pytest.raises(ValueError, match=message),
        reward_service(checkpoints[0], dataclasses.replace(CONFIG, **changes), app_name="refused", **FITS),
    ):
        pass
