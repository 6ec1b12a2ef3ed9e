"""Trainings on real Ray Train: interrupted ones end like whole ones; what cannot be trained is refused first."""

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import WeightedData
from genie_ray.training import jobs
from genie_ray.training.config import RankingConfig, TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from tests.genie_ray.children import children_named
from tests.genie_ray.tiny_world import require_equal, tiny_dataset
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxG
from world_model.latent_actions import LatentActionConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig

SIZES = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
CODEBOOK = QuantizerConfig(kind="ema", codes=64)  # the kind that draws random numbers and changes without gradients
TOKENIZER = TokenizerConfig(patch_size=8, quantizer=CODEBOOK, mean_frame=True, **SIZES)
CONFIG = TrainingConfig(
    iterations=120,
    batch_size=4,
    window=8,
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    warmup_iterations=5,
    shuffle_buffer=32,
    log_every=1,
    validate_every=40,
    validation_windows=8,
    checkpoint_every=40,
)
RAY = RayConfig(threads_per_worker=1)


def tokenizer_job(replay: ReplayDataset, output: Path) -> TrainingJob:
    return TrainingJob(kind="tokenizer", output=output, dataset=replay.root, config=CONFIG, model=TOKENIZER)


def iterations(output: Path, key: str) -> list[int]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line["iteration"] for line in lines if key in line]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(replay: ReplayDataset, tmp_path: Path) -> None:
    """The worker is killed between two checkpoints; the restarted one repeats and skips no iteration."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    train(tokenizer_job(replay, unbroken), RAY)
    killed: list[int] = []

    def kill_after_iteration_50() -> None:
        while not (broken / "metrics.jsonl").exists() or max(iterations(broken, "loss"), default=0) < 50:
            time.sleep(0.02)
        for process in children_named("RayTrainWorker"):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    killer = threading.Thread(target=kill_after_iteration_50)
    killer.start()
    train(tokenizer_job(replay, broken), RAY)
    killer.join()
    assert killed
    ours, theirs = (checkpoint.read_description(path / "last") for path in (broken, unbroken))
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    assert ours["provenance"] == theirs["provenance"]
    log = read_metrics(unbroken / "metrics.jsonl")
    errors = [line["validation_reconstruction_mse"] for line in log if "validation_reconstruction_mse" in line]
    assert [line["best_reconstruction_mse"] for line in log if "best_reconstruction_mse" in line] == [
        min(errors[: count + 1]) for count in range(len(errors))
    ]
    assert checkpoint.read_description(unbroken / "best")["provenance"]["score"] == {
        "name": "reconstruction_mse",
        "value": min(errors),
        "best": min(errors),
    }
    assert ours["provenance"]["job"] == tokenizer_job(replay, broken).identity()
    assert ours["provenance"]["action_names"] == list(replay.metadata.action_names)
    assert iterations(broken, "loss") == list(range(1, 121))
    assert iterations(broken, "validation_loss") == [40, 80, 120]

    before = (broken / "last" / "model.safetensors").stat().st_mtime_ns
    train(tokenizer_job(replay, broken), RAY)  # finished: nothing is done again
    assert (broken / "last" / "model.safetensors").stat().st_mtime_ns == before
    assert not (broken / "resume").exists()


@pytest.mark.slow
def test_two_workers_and_micro_steps_train_a_dynamics_on_mixed_data_that_brings_its_tokenizer(
    replay: ReplayDataset, pictures: ReplayDataset, world_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the workers run elsewhere: relative paths must still reach them
    config = dataclasses.replace(CONFIG, iterations=6, accumulate=2, batch_size=8, validate_every=3, checkpoint_every=3)
    tokenizer = Path("tokenizer")
    Path("first").symlink_to(replay.root)
    model = checkpoint.load(world_model)
    checkpoint.save(model.tokenizer, tokenizer, provenance={})
    job = TrainingJob(
        kind="dynamics",
        output=Path("dynamics"),
        dataset=(WeightedData(path=Path("first")), WeightedData(path=f"file://{pictures.root}", weight=2)),
        config=config,
        model=DynamicsConfig(**SIZES),
        tokenizer=tokenizer,
    )
    best = train(job, RayConfig(train_workers=2, threads_per_worker=1))
    description = checkpoint.read_description(best)
    assert description["tokenizer_sha256"] == checkpoint.weights_hash(model.tokenizer)
    assert iterations(tmp_path / "dynamics", "validation_loss") == [3, 6]

    tuned = dataclasses.replace(
        job, output=Path("tuned"), dataset=replay.root, model=None, tokenizer=None, init=Path("dynamics/best")
    )
    ranked = dataclasses.replace(config, iterations=2, warmup_iterations=0, ranking=RankingConfig(every=1))
    tuned = dataclasses.replace(tuned, config=ranked)
    finetuned = checkpoint.read_description(train(tuned, RayConfig(train_workers=2, threads_per_worker=1)))
    assert iterations(tmp_path / "tuned", "ranking_error") == [1, 2]
    assert finetuned["tokenizer_sha256"] == description["tokenizer_sha256"]
    assert finetuned["weights_sha256"] != description["weights_sha256"]


@pytest.mark.slow
def test_two_workers_learn_what_one_learns_with_the_batch_accumulated(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    """Also with an uneven share: of five workers three or, where other tests left something running, two have room."""
    config = dataclasses.replace(
        CONFIG, iterations=6, batch_size=5, warmup_iterations=0, validate_every=6, checkpoint_every=6, precision="fp32"
    )
    weights = {}
    one, two = RayConfig(threads_per_worker=1), RayConfig(train_workers=5, train_workers_min=2, cpus_per_worker=2)
    for ray_config, accumulate in ((one, 5), (dataclasses.replace(two, threads_per_worker=1), 1)):
        output = tmp_path / str(ray_config.train_workers)
        training = dataclasses.replace(config, accumulate=accumulate)
        train(jobs.finetuning(training, replay.root, output, init=world_model, seed=0), ray_config)
        weights[ray_config.train_workers] = checkpoint.load(output / "last").state_dict()
    require_equal(weights[5], weights[1])
    before = checkpoint.load(world_model).state_dict()
    assert max(float((value - before[name]).abs().max()) for name, value in weights[1].items()) > 1e-3


@pytest.mark.slow
def test_two_workers_train_a_genie_redux_whose_codes_follow_the_data(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    """Every parameter gets a gradient (else data-parallel training stops), and the codebook starts from the data."""
    config = dataclasses.replace(CONFIG, iterations=6, batch_size=4, validate_every=6, checkpoint_every=6)
    checkpoint.save(checkpoint.load_as(GenieReduxG, world_model).tokenizer, tmp_path / "tokenizer", provenance={})
    job = TrainingJob(
        kind="genie_redux",
        output=tmp_path / "redux",
        dataset=replay.root,
        config=config,
        model=DynamicsConfig(conditioning="latent", **SIZES),
        latent_actions=LatentActionConfig(patch_size=8, quantizer=QuantizerConfig(kind="ema", codes=7), **SIZES),
        tokenizer=tmp_path / "tokenizer",
    )
    model = checkpoint.load_as(GenieRedux, train(job, RayConfig(train_workers=2, threads_per_worker=1)))
    assert checkpoint.tokens_hash(model.tokenizer) == checkpoint.describe(tmp_path / "tokenizer")["tokens_sha256"]
    assert model.latent_actions.quantizer.code_vectors().norm(dim=-1).min() > 0.9
    assert iterations(tmp_path / "redux", "validation_dynamics_accuracy") == [6]


def test_what_cannot_be_trained_is_refused_before_anything_starts(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    job = tokenizer_job(replay, tmp_path / "out")
    tokenizer = tmp_path / "tokenizer"
    checkpoint.save(checkpoint.load_as(GenieReduxG, world_model).tokenizer, tokenizer, provenance={})
    with pytest.raises(ValueError, match=r"batch_size = 4: must be a multiple of .* = 3 × 1"):
        train(job, RayConfig(train_workers=3))
    with pytest.raises(ValueError, match=r"holds frames of \(64, 64, 3\), the model takes \(32, 32, 3\)"):
        train(dataclasses.replace(job, model=dataclasses.replace(TOKENIZER, frame_size=32)), RAY)
    with pytest.raises(ValueError, match=r"no replay dataset in .*absent"):
        train(dataclasses.replace(job, dataset=tmp_path / "absent"), RAY)
    tiny = tiny_dataset(tmp_path / "tiny")
    mixed = (WeightedData(path=replay.root), WeightedData(path=tiny.root))
    with pytest.raises(ValueError, match=r"cannot be mixed: their frames are \(64, 64, 3\) and \(16, 16, 3\)"):
        train(dataclasses.replace(job, dataset=mixed), RAY)
    ranked = dataclasses.replace(CONFIG, ranking=RankingConfig(every=10))
    with pytest.raises(ValueError, match=r"ranking\.every = 10: must be 0 for tokenizer; only dynamics are ranked"):
        train(dataclasses.replace(job, config=ranked), RAY)
    long = dataclasses.replace(job, model=dataclasses.replace(TOKENIZER, max_frames=300))
    with pytest.raises(ValueError, match="no window of 300 frames: its longest episode has 101"):
        train(dataclasses.replace(long, config=dataclasses.replace(CONFIG, window=300)), RAY)
    dynamics = dataclasses.replace(job, kind="dynamics", model=DynamicsConfig(**SIZES), tokenizer=world_model)
    with pytest.raises(ValueError, match="holds GenieReduxG, needed: Tokenizer"):
        train(dynamics, RAY)
    large = dataclasses.replace(job, kind="dynamics", model=DynamicsConfig(), tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"dynamics\.dim is 512, allowed with a token input: the tokenizer's dim 32"):
        train(large, RAY)
    seven = dataclasses.replace(large, model=DynamicsConfig(num_actions=7, **SIZES))
    with pytest.raises(
        ValueError, match=r"the dataset has 5 actions \(RIGHT, LEFT, UP, DOWN, JUMP\), the model takes 7"
    ):
        train(seven, RAY)
    with pytest.raises(ValueError, match=r"window = 40: the model takes at most 16 frames"):
        train(dataclasses.replace(job, config=dataclasses.replace(CONFIG, window=40)), RAY)
    assert not (tmp_path / "out").exists()
