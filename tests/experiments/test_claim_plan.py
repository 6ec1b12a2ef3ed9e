"""The claim's settings: arms differ in how they explore alone, and what makes a comparison unfair is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.claim.plan import Plan, check_plan, plan_files, read_plan
from genie_ray.base.settings import differences as changes
from genie_ray.base.settings import to_dict

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "experiments" / "claim" / "config.yaml"
GAME = "Kangaroo-Atari2600-v0"
HELD, OURS = "random, held", "ours"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(CONFIG)


def test_arms_differ_in_how_they_explore_alone(plan: Plan) -> None:
    assert len({each.game for each in plan.comparisons}) == 4
    assert len({each.seed for each in plan.comparisons}) == 5
    for each in plan.comparisons:
        assert each.base.seed == each.seed
        for name, one in each.arms.items():
            changed = {line.partition(":")[0] for line in changes(to_dict(each.base), to_dict(one.config))}
            if one.config.exploration.algorithm == "ppo":
                assert changed <= {
                    "reward.kind", "reward.novelty", "reward.novelty_tolerance", "exploration.rounds.every",
                    *(["finetune.ranking.every"] if one.play_of else []),
                }, name  # fmt: skip
    coinrun = plan.comparisons[0]
    (first, count), (test_first, _) = coinrun.base.env.coinrun_levels, coinrun.test_env.coinrun_levels
    assert first + count <= test_first  # no level of the test set is trained on


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "arms",
            {OURS: {"source": "explorer", "changes": {"finetune": {"iterations": 99}}}},
            "finetune.iterations: 2000",
        ),
        (
            "arms",
            {OURS: {"source": "explorer", "changes": {"exploration": {"epochs": 41}}}},
            "explores for 83968 steps",
        ),
        ("arms", {"ranked": {"play_of": OURS, "changes": {"reward": {"kind": "rf"}}}}, "allowed: finetune.ranking"),
        ("arms", {"ranked": {"play_of": "ours, ranked", "changes": {}}}, "play_of of 'ranked' is 'ours, ranked'"),
        ("arms", {OURS: {"source": "book"}}, "source of 'ours' is 'book'; allowed: one of random"),
        ("claim", "luck", "claim is 'luck'; allowed: one of 'RF', "),
        ("compared_with", OURS, "allowed: an arm of random play"),
        ("base", {"evaluation": {"predicted_frames": 6}}, "predicted_frames = 6: must be at least 10"),
    ],
)
def test_an_unfair_comparison_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    described = yaml.safe_load(CONFIG.read_text())
    described[key] = {**described[key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        read_plan(tmp_path / "config.yaml")
    assert "\n" not in str(error.value)


def test_other_settings_are_refused_before_anything_starts(roms: list[str], plan: Plan, tmp_path: Path) -> None:
    kept = next(each for each in plan.comparisons if each.game == GAME)
    kept.keep([kept.arms[OURS]], tmp_path)
    check_plan(plan, [kept], tmp_path)
    described = yaml.safe_load(CONFIG.read_text())
    described["base"]["finetune"]["iterations"] = 2001
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(described))
    arguments = [str(tmp_path / "other.yaml"), "--out", str(tmp_path), "--game", GAME]
    command = [sys.executable, "-m", "experiments.claim.run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "with other settings (config.finetune.iterations: 2000 → 2001)" in done.stderr.splitlines()[-1]
    described["base"]["finetune"]["iterations"] = 2000
    described["arms"][OURS]["changes"] = {"reward": {"kind": "rf"}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=r"holds 'ours' with other settings .*reward.kind: 'entropy' → 'rf'"):
        check_plan(read_plan(tmp_path / "other.yaml"), [kept], tmp_path)


def test_random_play_is_always_among_the_arms(plan: Plan) -> None:
    assert plan.chosen(["RF"]) == ("random", HELD, "RF")
    assert plan.chosen(["ours, ranked"]) == ("random", HELD, OURS, "ours, ranked")
    assert plan.chosen([]) == plan.arms
    with pytest.raises(ValueError, match=r"--only is 'RG'; allowed: one of 'random', 'random, held'"):
        plan.chosen(["RG"])
    with pytest.raises(ValueError, match=r"--game is 'Pong'; allowed: one of CoinRun"):
        plan.selected(["Pong"], [])
    assert {each.seed for each in read_plan(CONFIG, seeds=[9]).selected([], [9])} == {9}


def test_a_file_may_change_another_comparison(plan: Plan) -> None:
    longer = read_plan(CONFIG.parent / "longer.yaml")
    assert longer.arms == (HELD, OURS, "oracle")
    firsts = [next(each for each in one.comparisons if each.game == "CoinRun") for one in (plan, longer)]
    told = ["config.finetune.iterations: 2000 → 6000"]
    assert changes(*(each.settings for each in firsts)) == told
    for name in longer.arms:
        assert changes(*(each.arms[name].settings for each in firsts)) == told
    assert plan_files(CONFIG.parent / "longer.yaml") == [CONFIG.parent / "longer.yaml", CONFIG]


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"like": "first.yaml", "games": ["Pong"]}, "games in .*: 'Pong' is not there; allowed: 'CoinRun', 'Hero"),
        ({"like": "first.yaml", "arms": ["coins"]}, "arms in .*: 'coins' is not there; allowed: 'random', "),
        ({"like": "first.yaml", "games": 7}, "games in .* are 7; needed: a list of names"),
        ({"like": "first.yaml", "base": [7]}, r"base in .* is \[7\]; needed: a mapping"),
        ({"like": "second.yaml"}, "like in .*second.yaml is 'second.yaml', which changes another file itself"),
    ],
)
def test_a_change_of_another_comparison_names_what_is_there(
    described: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "first.yaml").write_text(CONFIG.read_text())
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=message):
        read_plan(tmp_path / "second.yaml")
