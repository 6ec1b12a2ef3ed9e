"""The exploration loop: play, train a world model, explore what it does not know, train on that, and compare.

    random play → tokenizer → dynamics → explorer → explored play ┐
                                  fresh random play, held ────────┼→ two fine-tuned models → evaluation → report
                        PPO on the game's reward → test play ─────┘

Explored play is that of the explorer's training, of its trained policy, or both (collection.explore_from).

A fine-tuning first tunes the tokenizer's decoder to the new scenes, which changes no token, then the dynamics, both on
the same play (Savov et al., CVPR 2025, arXiv 2504.02515, Sec. 4); of all games, or of each apart (finetune_apart).

If large frames are collected (collection.large_frame_every), an upscaler is trained on those of the random play.

What does not need each other is in lanes, which may run at once (ray.stages_at_once): the test agents beside the base
model, explorers beside each other, and the two fine-tunings.

Stages exchange nothing but artefacts. A stage whose artefacts exist is skipped; an interrupted one continues from what
it last saved, because every stage can resume by itself.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from genie_ray.base.session import ray_session
from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.collecting.collection import collect
from genie_ray.collecting.plan import Policy
from genie_ray.config import RunConfig
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import Checkpoints
from genie_ray.evaluating.upscaling import SCORES_FILE, evaluate_upscaler
from genie_ray.exploring.explorers import roles, train_explorers
from genie_ray.exploring.recorder import PLAY
from genie_ray.games.roms import require_games
from genie_ray.playing.players import train_player
from genie_ray.replay.gather import gather
from genie_ray.replay.loading.mixture import WeightedData
from genie_ray.report.page import write_report
from genie_ray.report.verdict import BASE, ON_EXPLORED, ON_RANDOM
from genie_ray.rewards.service import start_serve
from genie_ray.stages import Stage, run_stages
from genie_ray.storage.paths import StoredPath
from genie_ray.training import jobs
from genie_ray.training.finetuning import ADAPTED, finetuning_steps
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from world_model.genie import GenieReduxGConfig

DECODER = "decoder"
"""Folder of the decoder's trainings."""

EXPLORING = "exploring"
LANES = 2
"""At a time, if they run at once."""

BYTES_PER_FRAME = 1_000  # stored; measured: 58 to 116, depending on the game
BYTES_PER_LARGE_FRAME = 16_000  # with 16 times the pixels; measured: 830 for Kangaroo
BYTES_RESERVED = 2 * 1024**3  # for checkpoints, Ray's spill files and logs


def run_loop(config: RunConfig, directory: StoredPath) -> StoredPath:
    """Runs what is left of a run, starting a local Ray if there is none, and returns the report's path.

    Raises:
        ValueError: a game or ROM is missing, the directory holds a run with other settings, or the disk is too full.
    """
    directory = directory.resolve()
    _check(config, directory)
    keep_settings(directory, to_dict(config))
    pending = [stage for stage in stages(config, directory) if not stage.done]
    if pending:
        # Explorers at once share Ray Serve; the first to end would stop it.
        together = config.ray.stages_at_once and any(stage.part == EXPLORING for stage in pending)
        with ray_session(config.ray), start_serve() if together else nullcontext():
            run_stages(pending, directory, at_once=config.ray.stages_at_once)
    return write_report(directory)


def stages(config: RunConfig, directory: StoredPath) -> list[Stage]:
    """The loop's stages in order, in lanes of those that don't need each other."""
    games, seed = config.games, config.seed
    alone, shared = config.ray, dataclasses.replace(config.ray, threads_per_worker=config.ray.torch_threads(LANES))
    config = dataclasses.replace(config, ray=shared if alone.stages_at_once else alone)
    data, collection = directory / "datasets", config.collection
    agents, players = directory / "agent", directory / "player"
    tokenizer, dynamics, finetuned = directory / "tokenizer", directory / "dynamics", directory / "finetuned"
    base = dynamics / "best"

    def play(name: str, policy: Policy, steps: int, play_seed: int, *, large_frames: bool = False) -> Stage:
        settings = collection if large_frames else dataclasses.replace(collection, large_frame_every=0)
        env = config.env
        if name == "test":
            env = dataclasses.replace(env, coinrun_levels=collection.test_levels)

        def run() -> None:
            collect(data / name, policy, games, steps, settings, env, seed=play_seed)

        return Stage(f"datasets/{name}", (data / name / "_dataset.json",), run)

    def learn(job: TrainingJob) -> Stage:
        name = _name(job.output, directory)
        return Stage(name, (job.output / "last" / "config.json",), lambda: train(job, config.ray))

    def finetune(source: str) -> list[Stage]:
        """The decoder, then the dynamics of the base model with that decoder; for each game, if asked."""
        play = data / source
        sets: dict[str, jobs.Data] = {source: play}
        if config.finetune_apart:
            sets = {f"{source}/{game}": (WeightedData(path=play, game=game),) for game in games}
        steps = [
            step
            for name, those in sets.items()
            for step in finetuning_steps(
                config,
                those,
                config.ray,
                base=base,
                decoder=directory / DECODER / name,
                finetuned=finetuned / name,
            )
        ]
        return [Stage(_name(step.output, directory), (step.artefact,), step.run) for step in steps]

    def best(source: str) -> Checkpoints:
        if config.finetune_apart:
            return {game: finetuned / source / game / "best" for game in games}
        return finetuned / source / "best"

    def explored() -> list[Stage]:
        """The explored play."""
        by_policy = play("explore", explorer, collection.finetune_steps, seed)
        if collection.explore_from == "policy":
            return [by_policy]
        sources = [agents / name / PLAY for name in config.exploration.agents(games)]
        before = []
        if collection.explore_from == "both":
            before = [play("policy", explorer, collection.finetune_steps, seed)]
            sources.append(data / "policy")
        run = partial(gather, data / "explore", sources, policy=explorer.name)
        return [*before, dataclasses.replace(by_policy, run=run)]

    def explore(name: str, played: Sequence[str]) -> Stage:
        def run() -> None:
            for _ in train_explorers(agents, played, base, config):
                pass

        needs = partial(roles, config, config.reward.replicas)
        return Stage(f"agent/{name}", (agents / name / "module" / "policy.json",), run, roles=needs)

    def train_players() -> None:
        for game in games:
            train_player(players / game, game, config.player, config.env, config.ray, seed=seed)

    explorer = Policy(
        name="explorer",
        directory=agents,
        epsilon=collection.explorer_epsilon,
        temperature=collection.explorer_temperature,
    )
    control = Policy(name="random", hold=collection.control_hold)
    player = Policy(name="player", directory=players, epsilon=collection.test_epsilon)
    models = {
        BASE: base,
        ON_RANDOM: best("control"),
        ON_EXPLORED: best("explore"),
    }
    evaluation, upscaler = directory / "evaluation", directory / "upscaler"
    upscale = [
        learn(jobs.upscaler(config, data / "random", upscaler)),
        Stage(
            "upscaling",
            (evaluation / SCORES_FILE,),
            lambda: evaluate_upscaler(
                upscaler / "best", data / "test", evaluation, config.evaluation, alone, split="all"
            ),
        ),
    ]
    explorers = [explore(name, played) for name, played in config.exploration.agents(games).items()]
    explorers.append(play("control", control, explored_steps(config), seed + 1))
    return [
        *lane(
            "before exploring",
            "world model",
            play("random", Policy(name="random"), collection.random_steps, seed, large_frames=True),
            learn(jobs.tokenizer(config, data / "random", tokenizer)),
            learn(jobs.dynamics(config, data / "random", dynamics, tokenizer=tokenizer / "best")),
        ),
        *lane(
            "before exploring",
            "test agents",
            Stage("player", tuple(players / game / "module" / "policy.json" for game in games), train_players),
            play("test", player, collection.test_steps, seed + 2, large_frames=True),
        ),
        *(stage for number in range(LANES) for stage in lane(EXPLORING, str(number), *explorers[number::LANES])),
        *lane("fine-tuning", "explored", *explored(), *finetune("explore")),
        *lane("fine-tuning", "control", *finetune("control")),
        Stage(
            "evaluation",
            (evaluation / "evaluation.json",),
            lambda: evaluate(
                models,
                data / "test",
                evaluation,
                config.evaluation,
                alone,
                train_data=[data / name for name in ("random", "control", "explore")],
            ),
        ),
        *(upscale if collection.large_frame_every else []),
    ]


def lane(part: str, name: str, *stages: Stage) -> list[Stage]:
    """These stages, in a lane."""
    return [dataclasses.replace(stage, part=part, lane=name) for stage in stages]


def explored_steps(config: RunConfig) -> int:
    """Steps of explored play per game, so also of random play for comparison."""
    collection = config.collection
    steps = {"training": config.training_steps, "policy": collection.finetune_steps}
    return steps.get(collection.explore_from, sum(steps.values()))


def _name(output: StoredPath, directory: StoredPath) -> str:
    """A stage's name: its directory's, below the run's."""
    return "/".join(output.parts[len(directory.parts) :])


def _check(config: RunConfig, directory: StoredPath) -> None:
    """Refuses, before anything starts, what would fail later."""
    GenieReduxGConfig(tokenizer=config.tokenizer, dynamics=config.dynamics)  # an explorer needs a model of its actions
    require_games(config.games)
    (first, count), (test_first, test_count) = config.env.coinrun_levels, config.collection.test_levels
    if test_first < first + count and first < test_first + test_count:
        raise ValueError(
            f"collection.test_levels = [{test_first}, {test_count}]: must share no level with env.coinrun_levels = "
            f"[{first}, {count}]"
        )
    check_unchanged(directory, to_dict(config), free=("ray.",))
    for finetuned in (directory / "finetuned").glob("*/job.json"):
        if not (directory / DECODER / finetuned.parent.name / ADAPTED).exists():
            raise ValueError(
                f"{directory} holds a run of an earlier version, which did not tune the decoder: give another --out"
            )
    if isinstance(directory, Path):
        _check_disk(config, directory)


def _check_disk(config: RunConfig, directory: Path) -> None:
    existing = next(parent for parent in [directory, *directory.parents] if parent.exists())
    collection = config.collection
    frames = len(config.games) * (collection.random_steps + 2 * explored_steps(config) + collection.test_steps)
    needed, free = BYTES_RESERVED + frames * BYTES_PER_FRAME, shutil.disk_usage(existing).free
    if collection.large_frame_every:
        pictures = len(config.games) * (collection.random_steps + collection.test_steps) / collection.large_frame_every
        needed += int(pictures * BYTES_PER_LARGE_FRAME)
    if free < needed:
        raise ValueError(f"{existing} has {free / 1e9:.1f} GB free, this run may need {needed / 1e9:.1f} GB")
