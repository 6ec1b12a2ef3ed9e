"""Choosing games by label, selection or id; games that are not installed are listed separately."""

from pathlib import Path

import pytest

from genie_ray.games.catalog import Catalog
from genie_ray.games.labels import OWN_COLUMNS, Entry
from genie_ray.games.roms import installed_games, known_games

pytestmark = pytest.mark.usefixtures("roms")


def labels(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines]))
    return path


def names(entries: list[Entry]) -> list[str]:
    return [entry.game.removesuffix("-v0") for entry in entries]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def retroact(tmp_path: Path) -> Catalog:
    """Files in RetroAct's layouts: 210 platformers and some others; control labels of three games."""
    platformers = [game for game in known_games() if game.endswith("-Nes-v0")][:206] + [
        f"{name}-Atari2600-v0" for name in ("MontezumaRevenge", "Kangaroo", "Hero", "ElevatorAction")
    ]
    lines = [f"{game.removesuffix('-v0')},side free pl" for game in platformers]
    lines += ["Pong-Atari2600,side v pong", "AAA-Nes,side free pl_fly", "NotKnownToRetro-Nes,side free pl"]
    tags = labels(tmp_path / "tags.csv", "game,tags", *reversed(lines))
    header = "game,RIGHT,LEFT,UP,DOWN,ACTION_JUMP,ACTION_SECONDARY,transition,Background_Changes"
    moves = "right,left,none,crouch,jump,shoot,NO,YES"
    controls = [f"{game},{moves}" for game in ("supermariobros-nes", "hero-atari2600", "castlevania-nes")]
    return Catalog([tags, labels(tmp_path / "controls.csv", header, *controls)])


def test_selects_by_words_and_by_retroacts_tags(catalog: Catalog) -> None:
    four = ["ElevatorAction-Atari2600", "Hero-Atari2600", "Kangaroo-Atari2600", "MontezumaRevenge-Atari2600"]
    assert names(catalog.select(genre="platformer")) == four
    assert catalog.select(genre="pl", motion="free", view="side", installed=True) == catalog.select(genre="platformer")
    assert names(catalog.select(genre="platformer", limit=2)) == four[:2]
    assert names(catalog.select(genre="pong", motion="v")) == ["Pong-Atari2600"]
    assert names(catalog.select(view="1p")) == names(catalog.select(view="first_person")) == ["Robotank-Atari2600"]
    assert catalog.select(genre="platformer", installed=False) == []
    assert len(catalog.select()) == len(known_games())  # unlabelled ones are there, and have no label
    assert names(catalog.select(installed=True)) == [game.removesuffix("-v0") for game in installed_games()]


def test_what_cannot_be_selected_is_told(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"unknown genre 'rpg': allowed are platformer \(pl\), .*other$"):
        catalog.select(genre="rpg")
    with pytest.raises(ValueError, match="unknown action 'FIRE': allowed are RIGHT, LEFT, UP, DOWN, JUMP, SECONDARY"):
        catalog.select(controls={"FIRE": "shoot"})
    with pytest.raises(ValueError, match="unknown control JUMP='leap': allowed are none"):
        catalog.select(controls={"JUMP": "leap"})
    with pytest.raises(ValueError, match="limit is 0: must be at least 1"):
        catalog.select(limit=0)


def test_the_default_are_the_games_that_run_out_of_the_box(catalog: Catalog, roms: list[str]) -> None:
    choice = catalog.choose(["default"])
    assert set(choice.installed) == {*roms, "Airstriker-Genesis-v0"}
    assert len(choice.installed) == 33
    assert choice.missing == ()


def test_the_papers_subsets_need_retroacts_files(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"platformers-200 is taken from RetroAct's list of games: give its CSV file"):
        catalog.choose(["platformers-200"])
    with pytest.raises(ValueError, match=r"aligned-50 is taken from RetroAct's control labels: give its CSV file"):
        catalog.named("aligned-50")
    with pytest.raises(ValueError, match="unknown selection 'all': allowed are default, platformers-200, aligned-50"):
        catalog.named("all")


def test_the_papers_subsets_are_told_apart_by_what_is_installed(retroact: Catalog) -> None:
    chosen = names(retroact.named("platformers-200"))
    assert len(chosen) == 200
    assert chosen == sorted(chosen)
    assert "AAA-Nes" not in chosen  # it comes first by name, and is no plain platformer
    assert {"ElevatorAction-Atari2600", "Hero-Atari2600", "Kangaroo-Atari2600"} <= set(chosen)
    choice = retroact.choose(["platformers-200"])
    assert len(choice.installed) + len(choice.missing) == 200
    assert set(choice.installed) <= set(installed_games())
    assert not set(choice.missing) & set(installed_games())
    aligned = ["Castlevania-Nes", "Hero-Atari2600", "SuperMarioBros-Nes"]  # by the ids that Stable-Retro has
    assert names(retroact.named("aligned-50")) == aligned
    assert names(retroact.select(controls={"JUMP": "jump", "SECONDARY": "shoot"}, installed=True)) == ["Hero-Atari2600"]
    hero = retroact["Hero-Atari2600"]
    assert (hero.genre, hero.controls["DOWN"], hero.scenes_change, hero.backgrounds_change) == (
        "platformer",
        "crouch",
        False,
        True,
    )


def test_of_two_files_the_later_wins_label_by_label(tmp_path: Path) -> None:
    header = ",".join(OWN_COLUMNS)
    first = labels(tmp_path / "1.csv", header, "Hero-Atari2600,top,fixed,,right,left,climb,none,jump,probe,")
    second = labels(tmp_path / "2.csv", header, "hero-atari2600,,free,,,,up,,,viewed,")
    hero = Catalog([first, second])["Hero-Atari2600-v0"]
    assert (hero.view, hero.motion, hero.genre) == ("top", "free", "platformer")  # the last from our own file
    assert hero.controls == {"RIGHT": "right", "LEFT": "left", "UP": "up", "DOWN": "none", "JUMP": "jump"}


def test_games_are_chosen_by_id_query_and_name_each_once(catalog: Catalog) -> None:
    choice = catalog.choose(["Pong-Atari2600", "genre=pl,motion=free,limit=3", "Hero-Atari2600-v0", "view=top"])
    assert choice.installed[:4] == tuple(
        f"{name}-Atari2600-v0" for name in ("Pong", "ElevatorAction", "Hero", "Kangaroo")
    )
    assert len(set(choice.installed)) == len(choice.installed)
    assert "Alien-Atari2600-v0" in choice.installed


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Kangoroo-Atari2600", "unknown game 'Kangoroo-Atari2600'.*nearest: Kangaroo-Atari2600-v0"),
        ("SuperMarioBros-Nes", "no ROM for SuperMarioBros-Nes-v0: import"),
        ("genre=tetris", "no game is labelled genre=tetris"),
        ("genre=pl,size=3", r"query 'genre=pl,size=3': 'size=3' is not one of limit=NUMBER or key=value with view, "),
        ("limit=many", "'limit=many' is not one of limit=NUMBER"),
    ],
)
def test_what_cannot_be_chosen_is_told(name: str, told: str, catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=told):
        catalog.choose([name])
