"""The tables' files: rows are made as their labels say, what they share is one job, what does not fit is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from genie_ray.base.settings import differences
from genie_ray.reproducing.graph import origin
from genie_ray.reproducing.plan import TABLES, Plan, PlannedRow, read_plan
from genie_ray.reproducing.scaled import told

pytestmark = pytest.mark.usefixtures("roms")
NAMES = sorted(path.stem for path in TABLES.glob("*.yaml"))
TWO = ["Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"]
GAMES = {"all": TWO, "many": TWO, "few": ["Hero-Atari2600-v0"]}
OWN = ("tab2", "tab2_ninja", "fig16", "ablation")  # have other sets of games
TESTED = {**GAMES, "tested": ["Pong-Atari2600-v0"]}
AUTOREGRESSIVE = "+ autoregressive decoding"


def plan(name: str, scale: str = "tiny", **more: Any) -> Plan:
    """A plan with games that ale-py brings."""
    sets = {} if name in OWN else GAMES if name in ("tab4", "fig5", "fig6", "fig10") else TESTED
    return read_plan(name, scale, games=sets, **more)


def row(of: Plan, label: str) -> PlannedRow:
    return next(one for one in of.rows if one.label == label)


def recipe(of: Plan, label: str) -> dict[str, Any]:
    """A row's whole chain, of its first seed."""
    return next(iter(row(of, label).jobs.values())).expanded


def edited(tmp_path: Path, name: str, change: Any) -> str:
    """A table's file, changed, beside the files it needs."""
    for part in ("shared", "scales"):
        (tmp_path / part).symlink_to(TABLES / part)
    (tmp_path.parent / "published").symlink_to(TABLES.parent / "published")
    values = yaml.safe_load((TABLES / f"{name}.yaml").read_text())
    change(values)
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["tiny", "small", "published"])
def test_every_table_can_be_planned_at_every_scale(name: str, scale: str, procgen: None) -> None:
    found = plan(name, scale)
    assert len(found.jobs()) == len({job.identity for job in found.jobs()})
    for one in found.rows:
        assert set(one.jobs) == set(found.seeds)
        assert told(one.scaled)
    if scale == "published":
        assert {change.setting for one in found.rows for change in one.scaled} <= {"games"}


def test_the_ablation_adds_one_thing_a_row() -> None:
    found = plan("tab4")
    steps = [("GenieRedux-G of few games", "+ token input"), ("+ token input", "+ TDCE"), ("+ TDCE", AUTOREGRESSIVE)]
    changes = [differences(recipe(found, before), recipe(found, after)) for before, after in steps]
    assert changes == [
        ["model.dynamics.token_input_scale: 0.0 → 10.0"],
        ["model.dynamics.tdce_weight: 0.0 → 3.0"],
        ["evaluation.decoding.mode: 'one_go' → 'autoregressive'"],
    ]


def test_the_ablation_at_the_published_scale_is_the_papers() -> None:
    model = recipe(plan("tab4", "published"), "+ TDCE")["model"]
    first = model["init"]
    assert (model["finetune"]["iterations"], model["finetune"]["batch_size"]) == (80_000, 160)
    assert (first["train_dynamics"]["iterations"], first["train_dynamics"]["batch_size"]) == (185_000, 80)
    assert (first["dynamics"]["dim"], first["dynamics"]["blocks"], first["dynamics"]["alignment"]) == (
        512,
        12,
        "shifted",
    )
    assert first["tokenizer"]["tokenizer"]["patch_size"] == 4


def test_coinruns_study_at_the_published_scale_is_the_papers(procgen: None) -> None:
    found = recipe(plan("tab2", "published"), "GenieRedux")
    model, tokenizer = found["model"], found["model"]["tokenizer"]
    assert (tokenizer["tokenizer"]["patch_size"], model["latent_actions"]["patch_size"]) == (4, 4)
    assert (tokenizer["train_tokenizer"]["batch_size"], model["train_dynamics"]["batch_size"]) == (84, 84)
    assert model["data"]["env"]["action_set"] == "coinrun"
    assert model["data"]["amount"] == {"episodes": 10_000}
    (first, count), (test_first, _) = model["data"]["env"]["coinrun_levels"], found["test"]["env"]["coinrun_levels"]
    assert first + count <= test_first


@pytest.mark.parametrize(("name", "game", "actions"), [("tab2", "CoinRun", 7), ("tab2_ninja", "Ninja", 10)])
def test_the_study_has_as_many_latent_actions_as_its_game_has_actions(
    name: str, game: str, actions: int, procgen: None
) -> None:
    found = plan(name, "published")
    for label in ("GenieRedux", "GenieRedux-G", "GenieRedux-TA", "GenieRedux-G-TA"):
        model = recipe(found, label)["model"]
        assert model["dynamics"]["num_actions"] == actions or model["dynamics"]["conditioning"] == "latent"
        first = model.get("init", model)
        if "latent_actions" in first:
            assert first["latent_actions"]["quantizer"]["codes"] == actions
        env = model["data"]["env"]
        assert (model["data"]["games"], env["action_set"]) == ([game], game.lower())


def test_a_supplementary_game_has_the_rows_and_claims_of_the_study_but_none_of_its_figures(procgen: None) -> None:
    study, other = plan("tab2"), plan("tab2_ninja")
    assert [(one.section, one.label) for one in other.rows] == [(one.section, one.label) for one in study.rows]
    assert other.table.claims == study.table.claims
    assert all(one.paper for one in study.rows)
    assert not any(one.paper for one in other.rows)
    assert other.paper_rows == []
    changed = {line.partition(":")[0] for line in differences(recipe(study, "GenieRedux"), recipe(other, "GenieRedux"))}
    assert {place.rpartition(".")[2] for place in changed} == {"games", "action_set", "num_actions", "codes"}


def test_a_title_is_what_was_made_too(procgen: None) -> None:
    with pytest.raises(ValueError, match=r"'tokenizer' means model.data.games = \['CoinRun'\], but it would be \['Nin"):
        read_plan("tab2", "tiny", games={"played": ["Ninja"]})
    with pytest.raises(ValueError, match=r"means model.data.env.action_set = 'ninja', but it would be 'starpilot'"):
        plan("tab2_ninja", overrides={"env": {"action_set": "starpilot"}, "dynamics": {"num_actions": 11}})


def test_a_trained_agents_models_are_the_random_ones_trained_further(procgen: None) -> None:
    """Kazemi et al. 2024, Sec. 2: first the tokenizer as a whole, then the dynamics on its tokens."""
    found = plan("tab2", "published")
    for name in ("GenieRedux", "GenieRedux-G"):
        (before, *_), (after, *_) = (
            [one.jobs[0].inputs["model"] for one in found.rows if one.label == label] for label in (name, f"{name}-TA")
        )
        assert after.inputs["init"].identity == before.identity
        tokenizer = after.inputs["tokenizer"]
        assert tokenizer.inputs["init"].identity == before.inputs["tokenizer"].identity
        assert tokenizer.settings.keys() == {"train_tokenizer", "seed"}  # its build is that of the one before
        assert tokenizer.inputs["data"].identity == after.inputs["data"].identity
        assert (tokenizer.settings["train_tokenizer"]["iterations"], origin(after)) == (150_000, before)
    shown = {one.text.test: one.jobs[0].inputs["test"].settings["env"]["paint_vel_info"] for one in found.rows}
    assert shown == {"basic test": False, "diverse test": True}
    assert {tuple(one.jobs[0].settings["evaluation"]["black_corner"]) for one in found.rows} == {(13, 26)}


def test_tables_share_what_they_have_in_common() -> None:
    four, five, six = (plan(name) for name in ("tab4", "tab5", "tab6"))
    shared = {job.identity for job in four.jobs()} & {job.identity for job in five.jobs()}
    kinds = sorted(job.kind for job in five.jobs() if job.identity in shared)
    assert kinds == ["dynamics", "finetune", "play", "play", "tokenizer"]  # of all games and of many: one at this scale
    explorers = {job.identity for job in five.jobs() if job.kind == "explorer"}
    assert explorers < {job.identity for job in six.jobs()}


def test_one_fine_tuning_for_several_games_learns_from_the_play_of_each() -> None:
    """And is tested on that of each."""
    sets = {**GAMES, "tested": ["Pong-Atari2600-v0", "Enduro-Atari2600-v0"]}
    five, twelve = (read_plan(name, "tiny", games=sets) for name in ("tab5", "tab12"))
    assert {one.section for one in twelve.rows} == {""}
    explored = row(twelve, "fine-tuned on explored play").jobs[0]
    for gathered, name in ((explored.inputs["model"].inputs["data"], "explored play"), (explored.inputs["test"], "")):
        of_each = {job.identity for job in five.jobs() if job.name == (name or "test play")}
        assert {job.identity for job in gathered.inputs.values()} == of_each
        assert len(of_each) == 2


def test_speed_and_logging_are_no_part_of_a_job() -> None:
    before, after = plan("tab4"), plan("tab4", overrides={"finetune": {"log_every": 1}, "ray": {"train_workers": 2}})
    assert [job.identity for job in before.jobs()] == [job.identity for job in after.jobs()]
    other = plan("tab4", overrides={"tokenizer": {"dim": 64}, "dynamics": {"dim": 64}})
    kept = {job.identity for job in before.jobs()} & {job.identity for job in other.jobs()}
    assert {job.kind for job in before.jobs() if job.identity in kept} == {"play"}


def test_seeds_change_play_and_trainings_but_not_the_test_set() -> None:
    found = plan("tab4", seeds=[1, 2])
    first, second = row(found, "+ TDCE").jobs.values()
    assert first.inputs["model"].identity != second.inputs["model"].identity
    assert first.inputs["test"].identity == second.inputs["test"].identity


def test_what_was_scaled_down_is_found_by_comparing() -> None:
    found = row(plan("tab4"), "+ TDCE").scaled
    changes = {(one.job, one.setting): (one.ours, one.papers) for one in found}
    games = [(one.ours, one.papers) for one in found if (one.job, one.setting) == ("pretraining play", "games")]
    assert sorted(games) == [(2, 200), (2, 483)]  # of the dynamics and of the tokenizer
    assert changes["aligned play", "games"] == changes["test play", "games"] == (1, 50)
    assert changes["dynamics", "train_dynamics.iterations"] == (4, 185_000)
    assert changes["evaluation", "evaluation.decoding.steps"] == (2, 25)
    text = told(row(plan("tab4"), "+ TDCE").scaled)
    assert "finetune: iterations 4 (80,000), batch_size 4 (160)" in text
    assert "pretraining play: games 2 (200), games 2 (483), amount 200 steps (50 episodes)" in text
    five = row(plan("tab5"), "pre-trained").scaled
    assert {(one.ours, one.papers) for one in five if one.setting == "player.kind"} == {("ppo", "agent57")}


def test_the_papers_figures_are_those_of_the_row() -> None:
    paper = row(plan("tab4"), AUTOREGRESSIVE).paper
    assert paper is not None
    assert (paper["psnr_mean"], paper["fid"]) == (28.07, 22.11)
    five = plan("tab5")
    assert row(five, "from scratch").paper is None  # of Pong the paper has none
    assert {line["test_set"] for line in five.paper_rows} == {"Adventure Island II", "Super Mario Bros", "Smurfs"}
    assert {line["table"] for line in five.paper_rows} == {"Tab. 5", "Tab. 11"}
    assert {line["table"] for line in plan("tab6").paper_rows} == {"Tab. 6"}


@pytest.mark.parametrize(
    ("change", "told_so"),
    [
        ({"dynamics": {"conditioning": "embedding"}}, "means model.dynamics.conditioning = 'one_hot', but it would be"),
        ({"evaluation": {"decoding": {"mode": "autoregressive"}}}, "means evaluation.decoding.mode = 'one_go'"),
        ({"dynamics": {"blcks": 2}}, "unknown key 'dynamics.blcks'; nearest: 'dynamics.blocks'"),
        ({"finetune": {"batch_size": 5}, "ray": {"train_workers": 2}}, "batch_size = 5: must be a multiple of"),
        (
            {"env": {"max_episode_steps": 6}},
            "train_tokenizer.window is 8: must be at most 7, the frames",
        ),
        ({"evaluation": {"predicted_frames": 20}}, "prime_frames \\+ predicted_frames is 22"),
    ],
)
def test_settings_that_make_a_label_untrue_or_cannot_work_are_refused(change: dict[str, Any], told_so: str) -> None:
    with pytest.raises(ValueError, match=told_so) as error:
        plan("tab4", overrides=change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("place", "value", "told_so"),
    [
        (
            ("jobs", "with token input", "settings"),
            {"dynamics": {"token_input_scale": 5.0}},
            "means model.dynamics.tok",
        ),
        (
            ("jobs", "with token input", "settings"),
            {"dynamics": {"token_input_scale": 10.0}, "finetune": {"stride": 2}},
            "also differs from 'GenieRedux-G of few games' in model.finetune.stride: 1 → 2",
        ),
        (("jobs", "with token input", "settings"), {"dynamics": {"dim": 8}}, "dynamics.dim is 8: must be 32, as in"),
        (("jobs", "with token input", "init"), "tokenizer", "init is 'tokenizer': must be a job of the kind dynamics"),
        (("jobs", "with token input", "steps"), 3, "unknown key 'jobs.with token input.steps'"),
        (("rows", 2, "differs_in"), ["model.seed"], "also differs from"),
        (("rows", 2, "means"), {}, "means is empty"),
        (("rows", 2, "means"), {"model.sed": 1}, "its recipe lacks at 'sed'"),
        (("rows", 2, "published"), {"test_set": "Moon", "model": "+ TDCE"}, "has no 'Moon', '\\+ TDCE'"),
        (("rows", 2, "settings"), {"dynamics": {"dim": 8}}, "a row's are of the evaluation"),
        (("jobs", "with token input", "purpose"), "test", "purpose is 'test': a finetune takes none"),
        (
            ("jobs", "with token input", "tokenizer"),
            "play of few games",
            "must be a job of the kind tokenizer or decoder",
        ),
    ],
)
def test_a_file_that_does_not_make_what_it_says_is_refused(
    place: tuple[Any, ...], value: Any, told_so: str, tmp_path: Path
) -> None:
    def change(values: Any) -> None:
        *parents, last = place
        for parent in parents:
            values = values[parent]
        values[last] = value

    folder = tmp_path / "reproduce"
    folder.mkdir()
    with pytest.raises(ValueError, match=told_so) as error:
        read_plan(edited(folder, "tab4", change), "tiny")
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown table 'tab99': allowed are .*tab2, .*tab4"):
        read_plan("tab99", "tiny")
    with pytest.raises(ValueError, match="--scale is 'huge': tab4 has tiny, small, published"):
        read_plan("tab4", "huge")
    with pytest.raises(ValueError, match=r"--only '\+ TDC': there is no such row; allowed: 'GenieRedux-G of many"):
        plan("tab4", only=["+ TDC"])
    with pytest.raises(ValueError, match="no ROM for SuperMarioBros-Nes-v0"):
        read_plan("tab5", "tiny", games={"tested": ["SuperMarioBros-Nes-v0"]})
    with pytest.raises(ValueError, match="give its CSV file"):
        read_plan("tab4", "published")
    with pytest.raises(ValueError, match="--games every: tab4 has the sets all, many, few"):
        read_plan("tab4", "tiny", games={"every": ["Pong-Atari2600-v0"]})


def test_the_documentations_table_can_be_planned(tmp_path: Path) -> None:
    text = (TABLES.parents[1] / "docs" / "reproducing.md").read_text()
    (tmp_path / "own.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    found = read_plan(str(tmp_path / "own.yaml"), "published")
    assert [one.label for one in found.rows] == ["random", "held"]
    assert len(found.jobs()) == 9


def test_one_row_needs_only_its_own_jobs() -> None:
    jobs = plan("tab4", only=["GenieRedux-G of many games"]).jobs()
    assert sorted(job.kind for job in jobs) == ["dynamics", "evaluation", "play", "play", "tokenizer"]
