"""`games list`, `roms doctor` and the choice of games by the stages' commands."""

import csv
import io
from pathlib import Path

import pytest
import yaml
from stable_retro import data as retro_data
from typer.testing import CliRunner

from genie_ray.cli import app
from genie_ray.commands.options import choose_games
from genie_ray.config import load_config
from genie_ray.games.roms import installed_games

pytestmark = pytest.mark.usefixtures("roms")
FOUR = tuple(f"{name}-Atari2600-v0" for name in ("ElevatorAction", "Hero", "Kangaroo", "MontezumaRevenge"))


def run(*arguments: object) -> tuple[str, str]:
    """What a command says, and what it says beside that."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout, result.stderr


def listed(*options: object) -> list[str]:
    return [row["game"] for row in csv.DictReader(io.StringIO(run("games", "list", *options)[0]))]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Labels in RetroAct's layout: two platformers with a ROM, three without."""
    names = ("Kangaroo-Atari2600", "Hero-Atari2600", "MegaMan-Nes", "SuperMarioBros-Nes", "Ristar-Genesis")
    path = tmp_path / "RetroAct.csv"
    path.write_text("\n".join(["game,tags", *(f"{name},side free pl" for name in names)]))
    return path


def test_games_are_listed_by_their_labels() -> None:
    assert listed("--genre", "platformer", "--motion", "free", "--installed") == list(FOUR)
    assert listed("--genre", "pl", "--limit", 2) == list(FOUR[:2])
    assert listed("default", "--view", "first_person") == ["Robotank-Atari2600-v0"]
    assert listed("--installed") == installed_games()
    assert not set(listed("--missing")) & set(installed_games())


def test_what_is_not_installed_is_told(labels: Path) -> None:
    output, beside = run("games", "list", "platformers-200", "--labels", labels)
    rows = {row["game"]: row for row in csv.DictReader(io.StringIO(output))}
    assert {game: row["rom"] for game, row in rows.items()} == {
        "Hero-Atari2600-v0": "yes",
        "Kangaroo-Atari2600-v0": "yes",
        "MegaMan-Nes-v0": "no",
        "Ristar-Genesis-v0": "no",
        "SuperMarioBros-Nes-v0": "no",
    }
    assert rows["MegaMan-Nes-v0"]["genre"] == "platformer"
    assert beside == "games: 5; with a ROM here: 2; without: 3\n"


def test_wrong_labels_are_refused() -> None:
    for options, told in (
        (["--genre", "rpg"], "unknown genre 'rpg'"),
        (["--controls", "JUMP"], "--controls 'JUMP': expected ACTION=LABEL"),
        (["--labels", "nowhere.csv"], "no such file of game labels: nowhere.csv"),
        (["platformers-200"], "is taken from RetroAct's list of games"),
    ):
        with pytest.raises(ValueError, match=told):
            run("games", "list", *options)


def test_stages_play_what_a_selection_finds(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_config(None, ["games=['genre=platformer']"])
    assert choose_games(settings) == FOUR
    assert choose_games(settings, ["Pong-Atari2600"]) == ("Pong-Atari2600-v0",)
    assert capsys.readouterr().err == ""
    settings = load_config(None, [f"catalog=[{labels}]"])
    assert choose_games(settings, ["platformers-200"]) == ("Hero-Atari2600-v0", "Kangaroo-Atari2600-v0")
    assert capsys.readouterr().err == (
        "left out: no ROM for MegaMan-Nes-v0, Ristar-Genesis-v0, SuperMarioBros-Nes-v0\n"
    )
    labels.write_text("game,tags\nMegaMan-Nes,side free pl")
    with pytest.raises(ValueError, match="no ROM for MegaMan-Nes-v0: import those of ale-py"):
        choose_games(settings, ["platformers-200"])


def test_a_preset_may_select(tmp_path: Path) -> None:
    (tmp_path / "mazes.yaml").write_text(yaml.safe_dump({"games": ["default", "genre=maze,view=top"]}))
    chosen = choose_games(load_config(tmp_path / "mazes.yaml"))
    assert len(chosen) == 33
    assert "Alien-Atari2600-v0" in chosen


def test_the_doctor_tells_of_each_file(tmp_path: Path) -> None:
    rom = Path(retro_data.get_romfile_path("Hero-Atari2600-v0", retro_data.Integrations.ALL)).read_bytes()
    (tmp_path / "a.bin").write_bytes(bytes(512) + rom)
    (tmp_path / "b.txt").write_text("not a ROM")
    first, second, counts = run("roms", "doctor", tmp_path)[0].splitlines()
    assert first == f"{tmp_path}/a.bin: imported already: Hero-Atari2600-v0; copier header of 512 bytes left out"
    assert second.startswith(f"{tmp_path}/b.txt: not usable: unknown: no game has a ROM with SHA-1 ")
    assert counts == "0 to be imported; 1 imported already; 1 not usable"
