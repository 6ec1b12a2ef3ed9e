"""procgen, which CoinRun needs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL_PROCGEN = Path(__file__).parents[3] / "experiments" / "coinrun" / "install_procgen.py"


@pytest.fixture(scope="session")
def procgen(pytestconfig: pytest.Config) -> None:
    """procgen; if missing, installed under pytest's temporary directory."""
    if importlib.util.find_spec("procgen") is not None:
        return
    target = pytestconfig.cache.mkdir("procgen")
    if not (target / "procgen").is_dir() or not (target / "gym").is_dir():
        command = [sys.executable, INSTALL_PROCGEN, "--target", target]
        installed = subprocess.run(command, capture_output=True, text=True)
        if installed.returncode:
            pytest.skip(f"procgen cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    sys.path.append(str(target))
