"""Started again with other settings, every command refuses, says what differs, and touches nothing; none starts Ray.

Trainings of the world model are in training/test_job.py too, `run` in test_cli.py, `collect` in
collecting/test_collection.py, and what is in experiments/ in tests/experiments.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genie_ray.base.session import RayConfig
from genie_ray.base.settings import keep_settings, to_dict
from genie_ray.collecting.collection import PLAN_FILE, collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Collection, Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.exploring.exploration import exploration_epochs, settings_of
from genie_ray.playing import players
from genie_ray.playing.config import PlayerConfig
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.http import serving
from genie_ray.rewards.http.api import HttpConfig
from genie_ray.sweeping.config import SweepConfig, TrialConfig
from genie_ray.sweeping.run import SWEEP_FILE, run_sweep
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig
from genie_ray.training.job import TrainingJob, begin
from tests.genie_ray.tiny_world import SIZE, guided_model, tiny_dataset, unguided_model
from world_model import checkpoint

GAME = "Kangaroo-Atari2600-v0"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: Any, **more: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", started)


@pytest.fixture
def world_model(tmp_path: Path) -> Path:
    checkpoint.save(guided_model(), tmp_path / "model", provenance={})
    return tmp_path / "model"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


RECIPE = RecipeConfig(seed=3)
JOBS: dict[str, tuple[Callable[[RecipeConfig, Path, Path, Path], TrainingJob], str]] = {
    "tokenizer": (lambda recipe, data, out, model: jobs.tokenizer(recipe, data, out), "train_tokenizer"),
    "decoder": (lambda recipe, data, out, model: jobs.decoder(recipe, data, out, tokenizer=model), "tune_decoder"),
    "dynamics": (lambda recipe, data, out, model: jobs.dynamics(recipe, data, out, tokenizer=model), "train_dynamics"),
    "genie_redux": (
        lambda recipe, data, out, model: jobs.dynamics(recipe, data, out, tokenizer=model, kind="genie_redux"),
        "train_dynamics",
    ),
    "fine-tuning": (
        lambda recipe, data, out, model: jobs.finetuning(recipe.finetune, data, out, init=model, seed=recipe.seed),
        "finetune",
    ),
    "upscaler": (lambda recipe, data, out, model: jobs.upscaler(recipe, data, out), "train_upscaler"),
}


@pytest.mark.parametrize("kind", JOBS)
def test_a_training_of_each_part(kind: str, world_model: Path, tmp_path: Path) -> None:
    make, section = JOBS[kind]
    data, other, out = tiny_dataset(tmp_path / "data").root, tiny_dataset(tmp_path / "other", (9,)).root, tmp_path / "o"
    begin(make(RECIPE, data, out, world_model))
    before, training = contents(out), getattr(RECIPE, section)
    faster = dataclasses.replace(RECIPE, **{section: dataclasses.replace(training, learning_rate=0.5)})
    checkpoint.save(unguided_model(), tmp_path / "another", provenance={})
    changed = [
        (make(faster, data, out, world_model), rf"config\.learning_rate: {training.learning_rate} → 0\.5"),
        (make(dataclasses.replace(RECIPE, seed=4), data, out, world_model), "seed: 3 → 4"),
        (make(RECIPE, other, out, world_model), r"dataset: '\w{64}' → '\w{64}'"),
    ]
    if kind not in ("tokenizer", "upscaler"):
        changed.append((make(RECIPE, data, out, tmp_path / "another"), r"(tokenizer|init): '\w{64}' → '\w{64}'"))
    other_kind = "tokenizer" if kind == "upscaler" else "upscaler"
    changed.append((JOBS[other_kind][0](RECIPE, data, out, world_model), "holds a training with other settings"))
    for job, message in changed:
        with pytest.raises(ValueError, match=message):
            begin(job)
    assert contents(out) == before


def test_collect(roms: list[str], tmp_path: Path) -> None:
    begun = Collection(
        output=tmp_path,
        policy=Policy(name="random"),
        games=(GAME,),
        per_game=600,
        unit="steps",
        config=CollectionConfig(),
        env=EnvConfig(),
        seed=0,
    )
    (tmp_path / PLAN_FILE).write_text(json.dumps(begun.plan))
    before = contents(tmp_path)
    for policy, steps, env, message in (
        (Policy(name="random"), 700, EnvConfig(), "steps_per_game: 600 → 700"),
        (Policy(name="held", hold=4), 600, EnvConfig(), "hold: None → 4"),
        (Policy(name="random"), 600, EnvConfig(frame_skip=2), r"env\.frame_skip: 4 → 2"),
    ):
        with pytest.raises(ValueError, match=rf"holds another collection \(.*{message}.*give another directory"):
            collect(tmp_path, policy, [GAME], steps, CollectionConfig(), env)
    assert contents(tmp_path) == before


def test_explore(tmp_path: Path) -> None:
    run = ExplorersConfig()
    keep_settings(tmp_path, settings_of([GAME], run, None, None))
    before = contents(tmp_path)
    for changed, message in (
        (dataclasses.replace(run, seed=1), "seed: 0 → 1"),
        (dataclasses.replace(run, env=EnvConfig(fit="stretch")), r"env\.fit: 'pad' → 'stretch'"),
    ):
        with pytest.raises(ValueError, match=rf"holds a run with other settings \({message}\)"):
            next(exploration_epochs(tmp_path, [GAME], lambda: None, changed))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"other settings \(games: "):
        next(exploration_epochs(tmp_path, ["Hero-Atari2600-v0"], lambda: None, run))  # type: ignore[arg-type, return-value]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["ppo", "agent57", "r2d2"])
def test_train_player(kind: Any, tmp_path: Path) -> None:
    config, env = PlayerConfig(kind=kind), EnvConfig()
    keep_settings(tmp_path, {"game": GAME, "seed": 0, "env": to_dict(env), "player": players.settings_of(config)})
    before = contents(tmp_path)
    other: Any = "agent57" if kind == "ppo" else "ppo"
    for changed, seed, message in (
        (config, 1, "seed: 0 → 1"),
        (dataclasses.replace(config, iterations=7), 0, r"player\.iterations: 1000 → 7"),
        (dataclasses.replace(config, kind=other), 0, r"player\."),
    ):
        with pytest.raises(ValueError, match=rf"holds a test agent with other settings \(.*{message}"):
            players.train_player(tmp_path, GAME, changed, env, RayConfig(), seed=seed)
    assert contents(tmp_path) == before


def test_the_check_of_a_player(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An answer that is there already is no answer to another question."""
    (tmp_path / players.CHECK_FILE).write_text("{}")
    asked: list[tuple[str, int, float]] = []

    def collected(output: Path, policy: Policy, games: Any, episodes: int, *arguments: Any, **more: Any) -> Path:
        asked.append((output.name, episodes, policy.epsilon))
        return output

    monkeypatch.setattr(players, "collect", collected)
    config = PlayerConfig(check_episodes=5, check_epsilon=0.5)
    assert players.check_against_chance(tmp_path, GAME, config, EnvConfig()) == {}
    assert asked == [("agent", 5, 0.5), ("chance", 5, 0.0)]  # which refuses, if other play is there


def test_sweep(roms: list[str], world_model: Path, tmp_path: Path) -> None:
    run = TrialConfig(games=(GAME,), env=EnvConfig(frame_size=SIZE))
    run = dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, prime_frames=2, predicted_frames=4))
    config = SweepConfig(world_model=str(world_model), parameters={"reward.top_k_fraction": [0.5]}, run=run)
    digest = checkpoint.read_description(world_model)["weights_sha256"]
    out = tmp_path / "out"
    keep_settings(out, to_dict(config) | {"world_model_sha256": digest}, file=SWEEP_FILE)
    before = contents(out)
    for changed, message in (
        (dataclasses.replace(config, samples=2), "samples: 1 → 2"),
        (dataclasses.replace(config, run=dataclasses.replace(run, seed=4)), r"run\.seed: 0 → 4"),
        (
            dataclasses.replace(config, parameters={"reward.top_k_fraction": [0.5, 1.0]}),
            r"parameters\.reward\.top_k_fraction: ",
        ),
    ):
        with pytest.raises(ValueError, match=rf"holds a sweep with other settings \({message}"):
            run_sweep(changed, out)
    assert contents(out) == before


def test_serve_rewards(world_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(serving, "check_cluster", lambda config: None)
    version, state = serving.describe_checkpoint(world_model)["version"], tmp_path / "state"
    keep_settings(state, {"world_model": version, "reward": to_dict(RewardConfig(kind="rf"))})
    before = contents(state)
    with (
        pytest.raises(ValueError, match=r"a reward's memory with other settings \(reward.kind: 'rf' → 'vae'\)"),
        serving.http_service(world_model, RewardConfig(kind="vae"), HttpConfig(), state=state),
    ):
        pass
    assert contents(state) == before
