"""The ablations: every variant is a valid run that differs from the base only in what its name says."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from genie_ray.base.settings import build, differences, to_dict
from genie_ray.config import RunConfig

FOLDER = Path(__file__).parents[2] / "experiments" / "ablations"


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ablations_run", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variants(ablations: ModuleType) -> dict[str, RunConfig]:
    described = yaml.safe_load((FOLDER / "control.yaml").read_text())
    return {
        name: build(RunConfig, ablations.merge(described["base"], changes))
        for name, changes in described["variants"].items()
    }


def test_merging_keeps_what_is_not_changed(ablations: ModuleType) -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert ablations.merge(base, {"a": {"c": {"d": 4}}}) == {"a": {"b": 1, "c": {"d": 4}}, "e": 3}
    assert base["a"] == {"b": 1, "c": {"d": 2}}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("all frames alike", {"dynamics.masking", "train_dynamics.iterations"}),
        ("by frame", {"dynamics.masking", "train_dynamics.iterations"}),
        ("changed tokens weigh 5", {"dynamics.changed_weight"}),
        ("actions added at every block", {"dynamics.conditioning", "dynamics.actions_at"}),
        ("guidance 1", {"dynamics.action_dropout", "evaluation.decoding.guidance"}),
        ("inverse dynamics 0.3", {"dynamics.inverse_weight"}),
        ("paired, one go", {"evaluation.decoding.mode", "evaluation.decoding.steps"}),
        ("TDCE 1", {"dynamics.tdce_weight"}),
        ("own frames in the past, 0.2", {"dynamics.self_decoded", "train_dynamics.iterations"}),
    ],
)
def test_a_variant_of_control_changes_what_it_says(ablations: ModuleType, name: str, changed: set[str]) -> None:
    configs = variants(ablations)
    lines = differences(to_dict(configs["paired (base)"]), to_dict(configs[name]))
    assert {line.partition(":")[0] for line in lines} == changed


def test_variants_share_what_they_can(ablations: ModuleType) -> None:
    configs = variants(ablations)
    tokenizers = {name: config.tokenizer for name, config in configs.items()}
    assert ablations.shared_name(tokenizers, tokenizers["TDCE 3"]) == "all frames alike"
    assert ablations.shared_name(tokenizers, tokenizers["patch 4"]) == "patch 4"


def test_variants_chosen_later_join_those_that_are_there(
    ablations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def score(configs: dict[str, RunConfig], paths: dict[str, Path], *_: Path) -> dict[str, dict[str, str]]:
        made.extend(configs)
        return {name: {"variant": name, "dynamics": str(paths[name])} for name in configs}

    trained: list[Path] = []
    monkeypatch.setattr(ablations, "score_together", score)
    monkeypatch.setattr(ablations, "train", lambda job, ray: trained.append(job.output))
    configs = variants(ablations)
    base = "all frames alike"
    first = ablations.run_variants(configs, [base, "TDCE 3"], (), tmp_path, tmp_path / "out")
    second = ablations.run_variants(configs, [base, "patch 4"], (), tmp_path, tmp_path / "out")
    assert made == [base, "TDCE 3", "patch 4"]
    assert [row["variant"] for row in first] == [base, "TDCE 3"]
    assert [row["variant"] for row in second] == [name for name in configs if name in made]
    assert trained[0] == trained[2] == tmp_path / "out" / "tokenizers" / base
    changed = {**configs, "TDCE 3": configs[base]}
    with pytest.raises(ValueError, match=r"TDCE-3\.json was made with other settings"):
        ablations.run_variants(changed, ["patch 4"], (), tmp_path, tmp_path / "out")
    assert len(trained) == 8  # none for what was refused


def test_seeds_are_compared_in_pairs(ablations: ModuleType) -> None:
    def row(variant: str, psnr: float, gain: float | None = None) -> dict[str, Any]:
        scores = {"psnr": psnr, "curves": {"psnr": [9.0, 9.0, 9.0, psnr - 1], "delta_psnr": [0.0, 0.0, 0.0, psnr / 10]}}
        return {"variant": variant, "prediction": scores if gain is None else {**scores, "nll_gap": gain}}

    tables = {
        1: [row("base", 20.0, 0.25), row("better", 22.0, 0.5), row("new", 30.0)],
        0: [row("base", 10.0, 0.75), row("better", 11.0, 0.5)],
    }
    lines = ablations.over_seeds(tables, "base").splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if "---" not in line]
    title, base, better = cells  # one seed has nothing of "new"
    assert title[:4] == ["variant", "PSNR", "PSNR t=4", "ΔPSNR t=4"]
    assert base[:4] == ["base", "15.00", "14.00", "1.50"]
    assert better[:4] == ["better", "16.50 (+1.00, +2.00)", "15.50 (+1.00, +2.00)", "1.65 (+0.10, +0.20)"]
    assert better[title.index("NLL gap")] == "0.50 (-0.25, +0.25)"
    assert better[title.index("on controllable windows")] == ""


def test_every_variant_is_valid_on_coinrun_too(ablations: ModuleType) -> None:
    described = yaml.safe_load((FOLDER / "control.yaml").read_text())
    base = ablations.merge(described["base"], yaml.safe_load((FOLDER / "coinrun.yaml").read_text()))
    for changes in described["variants"].values():
        config = build(RunConfig, ablations.merge(base, changes))
        assert (config.games, config.dynamics.num_actions) == (("CoinRun",), 7)


@pytest.mark.parametrize(
    ("file", "override", "message"),
    [
        ("control.yaml", "dynamics.dim=-3", "dim is -3"),
        ("control.yaml", "evaluation.nothing=3", "evaluation.nothing"),
        ("coinrun.yaml", "seed=1", "needed: base, compared_with and variants"),
        ("absent.yaml", "seed=1", "absent.yaml"),
    ],
)
def test_wrong_settings_are_refused_with_a_line(
    ablations: ModuleType,
    file: str,
    override: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(FOLDER / file), "--train", "a", "--test", "b", "--out", "c", override]
    monkeypatch.setattr("sys.argv", ["run.py", *given])
    with pytest.raises(SystemExit) as end:
        ablations.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
