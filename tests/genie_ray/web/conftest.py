"""CoinRun, played in the browser: the shipped play, and a small model and an agent with random weights that fit it."""

from pathlib import Path

import pytest
import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.web.serving import SHIPPED
from tests.genie_ray.web.agents import save_agent
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
