"""What a table costs, before anything is made: operations counted on the models themselves, and steps of games.

Matrix products, convolutions and attention of a forward pass are counted (torch.utils.flop_counter) on models without
weights, so nothing is computed. A training pass counts as three forward ones, two of which are the gradients'. The
hours are arithmetic from an assumed rate of GPUs and a measured one of emulators, not measurements.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from genie_ray.base.progress import console
from genie_ray.base.results import markdown
from genie_ray.reproducing.flops import count_flops
from genie_ray.reproducing.graph import TRAINED_BY, Job, origin
from genie_ray.reproducing.run import missing_jobs
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import Tokenizer, TokenizerConfig
from world_model.uncertainty import PREDICTED_FRAMES, PRIME_FRAMES

if TYPE_CHECKING:
    from genie_ray.reproducing.plan import Plan

FLOPS_PER_SECOND = 300e12  # of a GPU: a third of an H100's dense bf16 rate; assumed
STEPS_PER_SECOND = 465  # of an emulator on a core: measured, docs/data.md
TRAINING_PASS = 3  # forward passes
SIZES = ("max_frames", "dim", "blocks", "heads", "head_dim")


def print_cost(plan: Plan, out: Path) -> None:
    """Prints the jobs that are to be made, and what they cost."""
    jobs = missing_jobs(plan, out.resolve())
    flops, steps = {job.identity: job_flops(job) for job in jobs}, {job.identity: job_steps(job) for job in jobs}
    rows = [
        {
            "job": f"{job.kind}: {job.name}",
            "seed": job.config.seed,
            "FLOP": f"{flops[job.identity]:.1e}" if flops[job.identity] else "",
            "steps of games": f"{steps[job.identity]:,}" if steps[job.identity] else "",
        }
        for job in jobs
    ]
    console.print(markdown(rows) if rows else "everything is made", soft_wrap=True)
    hours, core_hours = sum(flops.values()) / FLOPS_PER_SECOND / 3600, sum(steps.values()) / STEPS_PER_SECOND / 3600
    console.print(
        f"{len(jobs)} of {len(plan.jobs())} jobs are to be made: {sum(flops.values()):.2g} FLOP, "
        f"{hours:,.1f} hours of a GPU at 300 TFLOP/s (assumed); {sum(steps.values()):,} steps of games, "
        f"{core_hours:,.1f} hours of a core at {STEPS_PER_SECOND} steps/s. Agents' own networks are not counted.",
        soft_wrap=True,
    )


def job_steps(job: Job) -> int:
    """Steps of games that a job plays; of episodes, the most that they can have."""
    if job.kind == "play":
        ((unit, amount),) = job.settings["amount"].items()
        longest = job.config.env.max_episode_steps if unit == "episodes" else 1
        return len(job.settings["games"]) * amount * longest
    if job.kind == "explorer":
        return len(job.settings["games"]) * job.config.training_steps
    if job.kind == "player" and job.config.player.kind == "ppo":
        player = job.config.player
        each = player.ppo.num_envs * player.ppo.fragment_length * player.ppo.hold
        return len(job.settings["games"]) * player.iterations * each
    if job.kind == "player":
        player = job.config.player
        return len(job.settings["games"]) * player.iterations * player.agent57.play.steps_per_iteration
    return 0


def job_flops(job: Job) -> float:
    """Operations of the world model in a job: training, evaluation, or an explorer's rewards."""
    config = job.config
    if job.kind in TRAINED_BY:
        training = getattr(config, TRAINED_BY[job.kind])
        encode, decode, dynamics, latent = _passes(job, training.window)
        passes = {
            "tokenizer": TRAINING_PASS * (encode + decode),
            "decoder": encode + TRAINING_PASS * decode,
        }.get(job.kind, encode + TRAINING_PASS * (dynamics + latent))
        return float(training.iterations * training.batch_size * passes)
    if job.kind == "explorer" and config.reward.kind in ("entropy", "learning_progress", "disagreement"):
        encode, _, dynamics, _ = _passes(job, PRIME_FRAMES + PREDICTED_FRAMES)
        return job_steps(job) * (encode * PRIME_FRAMES / (PRIME_FRAMES + PREDICTED_FRAMES) + dynamics)
    if job.kind == "evaluation":
        return _evaluation(job)
    return 0.0


def _evaluation(job: Job) -> float:
    """Of both rollouts, with the true actions and with random ones, and of the tokenizer alone."""
    test, settings = job.inputs["test"], job.config.evaluation
    encode, decode, dynamics, _ = _passes(job, settings.window)
    sources = {"play": [test], "gathered": list(test.inputs.values())}.get(test.kind) or [test.inputs["by"]]
    steps, games = sum(map(job_steps, sources)), sum(len(source.settings["games"]) for source in sources)
    windows = steps / settings.stride
    if settings.windows_per_game:
        windows = min(windows, games * settings.windows_per_game)
    decoding = settings.decoding
    whole = dynamics  # one go: all frames at each step; else, with a cache, each frame once at each of its steps
    rollouts = 2 * (decoding.steps * whole + encode + decode)
    return windows * (rollouts + encode + decode)


def _passes(job: Job, frames: int) -> tuple[int, int, int, int]:
    """Operations of a forward pass over a clip: encoder, decoder, dynamics, and latent action model."""
    config = job.config
    latent = config.latent_actions
    sizes = {name: getattr(latent, name) for name in ("frame_size", "patch_size", *SIZES)}
    # The latent action model is built like a tokenizer; what it has besides is below one per cent of it.
    beside = sum(_tokenizer_passes(TokenizerConfig(**sizes), frames)) if origin(job).kind == "genie_redux" else 0
    return (
        *_tokenizer_passes(config.tokenizer, frames),
        _dynamics_pass(config.tokenizer, config.dynamics, frames),
        beside,
    )


@cache
def _tokenizer_passes(config: TokenizerConfig, frames: int) -> tuple[int, int]:
    with FakeTensorMode(), torch.no_grad():
        model = Tokenizer(_countable(config))
        clip_BTHWC = torch.zeros((1, frames, config.frame_size, config.frame_size, 3), dtype=torch.uint8)
        vectors_BTHWD = torch.zeros((1, frames, *config.grid, config.dim))
        decode = count_flops(lambda: model.decode_vectors(vectors_BTHWD, model.spatial_bias()))
        return count_flops(lambda: model.encode(clip_BTHWC)), decode


@cache
def _dynamics_pass(tokenizer: TokenizerConfig, config: DynamicsConfig, frames: int) -> int:
    guided = replace(config, head="codes")
    if config.conditioning == "latent":
        guided = replace(guided, conditioning="embedding")
    with FakeTensorMode(), torch.no_grad():
        model = GenieReduxG(GenieReduxGConfig(tokenizer=_countable(tokenizer), dynamics=guided))
        tokens_BTHW = torch.zeros((1, frames, *tokenizer.grid), dtype=torch.int64)
        actions_BT = torch.zeros((1, frames - 1), dtype=torch.int64)
        return count_flops(lambda: model.dynamics(tokens_BTHW, actions_BT, model.tokenizer.token_vectors()))


def _countable(config: TokenizerConfig) -> TokenizerConfig:
    """With a codebook that needs no computing when it is built; as many codes."""
    return replace(config, quantizer=QuantizerConfig(kind="cosine", codes=config.quantizer.size))
