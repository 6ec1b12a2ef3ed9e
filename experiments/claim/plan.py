"""What the comparison consists of: games, seeds and arms, read from a YAML file, and the checks that make it fair.

An arm is a way to get play to fine-tune on: a source (`random`, `explorer` or `player`, the test agents), for random
play how long actions are held, and changes of the base settings. Arms may change how is explored and rewarded, nothing
else: all have equal numbers of recorded steps, iterations and frames. Another kind of arm takes the play of a first
(`play_of`) and may change how the episodes are ranked in fine-tuning. A file with `like: OTHER.yaml` changes another
comparison: `base` in part; `games` and `arms` list which of its own are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_ray.base.files import parse_yaml, shown
from genie_ray.base.settings import build, check_unchanged, describe_changes, differences, keep_settings, merge, to_dict
from genie_ray.config import RunConfig
from genie_ray.envs.config import EnvConfig
from genie_ray.games.roms import require_games

SOURCES = ("random", "explorer", "player")
FREE_TO_ARMS = ("reward.", "exploration.")
FREE_TO_RANKED = ("finetune.ranking.",)
AT = 10
"""The predicted frame of the first measure."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to get play, for one game and seed."""

    name: str
    source: str
    hold: int = 1  # steps that random play holds each action
    play_of: str | None = None  # the arm whose play it takes
    config: RunConfig

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the arm's play and its model, as plain values."""
        config = to_dict(self.config)
        if self.source != "explorer":
            config = {key: value for key, value in config.items() if key not in ("exploration", "reward")}
        other = {"play_of": self.play_of} if self.play_of else {}
        return {"source": self.source, "hold": self.hold, **other, "config": config}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All arms of one game and seed."""

    game: str
    seed: int
    base: RunConfig
    test_env: EnvConfig  # of the test set
    arms: Mapping[str, Arm]

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the base model, the test agents, the test set and the scores, as plain values."""
        config = {key: value for key, value in to_dict(self.base).items() if key not in ("exploration", "reward")}
        return {"config": config, "test_env": to_dict(self.test_env)}

    def directory(self, out: Path) -> Path:
        """Where the game and seed are kept."""
        return out / self.game / f"seed-{self.seed}"

    def check_kept(self, out: Path) -> None:
        """Refuses results of other settings, of any arm.

        Raises:
            ValueError: one line that names what differs.
        """
        directory = self.directory(out)
        check_unchanged(directory, self.settings, free=("config.ray.",), what="a comparison")
        for arm in self.arms.values():
            check_unchanged(self.arm_directory(arm, out), arm.settings, free=("config.ray.",), what=f"{arm.name!r}")

    def keep(self, arms: Sequence[Arm], out: Path) -> None:
        """Saves the settings that these arms are made with."""
        kept = {self.directory(out): self.settings, **{self.arm_directory(arm, out): arm.settings for arm in arms}}
        for directory, settings in kept.items():
            if not (directory / "config.yaml").exists():
                keep_settings(directory, settings)

    def arm_directory(self, arm: Arm, out: Path) -> Path:
        """Where an arm is kept."""
        letters = "".join(letter if letter.isalnum() else "-" for letter in arm.name)
        return self.directory(out) / "arms" / "-".join(part for part in letters.split("-") if part)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole comparison."""

    claim: str  # the arm that is claimed to teach more
    compared_with: str  # than this one
    fixed: str  # when and how the settings were chosen, in words
    seeds: tuple[int, ...]  # of the file
    comparisons: tuple[Comparison, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms' names, in the file's order."""
        return tuple(self.comparisons[0].arms)

    def selected(self, games: Sequence[str], seeds: Sequence[int]) -> tuple[Comparison, ...]:
        """The comparisons of these games and seeds; none given: of all games, of the file's seeds.

        Raises:
            ValueError: an unknown game.
        """
        known = list(dict.fromkeys(each.game for each in self.comparisons))
        if unknown := sorted(set(games) - set(known)):
            raise ValueError(f"--game is {unknown[0]!r}; allowed: one of {', '.join(known)}")
        return tuple(
            each
            for each in self.comparisons
            if (not games or each.game in games) and each.seed in (seeds or self.seeds)
        )

    def chosen(self, only: Sequence[str]) -> tuple[str, ...]:
        """The arms to make: all, or those named, with random play, which the others are compared with.

        Raises:
            ValueError: an unknown arm.
        """
        if unknown := sorted(set(only) - set(self.arms)):
            raise ValueError(f"--only is {unknown[0]!r}; allowed: one of {_listed(self.arms)}")
        arms = self.comparisons[0].arms
        needed = {*only, *(arms[name].play_of for name in only)}
        needed |= {name for name, arm in arms.items() if arm.source == "random" and not arm.play_of}
        return tuple(name for name in arms if not only or name in needed)


def read_plan(path: Path, *, tiny: bool = False, seeds: Sequence[int] = ()) -> Plan:
    """Reads the file; for the tiny comparison its section `tiny` changes the rest.

    Args:
        seeds: further ones.

    Raises:
        ValueError: one line; what is missing or unknown, or makes the comparison unfair.
    """
    described = _described(path)
    needed = ("seeds", "claim", "compared_with", "fixed", "base", "games", "arms", "tiny")
    if missing := [key for key in needed if key not in described]:
        raise ValueError(f"{path} has no {missing[0]!r}; needed: {', '.join(needed)}")
    for key in ("base", "games", "arms", "tiny"):
        if not isinstance(described[key], dict):
            raise ValueError(f"{key} in {path} is {shown(described[key])}; needed: a mapping")
    for name, arm in described["arms"].items():
        if not isinstance(arm, dict) or not {"source", "play_of"} & arm.keys():
            raise ValueError(f"arm {name!r} in {path} is {shown(arm)}; needed: a mapping with source or play_of")
    if not isinstance(described["seeds"], list) or not all(isinstance(seed, int) for seed in described["seeds"]):
        raise ValueError(f"seeds in {path} are {shown(described['seeds'])}; needed: a list of integers")
    if tiny:
        described = _changed(described, described["tiny"], path)
    for key in ("claim", "compared_with"):
        if described[key] not in described["arms"]:
            raise ValueError(f"{path}: {key} is {described[key]!r}; allowed: one of {_listed(described['arms'])}")
    if described["arms"][described["compared_with"]].get("source") != "random":
        raise ValueError(f"{path}: compared_with is {described['compared_with']!r}; allowed: an arm of random play")
    return Plan(
        claim=described["claim"],
        compared_with=described["compared_with"],
        fixed=described["fixed"],
        seeds=tuple(described["seeds"]),
        comparisons=tuple(
            _comparison(described, game, entry or {}, seed)
            for game, entry in described["games"].items()
            for seed in dict.fromkeys([*described["seeds"], *seeds])
        ),
    )


def plan_files(path: Path) -> list[Path]:
    """The file, and the one whose comparison it changes (`like`), if it names one."""
    described = parse_yaml(path.read_bytes())
    like = described.get("like") if isinstance(described, dict) else None
    return [path, path.parent / like] if isinstance(like, str) else [path]


def _described(path: Path) -> dict[str, Any]:
    """What a file says, with what it takes over from another."""
    described = parse_yaml(path.read_bytes())
    if not isinstance(described, dict):
        raise ValueError(f"{path} is {shown(described)}; needed: a mapping")
    files = plan_files(path)
    if len(files) == 1:
        return described
    if len(plan_files(files[1])) > 1:
        raise ValueError(f"like in {path} is {described['like']!r}, which changes another file itself")
    other = _described(files[1])
    for key in ("base", "games", "arms"):
        if not isinstance(other.get(key), dict):
            raise ValueError(f"{key} in {files[1]} is {shown(other.get(key))}; needed: a mapping")
    return _changed(other, {key: value for key, value in described.items() if key != "like"}, path)


def _changed(described: Mapping[str, Any], changes: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Another comparison: of the games and arms that are named, with a changed base."""
    if not isinstance(changes.get("base", {}), dict):
        raise ValueError(f"base in {path} is {shown(changes['base'])}; needed: a mapping")
    changed = {**described, **changes, "base": merge(described["base"], changes.get("base", {}))}
    for key in ("games", "arms"):
        names = changes.get(key, list(described[key]))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{key} in {path} are {shown(names)}; needed: a list of names")
        if unknown := sorted(set(names) - set(described[key])):
            raise ValueError(f"{key} in {path}: {unknown[0]!r} is not there; allowed: {_listed(described[key])}")
        changed[key] = {name: described[key][name] for name in names}
    return changed


def _comparison(described: Mapping[str, Any], game: str, entry: Mapping[str, Any], seed: int) -> Comparison:
    values = merge(merge(described["base"], entry.get("base", {})), {"games": [game], "seed": seed})
    base = build(RunConfig, values)
    if base.evaluation.predicted_frames < AT:
        raise ValueError(f"evaluation.predicted_frames = {base.evaluation.predicted_frames}: must be at least {AT}")
    test_env = build(EnvConfig, merge(to_dict(base.env), entry.get("test_env", {})))
    arms = {name: _arm(name, described["arms"], values, base) for name in described["arms"]}
    return Comparison(game=game, seed=seed, base=base, test_env=test_env, arms=arms)


def _arm(name: str, arms: Mapping[str, Any], values: Mapping[str, Any], base: RunConfig) -> Arm:
    described, free, play_of = arms[name], FREE_TO_ARMS, arms[name].get("play_of")
    if play_of is not None:
        if "source" not in arms.get(play_of, {}):
            own = _listed(other for other, arm in arms.items() if "source" in arm)
            raise ValueError(f"play_of of {name!r} is {play_of!r}; allowed: one of {own}")
        first, free = arms[play_of], FREE_TO_RANKED
        base = build(RunConfig, merge(values, first.get("changes", {})))
        changes = merge(first.get("changes", {}), described["changes"])
        described = {**first, "changes": changes}
    if described["source"] not in SOURCES:
        raise ValueError(f"source of {name!r} is {described['source']!r}; allowed: one of {', '.join(SOURCES)}")
    config = build(RunConfig, merge(values, described.get("changes", {})))
    changed = [line for line in differences(to_dict(base), to_dict(config)) if not line.startswith(free)]
    if changed:
        allowed = ", ".join(key.rstrip(".") for key in free)
        raise ValueError(f"{name!r} changes {describe_changes(changed)}; allowed: {allowed}")
    steps = config.training_steps
    if described["source"] == "explorer" and steps != config.collection.finetune_steps:
        raise ValueError(
            f"{name!r} explores for {steps} steps: must be collection.finetune_steps = "
            f"{config.collection.finetune_steps}, as in all arms"
        )
    return Arm(name=name, source=described["source"], hold=described.get("hold", 1), play_of=play_of, config=config)


def _listed(names: Iterable[str]) -> str:
    """Names for a message, quoted because some hold a comma."""
    return ", ".join(map(repr, names))


def check_plan(plan: Plan, chosen: Sequence[Comparison], out: Path) -> None:
    """Refuses, before anything starts, what would fail later.

    Raises:
        ValueError: a chosen game or its ROM is missing, or the directory holds results of other settings.
    """
    require_games(list(dict.fromkeys(comparison.game for comparison in chosen)))
    for comparison in plan.comparisons:
        comparison.check_kept(out)
