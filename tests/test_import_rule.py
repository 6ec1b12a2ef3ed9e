"""Which code may import which, checked on the import graph itself: the packages, and the rooms of genie_ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PACKAGES = {
    "world_model": "nothing of ours, no Ray",
    "policies": "nothing of ours",
    "genie_ray": "both",
}
FORBIDDEN = {
    "world_model": {"genie_ray", "policies", "ray"},
    "policies": {"genie_ray", "world_model"},
    "genie_ray": set(),
}

ROOMS = """
    cli commands loop stages    parse, order the stages
    reproducing                 the papers' tables
    config                      all settings of a run
    report                      one page per run
    studies                     what people say about clips
    sweeping                    Ray Tune
    exploring                   AutoExplore as a stage
    playing                     agents as a stage
    evaluating                  scores, predictors, rollouts
    training                    jobs, tasks, the one loop
    web                         pages in the browser
    sharing                     checkpoints for elsewhere
    collecting                  plan, pool, worker, shards
    rewards                     the service and its clients
    probing                     what a game's actions do
    envs                        gymnasium environments
    replay                      datasets
    games                       which games there are
    submitting                  commands as jobs
    base                        knows nothing above it
    storage                     paths on disks and object stores
"""
"""From the top: a module imports from its own line and from those below, never from one above."""

LEVELS = {
    room: level
    for level, line in enumerate(ROOMS.strip().splitlines())
    for room in line.strip().split("  ", 1)[0].split()
}
TOP = ("__init__", "__main__")
"""What Python starts."""


def module_name(path: Path) -> str:
    """`genie_ray/base/files.py` → `genie_ray.base.files`; a package is named by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))}


def imports(path: Path) -> set[tuple[str, str]]:
    """(module, name) of everything that a file imports, at any depth, in functions and for type checkers too."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {(node.module, alias.name) for alias in node.names}
    return found


def used_modules(name: str) -> set[str]:
    """Our own modules that a module imports."""
    used = {f"{module}.{what}" if f"{module}.{what}" in FILES else module for module, what in imports(FILES[name])}
    return {module for module in used if module in FILES and module != name}


def room(name: str) -> str:
    """The room of a module of genie_ray: its folder, or the module itself at the top."""
    return name.split(".")[1]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_points_back(package: str) -> None:
    files = [path for name, path in FILES.items() if name.split(".")[0] == package]
    assert files
    broken = {
        str(path.relative_to(ROOT)): names
        for path in files
        if (names := {module.split(".")[0] for module, _ in imports(path)} & FORBIDDEN[package])
    }
    assert not broken


def test_every_module_has_a_room() -> None:
    names = [name for name in FILES if name.startswith("genie_ray.")]
    homeless = [name for name in names if room(name) not in LEVELS and room(name) not in TOP]
    assert not homeless
    assert {room(name) for name in names} >= set(LEVELS), "a room that is listed is not there"


def test_imports_go_down() -> None:
    upward = [
        f"{name} → {used}"
        for name in FILES
        if name.startswith("genie_ray.") and room(name) in LEVELS
        for used in sorted(used_modules(name))
        if used.startswith("genie_ray.") and LEVELS[room(used)] < LEVELS[room(name)]
    ]
    assert not upward


def test_no_circles() -> None:
    graph = {name: used_modules(name) for name in FILES}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        left = [start]
        while left:
            new = graph[left.pop()] - seen
            seen |= new
            left += new
        return seen

    assert not [name for name in graph if name in reached(name)]


def test_nothing_private_is_imported() -> None:
    """`_name` stays in its module."""
    private = [
        f"{name}: {module}.{what}"
        for name, path in FILES.items()
        for module, what in imports(path)
        if module.split(".")[0] in FORBIDDEN and what.startswith("_") and not what.startswith("__")
    ]
    assert not private


def test_rooms_are_small() -> None:
    """No file over 300 lines, no folder over 13 modules: anything larger would have two subjects."""
    sources = [*FILES.values(), *(ROOT / "experiments").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert not [path.name for path in sources if len(path.read_text().splitlines()) > 300]
    folders: dict[Path, int] = {}
    for path in FILES.values():
        folders[path.parent] = folders.get(path.parent, 0) + (path.stem != "__init__")
    assert not {folder.name: count for folder, count in folders.items() if count > 13}


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import world_model.checkpoint, world_model.genie", ["ray", "genie_ray", "policies"]),
        (
            "import policies.autoexplore.config, policies.baselines.config, policies.ppo.config, policies.checks, "
            "policies.ray_internals, policies.rewards",
            ["ray", "torch", "gymnasium"],
        ),
        ("import genie_ray", ["ray", "torch", "stable_retro"]),
        ("import genie_ray.cli", ["ray", "torch", "stable_retro", "pydantic", "matplotlib"]),
        ("import genie_ray.config", ["ray", "stable_retro", "cv2", "pyarrow", "matplotlib", "torchmetrics", "rich"]),
    ],
)
def test_import_stays_light(statement: str, absent: list[str]) -> None:
    """`genie-ray --help` is quick because no heavy package is imported before a command needs it.

    Settings import PyTorch, because a model's config is in the model's module, but nothing else heavy.
    """
    code = f"{statement}\nimport sys\nprint([name for name in {absent!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_a_package_named_tests_that_a_library_installs_does_not_hide_ours(tmp_path: Path) -> None:
    """draccus, which lerobot needs, installs one."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise ImportError('not ours')")
    code = f"import sys\nsys.path.insert(1, {str(tmp_path)!r})\nimport tests.fuzz.judging as ours\nprint(ours.__file__)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert Path(result.stdout.strip()) == ROOT / "tests" / "fuzz" / "judging.py"
