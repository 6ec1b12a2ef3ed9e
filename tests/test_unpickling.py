"""Nothing that a user names is unpickled: loading a pickle runs code that the file brings.

The test walks the source for every call that can unpickle, and holds the few that are allowed, each with its reason.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("genie_ray", "policies", "world_model", "experiments", "clusters")

ALLOWED = {
    ("genie_ray/playing/agents.py", "pickle.loads"): "a training's own resume state, in a directory that it made",
    ("genie_ray/playing/agents.py", "algorithm.restore_from_path"): "RLlib's part of the same state",
    (
        "genie_ray/evaluating/networks.py",
        "torch.jit.load",
    ): "TorchScript, which holds no Python; users bring weights so",
    ("genie_ray/base/files.py", "yaml.load"): "with a loader that is PyYAML's SafeLoader, made stricter",
}

UNPICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle")
RESTORING = ("restore_from_path", "from_checkpoint", "read_pickle", "Unpickler", "pickle_load")  # RLlib, pandas
YAML = ("load", "load_all", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all")


def unpickling(source: str) -> Iterator[str]:
    """The dotted names of what is called and can unpickle."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            yield from (f"from {node.module} import {alias.name}" for alias in node.names)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        owner, _, last = name.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if (
            (owner in UNPICKLERS and last in ("load", "loads", "open", "Unpickler"))
            or (owner == "yaml" and last in YAML)
            or (name == "torch.load" and given.get("weights_only") != "True")
            or name in ("torch.jit.load", "torch.package.PackageImporter", "eval", "exec")
            or given.get("allow_pickle", "False") != "False"
            or last in RESTORING
        ):
            yield name


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pickle\npickle.load(file)", ["pickle.load"]),
        ("from pickle import loads", ["from pickle import loads"]),
        ("import pickle\npickle.dumps(state)\nexcept_ = pickle.UnpicklingError", []),
        ("torch.load(path)", ["torch.load"]),
        ("torch.load(path, weights_only=flag)", ["torch.load"]),
        ("torch.load(path, map_location='cpu', weights_only=True)", []),
        ("np.load(path)", []),  # numpy's own default refuses
        ("np.load(path, allow_pickle=True)", ["np.load"]),
        ("yaml.load(text, Loader=yaml.Loader)", ["yaml.load"]),
        ("yaml.safe_load(text)", []),
        ("Algorithm.from_checkpoint(path)", ["Algorithm.from_checkpoint"]),
        ("joblib.load(path)", ["joblib.load"]),
    ],
)
def test_the_walk_finds_what_unpickles(source: str, found: list[str]) -> None:
    assert list(unpickling(source)) == found


def test_nothing_else_unpickles() -> None:
    calls = {
        (str(path.relative_to(ROOT)), name)
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in unpickling(path.read_text())
    }
    assert calls == set(ALLOWED)
