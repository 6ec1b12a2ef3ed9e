"""One typed description of a run: every part's own config, composed, read from YAML and overridden by key=value.

A preset under experiments/ lists only what differs from the defaults, which are the paper's, or ours where those
measured better (each config's comments name their source). What cannot work is refused here, before anything starts.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from genie_ray.base.session import RayConfig
from genie_ray.collecting.collection import CollectionConfig
from genie_ray.envs.retro import EnvConfig
from genie_ray.evaluating.evaluation import EvaluationConfig
from genie_ray.exploring.exploration import ExplorationConfig
from genie_ray.games.actions import action_names
from genie_ray.playing.players import PlayerConfig
from genie_ray.rewards.config import RewardConfig
from genie_ray.training.train import TrainingConfig
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxConfig, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.tokenizer import TokenizerConfig
from world_model.upscaler import UpscalerConfig

PAPERS_UPSCALER_TRAINING = TrainingConfig(
    batch_size=128,
    iterations=150_000,  # paper: 300 epochs; ours: of 64,000 pictures
    learning_rate=1e-4,
    schedule="step",
    step_iterations=12_500,  # 25 epochs
    step_factor=0.5,
    warmup_iterations=0,
    betas=(0.9, 0.999),  # Adam's own
    weight_decay=0.0,
    clip_norm=math.inf,
)
"""Paper, supplement: Adam, rate 1e-4, StepLR(25 epochs, 0.5), batch 128, 300 epochs."""

SETTINGS_FILE = "config.yaml"
"""Where a directory keeps the settings that it was begun with."""

LIMITS = ("clip_norm", "gradient_norm", "rho_clip")
"""Settings that may be infinite, which switches them off."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that one exploration loop needs to know."""

    games: tuple[str, ...] = ("Kangaroo-Atari2600-v0", "Hero-Atari2600-v0")  # ids, or what envs/catalog.py can choose
    catalog: tuple[str, ...] = ()  # CSV files of game labels, read after ours; RetroAct's, for its selections
    seed: int = 0
    env: EnvConfig = field(default_factory=EnvConfig)
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    latent_actions: LatentActionConfig = field(default_factory=LatentActionConfig)  # where conditioning is "latent"
    upscaler: UpscalerConfig = field(default_factory=UpscalerConfig)
    train_tokenizer: TrainingConfig = field(default_factory=TrainingConfig)
    train_dynamics: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=80, iterations=185_000))
    train_upscaler: TrainingConfig = field(default_factory=lambda: PAPERS_UPSCALER_TRAINING)
    tune_decoder: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(  # iterations: paper, fine-tuning to a new game; the rest is ours
            iterations=1_000, warmup_iterations=100, validate_every=250, checkpoint_every=250
        )
    )
    finetune: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=160, iterations=10_000))
    reward: RewardConfig = field(default_factory=RewardConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    player: PlayerConfig = field(default_factory=PlayerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed = {self.seed}: must be in [0, 2**63)")
        if not self.games:
            raise ValueError("games is empty: name at least one game")
        if len(set(self.games)) < len(self.games):
            raise ValueError(f"games lists a game twice: {', '.join(self.games)}")
        if self.env.frame_size != self.tokenizer.frame_size:
            raise ValueError(
                f"tokenizer.frame_size = {self.tokenizer.frame_size} but env.frame_size = {self.env.frame_size}: "
                "they must be equal"
            )
        actions = len(action_names(self.env.action_set))
        if self.dynamics.num_actions != actions:
            raise ValueError(
                f"dynamics.num_actions = {self.dynamics.num_actions} but env.action_set = {self.env.action_set!r} has "
                f"{actions} actions: they must be equal"
            )
        if self.collection.large_frame_every:
            sizes = (self.upscaler.frame_size, self.upscaler.large_size)
            if sizes != (self.env.frame_size, self.collection.large_frame_size):
                raise ValueError(
                    f"upscaler.frame_size and scale make {sizes[1]} pixels of {sizes[0]}, but env.frame_size and "
                    f"collection.large_frame_size are {self.env.frame_size} and {self.collection.large_frame_size}"
                )
        if self.dynamics.conditioning == "latent":  # the parts check that they fit each other
            GenieReduxConfig(tokenizer=self.tokenizer, dynamics=self.dynamics, latent_actions=self.latent_actions)
        else:
            GenieReduxGConfig(tokenizer=self.tokenizer, dynamics=self.dynamics)
        exploration = self.exploration
        if self.reward.kind == "learning_progress" and not exploration.rounds.every:
            raise ValueError(
                "reward.kind = 'learning_progress' pays for what rounds take off: exploration.rounds.every = 0, "
                "must be at least 1"
            )
        try:
            exploration.learning.check_capacity(
                num_env_runners=exploration.num_env_runners, episode_steps=self.env.max_episode_steps
            )
        except ValueError as error:
            raise ValueError(f"exploration.learning.{error}") from None
        if exploration.learning.old_rewards == "ask" and self.reward.remembers:
            raise ValueError(
                "exploration.learning.old_rewards = 'ask': reward.kind or reward.novelty is of a judge that "
                "remembers what it was asked, so it must be asked once: use 'mark'"
            )
        for name, part in (
            ("train_tokenizer", "tokenizer"),
            ("tune_decoder", "tokenizer"),
            ("train_dynamics", "dynamics"),
            ("finetune", "dynamics"),
        ):
            length, longest = getattr(self, name).window, getattr(self, part).max_frames
            if length > longest:
                raise ValueError(f"{name}.window = {length}: {part}.max_frames = {longest} is less")
        length, longest = exploration.rounds.training.window, self.dynamics.max_frames
        if exploration.rounds.every and length > longest:
            raise ValueError(f"exploration.rounds.training.window = {length}: dynamics.max_frames = {longest} is less")
        length = self.evaluation.window
        if length > self.dynamics.max_frames:
            raise ValueError(
                f"evaluation.prime_frames + evaluation.predicted_frames = {length}: "
                f"dynamics.max_frames = {self.dynamics.max_frames} is less"
            )


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a preset and applies overrides.

    Raises:
        ValueError: one line; unknown key (with the nearest known one), wrong type, impossible value, unreadable file.
    """
    return build(RunConfig, load_values(path, overrides))


def load_values(path: str | Path | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of a YAML file with overrides, as they stand there.

    Args:
        path: YAML file that lists what differs from the defaults; None for the defaults.
        overrides: `key=value`, keys dotted (`dynamics.blocks=4`), values in YAML.

    Raises:
        ValueError: one line; the file cannot be read, or an override is none.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text())
        except FileNotFoundError as error:
            raise ValueError(f"no such config file: {path}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(loaded or {}, dict):
            raise ValueError(f"{path} must hold a mapping of settings, holds {type(loaded).__name__}")
        values = loaded or {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ValueError(f"override {override!r}: expected key=value, as in dynamics.blocks=4")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"override {override!r} is not valid YAML: {' '.join(str(error).split())}") from error
        _assign(values, key, value)
    return values


def build(cls: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Builds a config dataclass from a nested mapping, checking keys, types and ranges.

    Raises:
        ValueError: one line that names the key, what was given and what is allowed.
    """
    hints = get_type_hints(cls)
    defaults = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise ValueError(f"unknown key {name!r}{_nearest(str(key), prefix, list(hints))}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                allowed = ", ".join(f.name for f in dataclasses.fields(hints[key]))
                raise ValueError(f"{name} = {value!r}: expected settings of its own ({allowed})")
            start = _default(defaults[key])
            value = {**_explicit(start, hints[key]), **value}
            arguments[key] = build(hints[key], value, f"{name}.")
        else:
            if isinstance(value, bool) and hints[key] in (int, float):
                raise ValueError(f"{name} = {value!r}: expected a number")
            try:
                arguments[key] = _adapter(hints[key], may_be_infinite=key in LIMITS).validate_python(value)
            except ValidationError as error:
                raise ValueError(f"{name} = {value!r}: {error.errors()[0]['msg'].lower()}") from None
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain nested values, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: ours → theirs` for every leaf in which two plain configs differ."""
    lines: list[str] = []
    for key in sorted({*ours, *theirs}):
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {left!r} → {right!r}")
    return lines


def check_unchanged(directory: Path, settings: Mapping[str, Any], *, free: str = "") -> None:
    """Refuses to go on with what was begun in a directory under other settings, which stand in its SETTINGS_FILE.

    Args:
        free: settings that may differ are those whose key begins so; "": none.

    Raises:
        ValueError: one line that names what differs.
    """
    saved = directory / SETTINGS_FILE
    lines = differences(yaml.safe_load(saved.read_text()), settings) if saved.exists() else []
    changed = [line for line in lines if not (free and line.startswith(free))]
    if changed:
        shown = "; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" if len(changed) > 3 else "")
        raise ValueError(f"{directory} holds a run with other settings ({shown}): give another --out")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with nested changes."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"override {key!r}: {parent!r} has no settings of its own")
    values[leaf] = value


@cache
def _adapter(hint: Any, *, may_be_infinite: bool) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=may_be_infinite))


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _explicit(config: Any, cls: type[Any]) -> dict[str, Any]:
    """What a default instance sets beyond its class's own defaults, as `train_dynamics` does."""
    plain, base = to_dict(config), to_dict(cls())
    return {key: value for key, value in plain.items() if value != base[key]}


def _nearest(key: str, prefix: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; nearest: {prefix + close[0]!r}" if close else f"; known: {', '.join(prefix + name for name in known)}"
