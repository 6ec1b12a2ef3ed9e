"""Game ids and ROMs."""

import os
import zipfile

import pytest
from stable_retro import data as retro_data

from genie_ray.games.roms import import_from_ale, import_roms, installed_games, known_games, require_rom, resolve_game


def test_resolves_names_with_and_without_version() -> None:
    assert resolve_game("Kangaroo-Atari2600") == "Kangaroo-Atari2600-v0"
    assert resolve_game("Kangaroo-Atari2600-v0") == "Kangaroo-Atari2600-v0"


def test_unknown_game_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown game 'SuperMarioBroz-Nes'.*SuperMarioBros-Nes-v0"):
        resolve_game("SuperMarioBroz-Nes")


def test_missing_rom_says_how_to_import() -> None:
    missing = (set(known_games()) - set(installed_games())).pop()
    with pytest.raises(ValueError, match=f"no ROM for {missing}: import .*genie-ray roms") as error:
        require_rom(missing)
    assert "\n" not in str(error.value)


def test_ale_brings_the_platformers(roms: list[str]) -> None:
    platformers = {"MontezumaRevenge", "Kangaroo", "Hero", "ElevatorAction"}
    assert {f"{name}-Atari2600-v0" for name in platformers} <= set(roms)
    assert len(roms) >= 32
    assert {*roms, "Airstriker-Genesis-v0"} <= set(installed_games())


def test_importing_again_changes_nothing(roms: list[str]) -> None:
    installed = installed_games()
    path = retro_data.get_romfile_path("Hero-Atari2600-v0", retro_data.Integrations.ALL)
    written_at = os.stat(path).st_mtime_ns
    assert import_from_ale() == roms
    assert installed_games() == installed
    assert os.stat(path).st_mtime_ns == written_at


def test_imports_from_files_directories_and_archives(roms, tmp_path) -> None:
    rom = retro_data.get_romfile_path("Kangaroo-Atari2600-v0", retro_data.Integrations.ALL)
    with zipfile.ZipFile(tmp_path / "collection.zip", "w") as archive:
        archive.write(rom, "kangaroo.a26")
    (tmp_path / "notes.txt").write_text("not a ROM")
    assert import_roms([tmp_path]) == ["Kangaroo-Atari2600-v0"]
    assert import_roms([rom, tmp_path / "notes.txt"]) == ["Kangaroo-Atari2600-v0"]
    with pytest.raises(ValueError, match=r"no such file or directory: .*nowhere"):
        import_roms([tmp_path / "nowhere"])
