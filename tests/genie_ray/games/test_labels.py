"""CSV files of game labels: ours, RetroAct's as published, and broken ones."""

from pathlib import Path

import numpy as np
import pytest

from genie_ray.games.labels import CONTROL_COLUMNS, OWN_COLUMNS, OWN_FILE, Entry, fold, read_labels

# Lines of the published files: ids without version, lower-case in the second file, no newline at the end.
TAGS = """game,tags
PowerStrikeII-Sms,top h space_shooter
SonicTheHedgehog3-Genesis,side h pl
Gyruss-Nes,3p tube space_shooter
CrackDown-Genesis,multi free shooter
ChubbyCherub-Nes,side free pl_fly
Hero-Atari2600,side free pl"""
CONTROLS = """game,RIGHT,LEFT,UP,DOWN,ACTION_JUMP,ACTION_SECONDARY,transition,Background_Changes
adventureislandii-nes,right,left,none,none,jump,none,YES,YES
megaman-nes,right,left,climb,climb,jump,shoot,NO,YES
jackiechansactionkungfu-nes,right,left,none,crouch,jump,strike,NO,NO"""
OWN_LINE = "Hero-Atari2600,side,free,platformer,right,left,up,none,shoot,probe,"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def own(*lines: str) -> str:
    return "\n".join([",".join(OWN_COLUMNS), *lines])


def test_ours_labels_what_runs_out_of_the_box(roms: list[str]) -> None:
    file = read_labels(OWN_FILE)
    assert file.layout == "ours"
    assert sorted(fold(entry.game) for entry in file.entries) == sorted(map(fold, [*roms, "Airstriker-Genesis-v0"]))
    assert [entry.game for entry in file.entries] == sorted(entry.game for entry in file.entries)
    assert all(entry.view and entry.motion and entry.genre for entry in file.entries)
    platformers = [entry.game.split("-")[0] for entry in file.entries if entry.genre == "platformer"]
    assert platformers == ["ElevatorAction", "Hero", "Kangaroo", "MontezumaRevenge"]


def test_retroacts_list_is_read_as_published(tmp_path: Path) -> None:
    for ending in ("\n", "\r\n"):
        file = read_labels(write(tmp_path / "tags.csv", TAGS.replace("\n", ending)))
        assert file.layout == "retroact_tags"
        assert [(e.game, e.view, e.motion, e.genre) for e in file.entries] == [
            ("PowerStrikeII-Sms", "top", "horizontal", "space_shooter"),
            ("SonicTheHedgehog3-Genesis", "side", "horizontal", "platformer"),
            ("Gyruss-Nes", "third_person", "tube", "space_shooter"),
            ("CrackDown-Genesis", "multi", "free", "shooter"),
            ("ChubbyCherub-Nes", "side", "free", "flying_platformer"),
            ("Hero-Atari2600", "side", "free", "platformer"),
        ]
        assert not any(entry.controls for entry in file.entries)


def test_retroacts_control_labels_are_read_as_published(tmp_path: Path) -> None:
    file = read_labels(write(tmp_path / "controls.csv", CONTROLS))
    assert file.layout == "retroact_controls"
    assert len(file.entries) == 3
    assert file.entries[1] == Entry(
        game="megaman-nes",
        controls={
            "RIGHT": "right",
            "LEFT": "left",
            "UP": "climb",
            "DOWN": "climb",
            "JUMP": "jump",
            "SECONDARY": "shoot",
        },
        scenes_change=False,
        backgrounds_change=True,
    )


def test_our_layout_may_leave_labels_out(tmp_path: Path) -> None:
    text = own("Pong-Atari2600-v0,,vertical,,,,,,,,", OWN_LINE + '"hovers, and digs"', "")
    pong, hero = read_labels(write(tmp_path / "own.csv", b"\xef\xbb\xbf" + text.encode())).entries  # as Excel saves it
    assert pong == Entry(game="Pong-Atari2600-v0", motion="vertical")
    assert hero.controls == {"RIGHT": "right", "LEFT": "left", "UP": "up", "DOWN": "none", "JUMP": "shoot"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", " is empty: a CSV file of game labels is needed"),
        ("game,genre\n", ", line 1: has no column 'view': the columns must be game,view,motion,genre,RIGHT"),
        ("name,tags\nPong,side v pong", ", line 1: has no column 'game': the columns must be game,tags"),
        (TAGS.replace("tags", "tags,year", 1), ", line 1: has an unknown column 'year'"),
        ("game,tags,tags\n", ", line 1: has a repeated column 'tags'"),
        (TAGS.replace("side h pl", "side h"), ", line 3: tags 'side h': must be three: view"),
        (TAGS.replace("side h pl", "side pl h"), ", line 3: unknown motion 'pl': allowed are horizontal (h), vertical"),
        (TAGS.replace("side h pl", "side h rpg"), ", line 3: unknown genre 'rpg': allowed are platformer (pl)"),
        (TAGS + "\nHERO-Atari2600-v0,side free pl", ", line 8: HERO-Atari2600-v0 is labelled twice, first in line 7"),
        (TAGS + "\nPong-Atari2600,side v pong,", ", line 8: 3 fields where the header has 2"),
        (TAGS + "\nPong-Atari2600", ", line 8: 1 fields where the header has 2"),
        (TAGS + "\n,side v pong", ", line 8: no game"),
        (TAGS + '\n"Pong,side v pong', ", line 8: not CSV (unexpected end of data)"),
        (CONTROLS.replace("climb", "fly", 1), ", line 3: unknown control UP='fly': allowed are none, right, left"),
        (CONTROLS.replace("NO,YES", "no,YES"), ", line 3: transition is 'no': allowed are YES and NO"),
        (own(OWN_LINE.replace("probe", "guess")), ", line 2: unknown source 'guess': allowed are probe, viewed"),
        (own(OWN_LINE.replace("probe", "")), ", line 2: controls and their source are given together"),
        (TAGS.encode().replace(b"Sonic", b"S\xf6nic"), ", line 3: not UTF-8 text (byte 0xf6)"),
        (TAGS.encode("utf-16"), ", line 1: not UTF-8 text (byte 0xff)"),
        (TAGS.encode("utf-16-be"), ", line 1: not text (a NUL character)"),
        (b"PK\x03\x04\x14\x00\x00\x00\x08\x00", ", line 1: not text (a NUL character)"),
    ],
)
def test_broken_files_are_told_by_name_and_line(text: str | bytes, told: str, tmp_path: Path) -> None:
    path = write(tmp_path / "labels.csv", text)
    with pytest.raises(ValueError, match="labels") as refusal:
        read_labels(path)
    assert str(refusal.value).startswith(f"{path}{told}")
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file of game labels: .*nowhere\.csv"):
        read_labels(tmp_path / "nowhere.csv")


def test_whatever_is_in_a_file_it_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "fuzzed.csv"
    refusals: list[ValueError] = []
    sources = [OWN_FILE.read_bytes(), TAGS.encode(), CONTROLS.encode(), bytes(range(256))]
    for trial in range(600):
        content = bytearray(sources[trial % len(sources)])
        for _ in range(rng.integers(1, 6)):
            start = rng.integers(len(content))
            content[start : start + rng.integers(4)] = rng.choice([b'"', b",", b"\n", b"\r", b"\0", rng.bytes(3)])
        try:
            read_labels(write(path, bytes(content)))
        except ValueError as error:
            refusals.append(error)
    assert len(refusals) > 300
    assert all(str(error).startswith(str(path)) and "\n" not in str(error) for error in refusals)
    assert not any(isinstance(error, UnicodeError) for error in refusals)


def test_columns_are_those_that_retroact_publishes() -> None:
    assert CONTROLS.splitlines()[0] == ",".join(CONTROL_COLUMNS)
