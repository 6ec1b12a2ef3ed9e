"""Ray still has the internals that we use, and one file lists all of them."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from packaging.requirements import Requirement
from packaging.version import Version
from ray.train.torch import TorchTrainer

from policies.ray_internals import HERE, USED, Internal, needed_callbacks

ROOT = Path(__file__).parents[2]
OURS = {
    str(path.relative_to(ROOT)): path.read_text()
    for package in ("policies", "genie_ray", "experiments")
    for path in sorted((ROOT / package).rglob("*.py"))
}
TESTS_USE = (
    Internal(
        owner="ray.rllib.core.learner.learner_group.LearnerGroup",
        name="_learner",
        why="tests look at the learner of an algorithm",
        user="tests",
    ),
    Internal(
        owner="ray.rllib.core.learner.torch.torch_learner.TorchLearner",
        name="_learner_connector",
        why="tests look at the batch that a learner makes of its sequences",
        user="tests",
    ),
)


def find(dotted: str) -> Any:
    """A module, class or function by its full name.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    module, names = dotted, []
    while True:
        try:
            found = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            if "." not in module:
                raise
            module, _, name = module.rpartition(".")
            names.insert(0, name)
    for name in names:
        found = getattr(found, name)
    return found


def assigned(cls: type) -> set[str]:
    """The attributes of `self` that a class's methods, or its bases', assign."""
    names = set()
    for base in cls.__mro__[:-1]:
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(base)))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) == "self"
            ):
                names.add(node.attr)
    return names


def has(owner: Any, name: str) -> bool:
    """Whether `owner` has it: a module a name, a class a method or attribute, a function an argument."""
    if inspect.ismodule(owner):
        return hasattr(owner, name)
    if inspect.isclass(owner):
        return hasattr(owner, name) or name in assigned(owner)
    taken = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(owner))))
    return name in inspect.signature(owner).parameters or any(  # or one popped from **kwargs by name
        isinstance(node, ast.Call) and ast.unparse(node.func) == "kwargs.pop" and ast.literal_eval(node.args[0]) == name
        for node in taken
    )


def require(internal: Internal) -> None:
    """Fails if the installed Ray does not have it."""
    try:
        there = has(find(internal.owner), internal.name)
    except (ImportError, AttributeError):
        there = False
    if not there:
        pytest.fail(
            f"Ray {ray.__version__} no longer has {internal.owner} with {internal.name}: see {HERE}; "
            f"{internal.user} uses it for: {internal.why}"
        )


@pytest.mark.parametrize("internal", [*USED, *TESTS_USE], ids=lambda internal: f"{internal.owner}-{internal.name}")
def test_ray_still_has_it(internal: Internal) -> None:
    require(internal)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("ray.serve._private.constants", "NOTHING"),
        ("ray.serve._private.nowhere", "SERVE_NAMESPACE"),
        ("ray.init", "_node_address"),
        ("ray.rllib.env.single_agent_env_runner.SingleAgentEnvRunner", "_needs_reset"),
        ("ray.rllib.env.single_agent_env_runner.NoRunner", "_seed"),
    ],
)
def test_what_is_gone_is_named(owner: str, name: str) -> None:
    message = f"Ray {ray.__version__} no longer has {owner} with {name}: see policies/ray_internals.py"
    with pytest.raises(pytest.fail.Exception, match=re.escape(message)):
        require(Internal(owner=owner, name=name, why="a test"))


@pytest.mark.parametrize("local", [True, False])
def test_trainings_start_no_idle_process_and_a_cluster_keeps_its_cleaner(
    local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    default = TorchTrainer(lambda: None)._create_default_callbacks()
    monkeypatch.setattr("ray._private.worker._global_node", SimpleNamespace(head=local))
    kept = {type(callback).__name__ for callback in needed_callbacks(default)}
    gone = {type(callback).__name__ for callback in default} - kept
    assert gone == {"DatasetsCallback"} | ({"PlacementGroupCleanerCallback"} if local else set())
    assert kept


def names_in(source: str) -> Iterator[str]:
    """Names by which a file may reach into Ray: attributes, methods, keywords, and imports from Ray."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # a dictionary's keys may become keywords, `getattr` takes a name
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (module for module in modules if module.startswith("ray."))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ray."))


def test_nothing_else_reaches_into_ray() -> None:
    alone = {internal.name for internal in USED if internal.user == HERE and internal.name.startswith("_")}
    assert {"_worker_manager", "_internal", "_node_ip_address", "_system_config"} <= alone
    for path, source in OURS.items():
        if path != HERE:
            found = set(names_in(source))
            assert not found & alone, path
            assert not {name for name in found if name.startswith("ray.") and "._" in name}, path


@pytest.mark.parametrize("internal", USED, ids=lambda internal: internal.name)
def test_what_is_listed_is_used(internal: Internal) -> None:
    """Each by the file named, outside the list itself."""
    source = OURS[internal.user]
    if internal.user == HERE:
        source = source[source.index("def start_local_ray") :]
    assert {f"{internal.owner}.{internal.name}", internal.name} & set(names_in(source))


def test_setup_admits_the_installed_ray_and_none_that_is_newer() -> None:
    """So what passes here passes with every Ray version that pip may install."""
    (requirement,) = (
        Requirement(node.value)
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Constant) and str(node.value).startswith("ray[")
    )
    installed = Version(ray.__version__)
    assert installed in requirement.specifier
    assert Version(f"{installed.major}.{installed.minor + 1}.0") not in requirement.specifier
    assert Version(f"{installed.major + 1}.0.0") not in requirement.specifier
