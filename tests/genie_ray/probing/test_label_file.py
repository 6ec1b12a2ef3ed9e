"""The CSV file to which labels are written."""

from pathlib import Path

import pytest

from genie_ray.games.labels import OWN_FILE, read_labels
from genie_ray.probing.label_file import write_labels

HEADER = "game,view,motion,genre,RIGHT,LEFT,UP,DOWN,JUMP,source,notes\n"
FIVE = {"RIGHT": "right", "LEFT": "left", "UP": "jump", "DOWN": "crouch", "JUMP": "punch", "RIGHT+JUMP": "right"}


def test_a_new_file_is_sorted_and_the_catalog_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "games.csv"
    assert (
        write_labels(path, {"Kangaroo-Atari2600-v0": FIVE, "Airstriker-Genesis-v0": dict.fromkeys(FIVE, "none")}) == ()
    )
    assert path.read_text() == (
        HEADER
        + "Airstriker-Genesis,,,,none,none,none,none,none,probe,\n"
        + "Kangaroo-Atari2600,,,,right,left,jump,crouch,punch,probe,\n"
    )
    kangaroo = read_labels(path).entries[1]
    assert kangaroo.controls == {action: label for action, label in FIVE.items() if "+" not in action}


def test_other_columns_and_confirmed_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "games.csv"
    confirmed = 'Hero-Atari2600,side,free,platformer,right,left,up,down,shoot,viewed,"flies, shoots"\n'
    path.write_text(HEADER + "kangaroo-atari2600,side,free,platformer,,,,,,,my note\n" + confirmed)
    labels = {"Kangaroo-Atari2600-v0": FIVE, "Hero-Atari2600-v0": FIVE}
    assert write_labels(path, labels) == ("Hero-Atari2600-v0",)
    kangaroo = "kangaroo-atari2600,side,free,platformer,right,left,jump,crouch,punch,probe,my note\n"
    assert path.read_text() == HEADER + confirmed + kangaroo

    assert write_labels(path, labels, overwrite=True) == ()
    assert confirmed.replace("up,down,shoot,viewed", "jump,crouch,punch,probe") in path.read_text()


def test_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text("game,tags\nkangaroo-atari2600,side h pl\n")
    with pytest.raises(ValueError, match="is RetroAct's"):
        write_labels(path, {"Kangaroo-Atari2600-v0": FIVE})
    assert path.read_text().startswith("game,tags\n")


def test_every_game_that_runs_out_of_the_box_was_looked_at(roms: list[str]) -> None:
    entries = read_labels(OWN_FILE).entries
    assert {f"{entry.game}-v0" for entry in entries} == {*roms, "Airstriker-Genesis-v0"}
    assert all(len(entry.controls) == 5 for entry in entries)
    sources = [line.split(",")[9] for line in OWN_FILE.read_text().splitlines()[1:]]
    assert set(sources) == {"viewed"}


def test_blank_lines_and_blanks_in_a_file_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "games.csv"
    path.write_text("\n\n" + HEADER + "\n  Hero-Atari2600 ,side,,,,,,,,,\n")
    write_labels(path, {"Hero-Atari2600-v0": FIVE})
    (hero,) = read_labels(path).entries
    assert (hero.view, hero.controls["UP"]) == ("side", "jump")
