"""CoinRun, played in the browser: the shipped play, and a small model and an agent with random weights that fit it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.web.shipped import SHIPPED
from tests.genie_ray.web.agents import save_agent
from tests.genie_ray.web.live import Open
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig


@pytest.fixture(scope="session")
def coinrun_play(procgen: None) -> ReplayDataset:
    return ReplayDataset(SHIPPED / "play")


@pytest.fixture(scope="session")
def coinrun_model(coinrun_play: ReplayDataset) -> GenieReduxG:
    torch.manual_seed(0)
    sizes = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
    tokenizer = TokenizerConfig(patch_size=8, quantizer=QuantizerConfig(kind="fsq"), **sizes)
    dynamics = DynamicsConfig(num_actions=len(coinrun_play.metadata.action_names), **sizes)
    return GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer, dynamics=dynamics)).eval()


@pytest.fixture(scope="session")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an agent for CoinRun."""
    directory = tmp_path_factory.mktemp("agents")
    save_agent(directory / "CoinRun" / "module")
    return directory


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens an address as a new visitor; at the end, no script may have failed."""
    visitors, errors = [], list[str]()

    def make(address: str, **options: Any) -> Any:
        visitors.append(chromium.new_context(**options))
        visitors[-1].on("weberror", lambda error: errors.append(str(error.error)))
        page = visitors[-1].new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        return page

    yield make
    for visitor in visitors:
        visitor.close()
    assert not errors
