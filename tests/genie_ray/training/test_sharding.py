"""Sharded training (FSDP2) on two real workers: what one worker learns, in the files that one worker writes."""

import contextlib
import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest
import ray.train
import torch
from torch.nn.parallel import DistributedDataParallel

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig, Sharding
from genie_ray.training import jobs, loop, train
from genie_ray.training.config import TrainingConfig
from genie_ray.training.loop import build_optimizer
from genie_ray.training.parallel import Shards, clip_gradients
from tests.genie_ray.tiny_world import (
    NAMES,
    SIZE,
    TOKENIZER,
    guided_model,
    require_equal,
    tiny_dataset,
    unguided_model,
)
from world_model import checkpoint
from world_model.layers.quantizer import QuantizerConfig
from world_model.layers.transformer import transformers
from world_model.tokenizer import Tokenizer
from world_model.upscaler import Upscaler, UpscalerConfig

CONFIG = TrainingConfig(
    iterations=4,
    batch_size=4,
    window=6,
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    warmup_iterations=0,
    clip_norm=0.05,  # far below the gradients' norm
    shuffle_buffer=32,
    log_every=1,
    validate_every=2,
    validation_windows=3,  # an odd number: one worker has a batch more
    checkpoint_every=2,
    precision="fp32",
)
ONE = RayConfig(threads_per_worker=1)
TWO = RayConfig(threads_per_worker=1, train_workers=2, sharding="fsdp")
STEPS = {"one": 4, "fsdp": 2}  # micro-steps of a worker


def keep_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training leaves its last state behind, which it would remove at its end."""
    monkeypatch.setattr(train, "remove", lambda path: None)


def last_state(output: Path) -> Any:
    (path,) = output.glob("resume/*/training_state.pt")
    return torch.load(path, weights_only=True)


@pytest.mark.slow
def test_sharded_workers_end_with_the_weights_and_files_of_one(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_states(monkeypatch)
    data = tiny_dataset(tmp_path / "data", (30,) * 12)
    checkpoint.save(guided_model(), tmp_path / "first", provenance={})
    for name, settings in (("one", ONE), ("fsdp", TWO)):
        config = dataclasses.replace(CONFIG, accumulate=STEPS[name])
        job = jobs.finetuning(config, data.root, tmp_path / name, init=tmp_path / "first", seed=0)
        train.train(job, settings)
    one, sharded = (last_state(tmp_path / name) for name in STEPS)
    require_equal(sharded["model"], one["model"])
    assert sharded["optimizer"]["param_groups"] == one["optimizer"]["param_groups"]
    assert sharded["optimizer"]["state"].keys() == one["optimizer"]["state"].keys()
    for number, kept in one["optimizer"]["state"].items():
        for name, value in kept.items():
            ours = sharded["optimizer"]["state"][number][name]
            assert type(ours) is type(value)
            torch.testing.assert_close(ours, value, atol=1e-6, rtol=1e-3)
    for name in ("best", "last"):
        ours, theirs = (checkpoint.load(tmp_path / each / name) for each in ("fsdp", "one"))
        require_equal(ours.state_dict(), theirs.state_dict())
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("fsdp", "one"))
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for key in ("loss", "gradient_norm", "validation_loss", "validation_prediction_mse"):
        values = [[line[key] for line in lines if key in line] for lines in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert min(line["gradient_norm"] for line in ours if "gradient_norm" in line) > 2 * CONFIG.clip_norm


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("order", [("none", "fsdp"), ("fsdp", "none")])
def test_a_stopped_training_goes_on_with_the_other_way_to_share(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[Sharding, Sharding]
) -> None:
    keep_states(monkeypatch)
    data = tiny_dataset(tmp_path / "data", (30,) * 12)
    checkpoint.save(guided_model(), tmp_path / "first", provenance={})
    whole, stopped = (
        jobs.finetuning(
            dataclasses.replace(CONFIG, accumulate=2), data.root, tmp_path / name, init=tmp_path / "first", seed=0
        )
        for name in ("whole", "stopped")
    )
    train.train(whole, dataclasses.replace(TWO, sharding="none"))

    def stopping_loop(setup: Any) -> None:
        from genie_ray.training import loop

        learning_rate = loop.learning_rate

        def stop(iteration: int, config: TrainingConfig) -> float:
            if iteration == 3:  # after a state at 2
                raise RuntimeError("stopped by this test")
            return learning_rate(iteration, config)

        loop.learning_rate = stop
        loop.train_loop(setup)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_loop", stopping_loop)
        patched.setattr(ray.train, "FailureConfig", lambda max_failures: None)
        with pytest.raises(RuntimeError, match="stopped by this test"):
            train.train(stopped, dataclasses.replace(TWO, sharding=order[0]))
    assert last_state(tmp_path / "stopped")["iteration"] == 2
    train.train(stopped, dataclasses.replace(TWO, sharding=order[1]))
    states = [last_state(tmp_path / name) for name in ("stopped", "whole")]
    require_equal(*(state["model"] for state in states))
    require_equal(*(checkpoint.load(tmp_path / name / "last").state_dict() for name in ("stopped", "whole")))
    assert [state["loader"] for state in states] == [states[1]["loader"]] * 2


def built(kind: str) -> Any:
    """A model with random weights, the same in every process."""
    torch.manual_seed(0)
    if kind == "dynamics":  # with a frozen tokenizer
        return guided_model()
    if kind == "genie_redux":
        return unguided_model()
    if kind == "ema":  # codes that follow the data, without gradients
        return Tokenizer(dataclasses.replace(TOKENIZER, quantizer=QuantizerConfig(kind="ema", codes=8)))
    return Upscaler(UpscalerConfig(frame_size=SIZE, scale=2, channels=(4,)))


def loss_of(kind: str, model: Any, piece: int) -> Any:
    """Of a piece of the batch, whichever process computes it."""
    draws = torch.Generator().manual_seed(piece)
    frames = torch.randint(256, (2, 4, SIZE, SIZE, 3), dtype=torch.uint8, generator=draws)
    torch.manual_seed(piece)
    if kind == "dynamics":
        return model(frames, torch.randint(len(NAMES), (2, 3), generator=draws), draws).loss
    if kind == "upscaler":
        large = torch.randint(256, (2, 2 * SIZE, 2 * SIZE, 3), dtype=torch.uint8, generator=draws)
        return model(frames[:, 0], large).loss
    return model(*(frames, draws) if kind == "genie_redux" else (frames,)).loss


def steps(kind: str, model: Any, optimizer: Any, rank: int, numbers: range, micro_step: Any) -> list[float]:
    """Trains on four pieces, two a process; returns the gradients' norms."""
    norms = []
    model.train()
    for number in numbers:
        pieces = range(4 * number + rank, 4 * number + 4, 2)
        for piece in pieces:
            with micro_step(piece, pieces):
                (loss_of(kind, model, piece) / 2).backward()
        norms.append(float(clip_gradients(model, 0.05)))
        optimizer.step()
        optimizer.zero_grad()
    return norms


def in_two_processes(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for kind in ("dynamics", "genie_redux", "ema", "upscaler"):
        train_side_by_side(rank, kind)
    torch.distributed.destroy_process_group()


def train_side_by_side(rank: int, kind: str) -> None:
    """Sharded and data-parallel training of the same model; then each goes on from the other's state."""
    numels = sum(parameter.numel() for parameter in built(kind).parameters())
    config = dataclasses.replace(CONFIG, learning_rate=1e-3)

    def sharded() -> tuple[Shards, Any]:
        model = built(kind)
        for stack in transformers(model):
            stack.checkpoint_activations = kind == "genie_redux"
        shards = Shards(model, torch.device("cpu"))
        return shards, build_optimizer(model, config)

    def copied() -> tuple[DistributedDataParallel, Any]:
        model = DistributedDataParallel(built(kind))
        return model, build_optimizer(model, config)

    def averaging(model: DistributedDataParallel) -> Any:
        return lambda piece, pieces: contextlib.nullcontext() if piece == pieces[-1] else model.no_sync()

    shards, ours = sharded()
    copies, theirs = copied()
    norms = steps(kind, shards.model, ours, rank, range(2), shards.micro_step)
    assert norms == pytest.approx(steps(kind, copies, theirs, rank, range(2), averaging(copies)), rel=1e-4)
    require_equal(shards.whole().state_dict(), copies.module.state_dict())
    assert type(shards.whole()) is type(copies.module)

    held = [parameter.to_local().numel() for parameter in shards.model.parameters()]
    moments = [kept["exp_avg"].to_local().numel() for kept in ours.state.values()]
    counts = torch.tensor([sum(held), sum(moments)])
    assert counts.max() < 0.6 * numels
    torch.distributed.all_reduce(counts)  # nothing is held twice
    trained = sum(parameter.numel() for parameter in built(kind).parameters() if parameter.requires_grad)
    assert counts.tolist() == [numels, trained]

    state = {"model": copies.module.state_dict(), "optimizer": theirs.state_dict()}
    kept = [shards.state_dict(ours)]
    torch.distributed.broadcast_object_list(kept)  # as a file would
    shards, ours = sharded()
    shards.load_state_dict(state, ours)
    copies, theirs = copied()
    copies.module.load_state_dict(kept[0]["model"])
    theirs.load_state_dict(kept[0]["optimizer"])
    for more in (range(2, 4), range(4, 5)):
        steps(kind, shards.model, ours, rank, more, shards.micro_step)
        steps(kind, copies, theirs, rank, more, averaging(copies))
        require_equal(shards.whole().state_dict(), copies.module.state_dict())


def test_shards_learn_what_copies_learn_and_each_goes_on_from_the_others_state() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_two_processes, args=(port,), nprocs=2)


def test_a_model_is_only_shared_out_where_workers_share_it() -> None:
    for settings in ({}, {"train_workers": 3, "train_workers_min": 2}):
        with pytest.raises(ValueError, match=r"^sharding = 'fsdp' with train_workers = \d and .*: needs at least 2 "):
            RayConfig(sharding="fsdp", **settings)
