"""What several tests share, made once per session: replay datasets, world models, and procgen, which CoinRun needs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset

GAME = "Kangaroo-Atari2600-v0"
INSTALL_PROCGEN = Path(__file__).parents[2] / "experiments" / "coinrun" / "install_procgen.py"


@pytest.fixture(scope="session")
def procgen(pytestconfig: pytest.Config) -> None:
    """procgen; if missing, installed under pytest's temporary directory."""
    if importlib.util.find_spec("procgen") is not None:
        return
    target = pytestconfig.cache.mkdir("procgen")
    if not (target / "procgen").is_dir() or not (target / "gym").is_dir():
        command = [sys.executable, INSTALL_PROCGEN, "--target", target]
        installed = subprocess.run(command, capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"procgen cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    sys.path.append(str(target))


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
