"""World models with random weights, two of them, and their checkpoints."""

from pathlib import Path

import pytest

from tests.genie_ray.rewards.small_world import world_model
from world_model.checkpoint import save
from world_model.genie import GenieReduxG


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for number, model in enumerate(models):
        save(model, root / str(number), provenance={})
    return [root / "0", root / "1"]
