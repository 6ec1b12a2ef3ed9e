"""procgen's games, and how procgen is installed into this environment, where `pip install procgen` refuses.

procgen's last wheels are for Python 3.10, but their compiled part is a plain shared library that any Python loads
through cffi. Its Python part requires NumPy before 2.0 and imports gym, yet runs with NumPy 2 and the last gym. So the
three packages are installed as published, without their dependencies. They are tried in a directory of their own first,
so that a platform on which procgen does not run is left as it was.
"""

import importlib
import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROCGEN_GAMES = (
    *("BigFish", "BossFight", "CaveFlyer", "Chaser", "Climber", "CoinRun", "Dodgeball", "FruitBot", "Heist", "Jumper"),
    *("Leaper", "Maze", "Miner", "Ninja", "Plunder", "StarPilot"),
)
"""The games that are procgen's, not Stable-Retro's, as Cobbe et al. (2019, arXiv 1912.01588) call them."""
PACKAGES = (
    ("gym3==0.3.3", ()),
    ("gym==0.26.2", ()),  # only its register() is called
    ("procgen==0.10.7", ("--only-binary=:all:", "--python-version=3.10")),
)
CHECK = "import sys; sys.path.append(sys.argv[1]); from procgen import ProcgenGym3Env as Env; Env(1, 'coinrun')"


def has_procgen() -> bool:
    """Whether procgen is installed."""
    return importlib.util.find_spec("procgen") is not None


def install_procgen() -> None:
    """Install procgen with pip, if it is not there yet.

    Raises:
        ValueError: pip cannot install it, or it does not run on this platform.
    """
    if has_procgen():
        return
    packages = Path(sysconfig.get_path("purelib"))
    with tempfile.TemporaryDirectory(dir=packages, prefix=".procgen-") as directory:
        for package, options in PACKAGES:
            target = ("install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", directory)
            _run(f"{package} cannot be installed", "-m", "pip", *target, *options, package)
        _run("procgen does not run here", "-c", CHECK, directory)
        for path in sorted(
            Path(directory).iterdir(), key=lambda path: path.name == "procgen"
        ):  # what is looked for last
            if path.name != "bin" and not (packages / path.name).exists():
                path.rename(packages / path.name)
    importlib.invalidate_caches()


def _run(failure: str, *arguments: str) -> None:
    """Run this Python; if it fails, raise with the last line that it printed."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        raise ValueError(f"{failure}: {lines[-1]}")
