"""Installs procgen, the package with CoinRun, into this environment, where `pip install procgen` refuses.

procgen's last wheels are for Python 3.10, but their compiled part is a plain shared library that any Python loads
through cffi. Its Python part requires NumPy before 2.0 and imports gym, yet runs with NumPy 2 and the last gym. So the
three packages are installed as published, without their dependencies:

    pip install -e .[coinrun]
    python experiments/coinrun/install_procgen.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig

PACKAGES = (
    ("procgen==0.10.7", ("--only-binary=:all:", "--python-version=3.10")),
    ("gym3==0.3.3", ()),
    ("gym==0.26.2", ()),  # only its register() is called
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default=sysconfig.get_path("purelib"), help="directory; default: %(default)s")
    target = parser.parse_args().target
    for package, options in PACKAGES:
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            target,
            *options,
            package,
        ]
        if subprocess.run(command).returncode:
            sys.exit(f"could not install {package}: see above")
    check = f"import sys; sys.path.append({target!r}); from procgen import ProcgenGym3Env as Env; Env(1, 'coinrun')"
    if subprocess.run([sys.executable, "-c", check]).returncode:
        sys.exit("procgen is installed but does not run here: see above")
    print(f"procgen runs from {target}")


if __name__ == "__main__":
    main()
