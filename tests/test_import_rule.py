"""Who may import whom (the import graph itself): world_model ← genie_ray → policies, and nothing points back."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "world_model": {"genie_ray", "policies", "ray"},
    "policies": {"genie_ray", "world_model"},
    "genie_ray": set(),
}


def imported_packages(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_import_points_back(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    broken = {str(path.relative_to(ROOT)): imported_packages(path) & FORBIDDEN[package] for path in files}
    assert not {path: names for path, names in broken.items() if names}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import world_model.checkpoint, world_model.genie", ["ray", "genie_ray", "policies"]),
        (
            "import policies.autoexplore.config, policies.baselines.config, policies.checks, policies.ray_internals, "
            "policies.rewards",
            ["ray", "torch", "gymnasium"],
        ),
        ("import genie_ray", ["ray", "torch", "stable_retro"]),
        ("import genie_ray.cli", ["ray", "torch", "stable_retro", "pydantic", "matplotlib"]),
    ],
)
def test_import_stays_light(statement: str, absent: list[str]) -> None:
    """`genie-ray --help` is quick because none of the heavy packages is imported before a command needs it."""
    code = f"{statement}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
