"""What several tests share, made once per session: replay datasets, world models, and procgen, which CoinRun needs."""

import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.games.procgen import install_procgen
from genie_ray.replay.dataset import ReplayDataset

GAME = "Kangaroo-Atari2600-v0"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser, as it is installed here: Playwright's own is not downloaded."""
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no chromium on PATH; Playwright's own is not downloaded")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def procgen() -> None:
    """procgen, installed. Tests are skipped only where procgen has no wheel."""
    try:
        install_procgen()
    except ValueError as error:
        if (sys.platform, platform.machine()) == ("linux", "x86_64"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def replay(roms: list[str], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    """600 steps of random play of Kangaroo in two shards, episodes of at most 100 steps."""
    directory = tmp_path_factory.mktemp("replay")
    config = CollectionConfig(steps_per_shard=300)
    collect(directory, Policy(name="random"), [GAME], 600, config, EnvConfig(max_episode_steps=100))
    return ReplayDataset(directory)


@pytest.fixture(scope="session")
def pictures(replay: ReplayDataset, tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    """The same play as `replay`, collected with large frames of 128 pixels of every fifth step."""
    directory = tmp_path_factory.mktemp("pictures")
    config = CollectionConfig(steps_per_shard=300, large_frame_every=5, large_frame_size=128)
    collect(directory, Policy(name="random"), [GAME], 600, config, EnvConfig(max_episode_steps=100))
    return ReplayDataset(directory)


@pytest.fixture(scope="session")
def genie_redux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny GenieRedux with random weights."""
    import torch

    from world_model import checkpoint
    from world_model.dynamics import DynamicsConfig
    from world_model.genie import GenieRedux, GenieReduxConfig
    from world_model.latent_actions import LatentActionConfig
    from world_model.layers.quantizer import QuantizerConfig
    from world_model.tokenizer import TokenizerConfig

    torch.manual_seed(0)
    sizes = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
    config = GenieReduxConfig(
        tokenizer=TokenizerConfig(patch_size=8, quantizer=QuantizerConfig(kind="fsq"), **sizes),
        dynamics=DynamicsConfig(conditioning="latent", **sizes),
        latent_actions=LatentActionConfig(patch_size=8, quantizer=QuantizerConfig(kind="cosine", codes=7), **sizes),
    )
    directory = tmp_path_factory.mktemp("genie_redux") / "checkpoint"
    checkpoint.save(GenieRedux(config), directory, provenance={})
    return directory


@pytest.fixture(scope="session")
def world_model(replay: ReplayDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny GenieReduxG with random weights and the replay's mean frame."""
    import torch

    from world_model import checkpoint
    from world_model.dynamics import DynamicsConfig
    from world_model.genie import GenieReduxG, GenieReduxGConfig
    from world_model.layers.quantizer import QuantizerConfig
    from world_model.tokenizer import TokenizerConfig

    torch.manual_seed(0)
    sizes = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
    quantizer = QuantizerConfig(kind="fsq")
    tokenizer = TokenizerConfig(patch_size=8, quantizer=quantizer, mean_frame=True, **sizes)
    model = GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer, dynamics=DynamicsConfig(**sizes)))
    frames = replay.read(replay.episodes[0]).frames
    model.tokenizer.initialize_mean_frame(torch.from_numpy(frames[None].copy()))
    directory = tmp_path_factory.mktemp("world_model") / "checkpoint"
    checkpoint.save(model, directory, provenance={})
    return directory
