"""Play on an object store: a real S3 server on this machine, which all workers write to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genie_ray.base.session import RayConfig
from genie_ray.cli import app
from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import WeightedData
from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import shard_name, shard_paths
from genie_ray.storage.paths import RemotePath, resolve
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from tests.genie_ray.s3 import s3_bucket
from world_model import checkpoint
from world_model.tokenizer import TokenizerConfig

GAME = "Kangaroo-Atari2600-v0"
CONFIG, ENV = CollectionConfig(steps_per_shard=100), EnvConfig(max_episode_steps=50)
TRAINING = TrainingConfig(
    iterations=2, batch_size=4, window=4, warmup_iterations=0, log_every=1, validate_every=2, validation_windows=4,
    checkpoint_every=2,
)  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("play") as uri:
        yield uri


def contents(root: str | Path) -> dict[str, bytes]:
    found = {}
    for path in shard_paths(root):
        with path.open("rb") as file:
            found[shard_name(path)] = file.read()
    return found


def test_play_is_collected_completed_and_trained_on(
    bucket: str, roms: list[str], ray_session: None, world_model: Path, tmp_path: Path
) -> None:
    uri, random = bucket.format("random"), Policy(name="random")
    overrides = ["collection.steps_per_shard=100", "--max-steps", "50"]
    done = CliRunner().invoke(app, ["collect", uri, "--game", GAME, "--steps", "300", *overrides])
    assert done.exit_code == 0, done.output
    assert "s3://play/random" in done.output
    assert "testing" not in done.output  # no secret of the URI is printed
    local = collect(tmp_path / "random", random, [GAME], 300, CONFIG, ENV)
    assert contents(uri) == contents(local)
    assert verify(uri) == []

    root = resolve(uri)
    assert isinstance(root, RemotePath)
    (root / f"game={GAME}" / "shard-00001.parquet").unlink()
    (root / METADATA_FILE).unlink()
    collect(root, random, [GAME], 300, CONFIG, ENV)
    assert contents(uri) == contents(local)
    with pytest.raises(ValueError, match="s3://play/random holds another collection"):
        collect(root, random, [GAME], 300, CONFIG, ENV, seed=1)

    job = TrainingJob(
        kind="tokenizer",
        output=tmp_path / "tokenizer",
        dataset=(WeightedData(path=uri),),
        config=TRAINING,
        model=TokenizerConfig(patch_size=8, dim=32, blocks=1, heads=2, head_dim=16),
    )
    best = train(job, RayConfig(threads_per_worker=1))
    assert checkpoint.read_description(best)["provenance"]["dataset"] == ReplayDataset(local).content_hash()

    words = ["rollout", str(tmp_path / "rollout"), "--data", uri, "--world-model", str(world_model), "--steps", "3"]
    rolled = CliRunner().invoke(app, words)
    assert rolled.exit_code == 0, rolled.output
