"""From a table's file to jobs with all their settings, for one scale and seed.

A job's identity is a hash of what determines its result: its kind, its settings, and the identities of its inputs. So
two rows, or two tables, that need the same thing need one job. What is only a matter of speed or logging is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genie_ray.base.seeding import seed_of
from genie_ray.base.settings import build, load_values, merge, to_dict
from genie_ray.config import RunConfig
from genie_ray.playing.players import settings_of
from genie_ray.reproducing.description import EACH, JobText, PictureText, RowText, ScaleText, TableText
from genie_ray.training.config import TrainingConfig, check_batch_size
from world_model.dynamics import FREE_AFTER_TRAINING

EVALUATION = "evaluation"
"""The kind of the job that every row ends with."""
UNTOLD = ("compile", "checkpoint_activations", "log_every", "checkpoint_every")
"""Settings of a training that change its speed, memory or log, not its result."""
TRAINED_BY = {
    "tokenizer": "train_tokenizer",
    "decoder": "tune_decoder",
    "dynamics": "train_dynamics",
    "genie_redux": "train_dynamics",
    "finetune": "finetune",
}
"""The section of settings that a kind is trained by."""


BUILT_OF = {"tokenizer": ("tokenizer",), "dynamics": ("dynamics",), "genie_redux": ("dynamics", "latent_actions")}
"""The sections of settings that a kind's new parts are built by."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something to make, with all that determines it.

    Attributes:
        name: the file's, for people; no part of the identity.
        settings: what determines the result, besides the inputs, as plain values.
        config: all settings, to make it with; `games` and `seed` are this job's.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    config: RunConfig = field(repr=False)
    inputs: Mapping[str, Job] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """SHA-256 of what determines the result."""
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()

    @property
    def recipe(self) -> dict[str, Any]:
        """What determines the result, as plain JSON; inputs by their identities."""
        inputs = {role: job.identity for role, job in self.inputs.items()}
        return {"kind": self.kind, "settings": dict(self.settings), "inputs": inputs}

    @cached_property
    def expanded(self) -> dict[str, Any]:
        """The same with every input's in its place: `model.data.policy` is who played what the model learned from."""
        return {"kind": self.kind, **self.settings, **{role: job.expanded for role, job in self.inputs.items()}}

    @property
    def slug(self) -> str:
        """The name as a part of a file's."""
        return re.sub(r"\W+", "-", self.name).strip("-").lower()[:48] or self.kind

    def chain(self) -> Iterator[Job]:
        """All jobs that this one needs, and itself, each after those that it needs itself; some come twice."""
        for job in self.inputs.values():
            yield from job.chain()
        yield self


class Graph:
    """The jobs of a table, for one scale and seed.

    Args:
        games: a set's names → ids of the games.
        overrides: settings laid over the file's; those of a single job or row still count, so labels stay true.

    Raises:
        ValueError: settings that are unknown, impossible or without effect.
    """

    def __init__(
        self,
        table: TableText,
        scale: ScaleText,
        seed: int,
        *,
        directory: Path,
        games: Callable[[Sequence[str]], tuple[str, ...]],
        overrides: Mapping[str, Any],
    ) -> None:
        self._table, self._scale, self._seed, self._games = table, scale, seed, games
        presets = [directory / preset for preset in table.presets]
        base = merge(load_values(presets), table.settings)
        base = merge(base, load_values([directory / preset for preset in scale.presets]))
        self._base = merge(merge(base, scale.settings), overrides)
        self._parts = {
            name: merge(load_values([directory / preset for preset in part.get("presets", ())]), _settings_of(part))
            for name, part in scale.parts.items()
        }
        self._made: dict[tuple[str, str | None], Job] = {}

    def games_of(self, name: str, game: str | None) -> tuple[str, ...]:
        """The games of a set, or the one game of a section.

        Raises:
            ValueError: the scale has no such set.
        """
        if name == EACH:
            if game is None:
                raise ValueError("games is 'each': only in a table with `each`")
            return (game,)
        if name not in self._scale.games:
            raise ValueError(f"games is {name!r}: the scale has {', '.join(self._scale.games)}")
        return self._games(self._scale.games[name])

    def shown(self, text: RowText | PictureText, game: str | None) -> Job:
        """The evaluation that a row is made of, or the drawing of a picture."""
        config = self._config(text.settings, {"evaluation": {"published_figures": None}, "seed": self._seed})
        model, test = self.job(text.model, game), self.job(text.test, game)
        longest = model_settings(model)["max_frames"]
        try:
            config.evaluation.require_horizon(longest, f"the model of {text.label!r}")
            require_length(test, config.evaluation.window, "evaluation.prime_frames + predicted_frames")
        except ValueError as error:
            raise ValueError(f"{text.label!r}: {error}") from None
        kind = EVALUATION if isinstance(text, RowText) else text.kind
        settings = {"evaluation": to_dict(config.evaluation)}
        return Job(name=text.label, kind=kind, settings=settings, config=config, inputs={"model": model, "test": test})

    def job(self, name: str, game: str | None) -> Job:
        """A job of the file; those that do not depend on the game are the same for all."""
        if (name, game) not in self._made:
            try:
                self._made[name, game] = self._build(name, self._table.jobs[name], game)
            except ValueError as error:
                text = str(error)
                raise ValueError(text if text.startswith("jobs.") else f"jobs.{name}: {text}") from None
        return self._made[name, game]

    def _build(self, name: str, text: JobText, game: str | None) -> Job:
        if text.kind == "gathered":
            inputs = {one: self.job(str(text.of), one) for one in self.games_of(str(text.games), game)}
        else:
            inputs = {role: self.job(other, game) for role, other in text.inputs.items()}
        seed = self._seed if text.seed is None else text.seed
        more: dict[str, Any] = {"seed": seed}
        if text.kind == "genie_redux":
            more["dynamics"] = {"conditioning": "latent"}  # as `genie-ray train genie-redux` does
        if text.games is not None:
            more["games"] = list(self.games_of(text.games, game))
        config = self._config(self._parts.get(text.part or "", {}), text.settings, more)
        settings = self._settings(text, config, inputs)
        if text.kind in TRAINED_BY:
            training: TrainingConfig = getattr(config, TRAINED_BY[text.kind])
            check_batch_size(training, config.ray.train_workers)
            require_length(inputs["data"], training.window, f"{TRAINED_BY[text.kind]}.window")
        return Job(name=name, kind=text.kind, settings=settings, config=config, inputs=inputs)

    def _config(self, *changes: Mapping[str, Any]) -> RunConfig:
        values = self._base
        for change in changes:
            values = merge(values, change)
        return build(RunConfig, values)

    def _settings(self, text: JobText, config: RunConfig, inputs: Mapping[str, Job]) -> dict[str, Any]:
        """What determines a job's result besides its inputs."""
        kind, seed = text.kind, {"seed": config.seed}
        if kind == "play":
            return self._play(text, config)
        if kind == "player":
            return {
                "games": list(config.games),
                "player": {"kind": config.player.kind} | settings_of(config.player),
                "env": to_dict(config.env),
            } | seed
        if kind == "explorer":
            parts = {name: to_dict(getattr(config, name)) for name in ("env", "reward", "exploration")}
            return {"games": list(config.games), **parts} | seed
        if kind == "finetune":
            return {"dynamics": changed(text, inputs["init"]), **trained(config, kind)} | seed
        if kind in ("found", "adapted"):
            return {}
        if kind == "gathered":
            return {"games": list(config.games)}
        built = () if "init" in inputs else BUILT_OF.get(kind, ())
        return {name: to_dict(getattr(config, name)) for name in built} | trained(config, kind) | seed

    def _play(self, text: JobText, config: RunConfig) -> dict[str, Any]:
        assert text.amount is not None
        assert text.purpose is not None
        if text.amount not in self._scale.amounts:
            raise ValueError(f"amount is {text.amount!r}: the scale has {', '.join(self._scale.amounts)}")
        by = text.by and self._table.jobs[text.by].kind
        return {
            "policy": by or ("random" if text.hold == 1 else "held"),
            "hold": text.hold,
            "epsilon": text.epsilon,
            "temperature": text.temperature,
            "games": list(config.games),
            "amount": dict(self._scale.amounts[text.amount]),
            "steps_per_shard": config.collection.steps_per_shard,
            "env": to_dict(config.env),
            "purpose": text.purpose,
            "seed": seed_of(config.seed, text.purpose),
        }


def require_length(play: Job, window: int, name: str) -> None:
    """Requires that episodes of play may be as long as a window.

    Raises:
        ValueError: they may not.
    """
    while "env" not in play.settings:  # made of other play, or found by an explorer
        play = next(iter(play.inputs.values()))
    frames = play.settings["env"]["max_episode_steps"] + 1
    if window > frames:
        raise ValueError(f"{name} is {window}: must be at most {frames}, the frames of the longest episode")


def _settings_of(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "presets"}


def trained(config: RunConfig, kind: str) -> dict[str, Any]:
    """How a kind is trained: the section's name and its settings that matter."""
    section = TRAINED_BY[kind]
    training: TrainingConfig = getattr(config, section)
    return {section: {key: value for key, value in to_dict(training).items() if key not in UNTOLD}}


def origin(model: Job) -> Job:
    """The model from scratch that a model was fine-tuned or adapted from, or itself."""
    while model.kind in ("finetune", "adapted"):
        model = model.inputs.get("init") or model.inputs["model"]
    return model


def model_settings(model: Job) -> dict[str, Any]:
    """The dynamics' settings of a model."""
    return model.settings["dynamics"] if "dynamics" in model.settings else model_settings(model.inputs["model"])


def changed(text: JobText, init: Job) -> dict[str, Any]:
    """The dynamics' settings after a fine-tuning: the model's, with those that the job itself gives.

    Raises:
        ValueError: one of these shapes weights or what inputs mean.
    """
    own, given = model_settings(init), text.settings.get("dynamics", {})
    for name, value in given.items():
        if name not in own:
            raise ValueError(f"settings.dynamics.{name}: there is no such setting")
        if value != own[name] and name not in FREE_AFTER_TRAINING:
            raise ValueError(
                f"settings.dynamics.{name} is {value!r}: must be {own[name]!r}, as in the model; a fine-tuning may "
                f"change {', '.join(FREE_AFTER_TRAINING)}"
            )
    return own | given
