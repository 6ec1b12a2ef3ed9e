"""Run configs: presets load, and what cannot work is refused in one line that names the key."""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from genie_ray.base.settings import build, differences, to_dict
from genie_ray.config import RunConfig, load_config
from world_model.genie import GenieReduxG, GenieReduxGConfig

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PRESETS = sorted([*EXPERIMENTS.glob("*.yaml"), *EXPERIMENTS.glob("explore/*.yaml")])

SHAPE = ("dim", "blocks", "heads", "head_dim")

JUNK = (
    *("null", "true", "0", "-1", "7", "0.5", "-.inf", ".inf", ".nan", "1e400", "9" * 40, "''", "junk", '"two\\nlines"'),
    *("[]", "[[]]", "[1]", "[.nan, 2]", "[0.9, -1]", "{}", "{a: 1}", "{1: 2}", "2026-01-01", "!!binary aGk="),
    *('"\\ud800"', "@", "[1", "*x", "a: b: c", "!!python/object:os.system x", "2026-13-45"),
)


def keys(cls: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config and its parts."""
    for name, kind in get_type_hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from keys(kind, f"{prefix}{name}.")


def numbers(value: object) -> Iterator[float]:
    """All numbers in a nested value."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid_and_survive_a_round_trip(preset: Path) -> None:
    config = load_config(preset)
    assert build(RunConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_have_the_features_that_the_paper_claims(preset: Path) -> None:
    """The token input is on: no preset may lose it by accident. TDCE is only in those that are as published."""
    assert load_config(preset).dynamics.token_input_scale > 0


def test_defaults_are_the_papers() -> None:
    config = RunConfig()
    assert (config.tokenizer.dim, config.tokenizer.blocks, config.tokenizer.patch_size) == (512, 8, 4)
    assert (config.dynamics.dim, config.dynamics.blocks) == (512, 12)
    assert (config.train_tokenizer.batch_size, config.train_dynamics.batch_size, config.finetune.batch_size) == (
        112,
        80,
        160,
    )
    assert (config.train_dynamics.iterations, config.finetune.iterations) == (185_000, 10_000)
    assert (config.exploration.epochs, config.exploration.learning.sequences_per_update) == (300, 128)
    assert (config.evaluation.decoding.steps, config.evaluation.window) == (25, 12)
    assert config.reward.top_k_fraction == 0.25


def test_overrides_reach_their_key_and_keep_the_rest() -> None:
    config = load_config(None, ["train_dynamics.learning_rate=1e-3", "games=[Hero-Atari2600-v0]", "dynamics.blocks=4"])
    assert config.train_dynamics.learning_rate == 1e-3
    assert config.train_dynamics.batch_size == 80  # what its default sets beyond TrainingConfig's own
    assert config.games == ("Hero-Atari2600-v0",)
    assert config.dynamics.blocks == 4


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("dynamics.blokcs=2", "unknown key 'dynamics.blokcs'; nearest: 'dynamics.blocks'"),
        ("exploraton.epochs=2", "unknown key 'exploraton'; nearest: 'exploration'"),
        ("dynamics=2", "dynamics = 2: expected settings of its own"),
        ("dynamics.blocks.deep=2", "dynamics.blocks"),
        ("exploration.epochs=many", "exploration.epochs = 'many': input should be a valid integer"),
        ("tokenizer.dim=7.5", "tokenizer.dim = 7.5"),
        ("env.fit=cut", "env.fit = 'cut': input should be 'pad' or 'stretch'"),
        ("finetune.iterations=0", "finetune.iterations = 0: must be at least 1"),
        ("games=[]", "games is empty"),
        ("games=CoinRun", "games = 'CoinRun': must be a list, games=[…]"),
        ("env.frame_size=32", "env.frame_size = 32"),
        ("env.action_set=running_jumps", "dynamics.num_actions = 5"),
        ("evaluation.predicted_frames=40", "is 42"),
        ("reward.top_k_fraction=0", "top_k_fraction"),
        ("reward.kind=learning_progress", "exploration.rounds.every = 0, must be at least 1"),
        ("just words", "expected key=value"),
        ("seed=[1", "override 'seed=[1' is not valid YAML"),
        ("seed=-1", "seed = -1: must be in [0, 2**63)"),
        ("collection.workers_max=true", "collection.workers_max = True: expected a number"),
        ("reward.gpus=true", "reward.gpus = True: expected"),
        ("finetune.betas=[true, 0.9]", "finetune.betas = [True, 0.9]: expected tuple"),
        ("seed=0x" + "f" * 5000, "seed = a number of thousands of digits"),
        ("finetune.iterations=" + "9" * 30, "integers must be below 2**63"),
        ("finetune.clip_norm=.nan", "finetune.clip_norm = nan"),
        ("finetune.learning_rate=.inf", "finetune.learning_rate = inf: input should be a finite number"),
        ("finetune.betas=[0.9, 1]", "finetune.betas = (0.9, 1.0): each must be in [0, 1)"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(override: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as refusal:
        load_config(None, [override])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_for_a_key_is_refused_in_one_line_or_is_a_number_or_name(junk: str) -> None:
    for key in list(keys(RunConfig))[JUNK.index(junk) % 3 :: 3]:
        try:
            config = load_config(None, [f"{key}={junk}"])
        except ValueError as error:
            message = str(error)
        else:
            message = "not a number" if any(map(math.isnan, numbers(to_dict(config)))) else "usable"
        assert "\n" not in message, key
        assert message != "not a number", key


@pytest.mark.parametrize(
    "junk", ["=1", ".=1", "a..b=1", ".seed=1", "seed.=1", "seed.a=1", "games.0=x", "env.env.env=1"]
)
def test_junk_keys_are_refused_in_one_line(junk: str) -> None:
    with pytest.raises(ValueError, match=r"override|unknown key|games|seed") as refusal:
        load_config(None, [junk])
    assert "\n" not in str(refusal.value)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such config file: .*missing\.yaml"):
        load_config(tmp_path / "missing.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match=r"broken\.yaml is not valid YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "date.yaml").write_text("seed: 2026-13-01")
    with pytest.raises(ValueError, match=r"date\.yaml is not valid YAML: month must be in"):
        load_config(tmp_path / "date.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="must hold a mapping"):
        load_config(tmp_path / "list.yaml")


def test_of_several_files_the_later_one_counts_in_what_they_share(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("{seed: 1, tokenizer: {dim: 64, heads: 2}}")
    second.write_text("{tokenizer: {dim: 128}, dynamics: {dim: 128}}")
    config = load_config([first, second], ["dynamics.dim=256", "dynamics.token_input_scale=0"])
    assert (config.seed, config.tokenizer.dim, config.tokenizer.heads, config.dynamics.dim) == (1, 128, 2, 256)
    assert load_config([second, first], ["dynamics.dim=64"]).tokenizer.dim == 64
    assert load_config([first], ["dynamics.dim=64"]) == load_config(first, ["dynamics.dim=64"])


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", (0.27, 0.40)), ("small", (0.93, 1.20)), ("base", (101.5, 79.0))]
)
@pytest.mark.parametrize("preset", ["coinrun", "atari"])
def test_a_size_changes_nothing_but_how_large_a_model_is_and_how_fast_it_learns(
    preset: str, size: str, millions: tuple[float, float]
) -> None:
    path = EXPERIMENTS / preset / "world_model.yaml"
    before, after = load_config(path), load_config([path, EXPERIMENTS / "sizes" / f"{size}.yaml"])
    changed = {line.partition(":")[0] for line in differences(to_dict(before), to_dict(after))}
    assert {key.partition(".")[0] for key in changed} <= {"tokenizer", "dynamics", "train_tokenizer", "train_dynamics"}
    assert {key for key in changed if key.startswith("dynamics.")} <= {f"dynamics.{name}" for name in SHAPE}
    model = GenieReduxG(GenieReduxGConfig(tokenizer=after.tokenizer, dynamics=after.dynamics))
    counted = [sum(weight.numel() for weight in part.parameters()) / 1e6 for part in (model.tokenizer, model.dynamics)]
    assert counted == pytest.approx(millions, rel=0.02)


def test_differences_name_what_changed() -> None:
    ours, theirs = {"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}}
    assert differences(ours, theirs) == ["b.c: 2 → 4"]
