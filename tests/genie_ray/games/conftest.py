"""Integration folders with the user's own games."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stable_retro import data as retro_data


@pytest.fixture
def integration(roms: list[str], tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Copies a game's integration, without its ROM, under another id into a new folder; returns the folder."""

    def copy(game: str, name: str) -> Path:
        folder = tmp_path / "integrations"
        source = Path(retro_data.get_file_path(game, "rom.sha", retro_data.Integrations.ALL)).parent
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("rom.a26", "rom.md"))
        return folder

    yield copy
    retro_data.Integrations.clear_custom_paths()
