"""Folders of games of one's own, and procgen."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stable_retro import data as retro_data

INSTALL_PROCGEN = Path(__file__).parents[3] / "experiments" / "coinrun" / "install_procgen.py"


@pytest.fixture
def integration(roms: list[str], tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Copies the integration of a game, without its ROM, under another id into a folder of one's own; the folder."""

    def copy(game: str, name: str) -> Path:
        folder = tmp_path / "integrations"
        source = Path(retro_data.get_file_path(game, "rom.sha", retro_data.Integrations.ALL)).parent
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("rom.a26", "rom.md"))
        return folder

    yield copy
    retro_data.Integrations.clear_custom_paths()


@pytest.fixture(scope="session")
def procgen(pytestconfig: pytest.Config) -> None:
    """procgen, installed where pytest keeps its files if it is not installed."""
    if importlib.util.find_spec("procgen") is not None:
        return
    target = pytestconfig.cache.mkdir("procgen")
    if not (target / "procgen").is_dir() or not (target / "gym").is_dir():
        command = [sys.executable, INSTALL_PROCGEN, "--target", target]
        installed = subprocess.run(command, capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"procgen cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    sys.path.append(str(target))
