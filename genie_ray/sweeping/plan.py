"""The trials of a sweep, planned before the first one starts."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genie_ray.base.settings import build, load_values, merge, to_dict
from genie_ray.sweeping.config import SweepConfig, TrialConfig


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a sweep."""

    number: int
    parameters: dict[str, Any]  # dotted key → value
    run: TrialConfig

    @property
    def label(self) -> str:
        """The parameters, abbreviated."""
        names = short_names(self.parameters)
        return ", ".join(f"{names[key]} {short_value(value)}" for key, value in self.parameters.items())

    @property
    def epochs(self) -> int:
        """Epochs of all its agents, which are trained one after another."""
        return self.run.exploration.epochs * len(self.run.exploration.agents(self.run.games))

    @property
    def steps_per_epoch(self) -> int:
        """Environment steps of an epoch, over all environments."""
        return self.run.exploration.epoch_steps


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Reads a sweep and applies overrides, as in `run.exploration.epochs=50` or `samples=3`.

    Raises:
        ValueError: one line that names the wrong key or value.
    """
    values = load_values(path, overrides)
    for key in ("world_model", "parameters"):
        if key not in values:
            raise ValueError(f"{path}: {key} is missing")
    return build(SweepConfig, values)


def plan_trials(config: SweepConfig) -> list[Trial]:
    """All trials of a sweep, the same whenever it is called.

    Raises:
        ValueError: a trial's settings are invalid.
    """
    rng = np.random.default_rng(config.seed)
    lists = {key: values for key, values in config.parameters.items() if isinstance(values, list)}
    base = to_dict(config.run)
    trials: list[Trial] = []
    for point in itertools.product(*lists.values()):
        for sample in range(config.samples):
            chosen = dict(zip(lists, point, strict=True))
            parameters = {
                key: chosen[key] if key in chosen else _draw(values, rng) for key, values in config.parameters.items()
            }
            settings = merge(base, {"seed": config.run.seed + sample})
            for key, value in parameters.items():
                settings = merge(settings, _nested(key, value))
            number = len(trials)
            try:
                run = build(TrialConfig, settings)
            except ValueError as error:
                raise ValueError(f"trial {number}: {error}") from None
            trials.append(Trial(number=number, parameters=parameters, run=run))
    return trials


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted key → its last part, or the whole key if several have the same last part."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def short_value(value: Any) -> str:
    """A parameter's value in few characters."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={short_value(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _draw(values: Mapping[str, Any], rng: np.random.Generator) -> float | int:
    """A value drawn from a range; if both ends are whole numbers, a whole number, with both ends included."""
    low, high = values["low"], values["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    if values.get("log"):
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return round(value) if whole else value
    return int(rng.integers(low, high, endpoint=True)) if whole else float(rng.uniform(low, high))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key and its value as nested settings."""
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}
