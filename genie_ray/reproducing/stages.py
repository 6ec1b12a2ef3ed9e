"""How each kind of job is made: by the functions that the commands call. All of them continue what was interrupted.

A job's directory holds `recipe.json`, what it is; `result/`, what it made; at the end `made.json`, how long it took.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genie_ray.base.files import write_atomically
from genie_ray.base.progress import console
from genie_ray.collecting.collection import collect
from genie_ray.collecting.plan import Policy
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import COPY, LATENT_ACTIONS, TOKENIZER
from genie_ray.exploring.explorers import train_explorers
from genie_ray.exploring.recorder import PLAY
from genie_ray.playing.players import CHECK_FILE, check_against_chance, train_player
from genie_ray.replay.coverage import Seen, seen
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.gather import gather
from genie_ray.reproducing.description import MODELS, TOKENIZERS
from genie_ray.reproducing.graph import EVALUATION, Job, origin
from genie_ray.reproducing.pictures import DRAWERS
from genie_ray.training import jobs
from genie_ray.training.decoding import save_with_tokenizer
from genie_ray.training.train import train

RECIPE_FILE, MADE_FILE, LOCK_FILE, RESULT = "recipe.json", "made.json", "lock", "result"
MODEL = "model"
"""A row's label in its evaluation."""
Inputs = Mapping[str, Path]
"""Role → the input's artefact."""


def directory_of(job: Job, out: Path) -> Path:
    """Where a job is kept, under whichever name it was made first."""
    short = job.identity[:12]
    found = sorted((out / "jobs").glob(f"*-{short}"))
    return found[0] if found else out / "jobs" / f"{job.slug}-{short}"


def is_made(job: Job, out: Path) -> bool:
    """Whether a job's result is there and complete."""
    return (directory_of(job, out) / MADE_FILE).exists()


def artefact(job: Job, out: Path) -> Path:
    """What a job leaves for those that need it: a dataset's directory, a checkpoint, or that of agents."""
    result = directory_of(job, out) / RESULT
    return result / "best" if job.kind in (*MODELS, *TOKENIZERS) and job.kind != "adapted" else result


def make(job: Job, out: Path) -> None:
    """Makes a job whose inputs are made, or goes on with it, unless another command has made it. Needs a running Ray.

    While another command makes it, waits.

    Raises:
        ValueError: see the functions of the stages.
    """
    (out / "jobs").mkdir(parents=True, exist_ok=True)
    with _alone(out / "jobs"):  # two tables may have two names for one job
        directory = directory_of(job, out)
        directory.mkdir(exist_ok=True)
    with _alone(directory):
        if is_made(job, out):
            return
        _write(directory / RECIPE_FILE, {"name": job.name, **job.recipe})
        begin = time.monotonic()
        inputs = {role: artefact(other, out) for role, other in job.inputs.items()}
        MAKERS[job.kind](job, directory / RESULT, inputs)
        _write(directory / MADE_FILE, {"seconds": time.monotonic() - begin})


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keeps other commands from the same job; the lock ends with its process, however that ends."""
    with (directory / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"another command is making {directory.name}: waiting for it", soft_wrap=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scores_of(job: Job, out: Path, *, scored: str) -> dict[str, Any]:
    """The scores of a made evaluation over all games: of the model, or of a part of it alone; and of copying."""
    document = json.loads((artefact(job, out) / "evaluation.json").read_text())["models"]
    label = {"model": MODEL, "tokenizer": TOKENIZER, "latent_actions": LATENT_ACTIONS}[scored]
    return {"row": document[label]["all"], "copy": document[COPY]["all"]}


def checks_of(job: Job, out: Path) -> dict[str, dict[str, Any]]:
    """Game → whether a test agent is better than chance, of made test agents."""
    result = artefact(job, out)
    return {game: json.loads((result / game / CHECK_FILE).read_text()) for game in job.settings["games"]}


def seen_in(job: Job, out: Path, steps: int) -> Seen:
    """What the first steps of a made play have shown; counted once."""
    path = directory_of(job, out) / f"seen-{steps}.json"
    if not path.exists():
        dataset = ReplayDataset(artefact(job, out))
        _write(path, asdict(seen(map(dataset.read, dataset.episodes), steps)))
    return Seen(**json.loads(path.read_text()))


def _play(job: Job, output: Path, inputs: Inputs) -> None:
    settings = job.settings
    ((unit, amount),) = settings["amount"].items()
    policy = Policy(
        name=settings["policy"],
        directory=inputs.get("by"),
        epsilon=settings["epsilon"],
        temperature=settings["temperature"],
        hold=settings["hold"],
    )
    config, games = job.config, settings["games"]
    collect(output, policy, games, amount, config.collection, config.env, unit=unit, seed=settings["seed"])


def _player(job: Job, output: Path, inputs: Inputs) -> None:
    config, seed = job.config, job.settings["seed"]
    for game in job.settings["games"]:
        train_player(output / game, game, config.player, config.env, config.ray, seed=seed)
        check_against_chance(output / game, game, config.player, config.env, seed=seed)


def _explorer(job: Job, output: Path, inputs: Inputs) -> None:
    for _ in train_explorers(output, job.settings["games"], inputs["judge"], job.config):
        pass


def _found(job: Job, output: Path, inputs: Inputs) -> None:
    explorer = job.inputs["by"]
    agents = explorer.config.exploration.agents(explorer.settings["games"])
    gather(output, [inputs["by"] / name / PLAY for name in agents], policy=explorer.kind)


def _gathered(job: Job, output: Path, inputs: Inputs) -> None:
    first = next(iter(job.inputs.values()))
    gather(output, list(inputs.values()), policy=str(first.settings.get("policy", "explorer")))


def _tokenizer(job: Job, output: Path, inputs: Inputs) -> None:
    train(jobs.tokenizer(job.config, inputs["data"], output, init=inputs.get("init")), job.config.ray)


def _decoder(job: Job, output: Path, inputs: Inputs) -> None:
    train(jobs.decoder(job.config, inputs["data"], output, tokenizer=inputs["tokenizer"]), job.config.ray)


def _dynamics(job: Job, output: Path, inputs: Inputs) -> None:
    kind: jobs.WorldModelKind = "genie_redux" if job.kind == "genie_redux" else "dynamics"
    made = jobs.dynamics(job.config, inputs["data"], output, tokenizer=inputs["tokenizer"], kind=kind)
    train(made, job.config.ray)


def _finetune(job: Job, output: Path, inputs: Inputs) -> None:
    made = jobs.finetuning(
        job.config.finetune,
        inputs["data"],
        output,
        init=inputs["init"],
        seed=job.settings["seed"],
        tokenizer=inputs.get("tokenizer"),
        kind="genie_redux" if origin(job).kind == "genie_redux" else "dynamics",
        changes={name: _as_given(value) for name, value in job.settings["dynamics"].items()},
    )
    train(made, job.config.ray)


def _adapted(job: Job, output: Path, inputs: Inputs) -> None:
    if not output.exists():
        save_with_tokenizer(output, inputs["model"], inputs["tokenizer"])


def _evaluation(job: Job, output: Path, inputs: Inputs) -> None:
    evaluate({MODEL: inputs["model"]}, inputs["test"], output, job.config.evaluation, job.config.ray)


def _picture(job: Job, output: Path, inputs: Inputs) -> None:
    draw, _ = DRAWERS[job.kind]
    draw(output, inputs["model"], inputs["test"], job.config.evaluation)


def _as_given(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _write(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=1)
    write_atomically(path, lambda temporary: temporary.write_text(text))


MAKERS: Mapping[str, Callable[[Job, Path, Inputs], None]] = {
    "play": _play,
    "player": _player,
    "explorer": _explorer,
    "found": _found,
    "gathered": _gathered,
    "tokenizer": _tokenizer,
    "decoder": _decoder,
    "dynamics": _dynamics,
    "genie_redux": _dynamics,
    "finetune": _finetune,
    "adapted": _adapted,
    EVALUATION: _evaluation,
    **dict.fromkeys(DRAWERS, _picture),
}
