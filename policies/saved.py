"""Policies on disk: weights as safetensors, and everything else as JSON. Nothing that a file brings is ever run.

<directory>/weights.safetensors
<directory>/policy.json          its kind, its settings, the frames and actions that it is for
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from ray.rllib.core.rl_module.rl_module import RLModule
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from policies.agent57.config import Agent57Settings
from policies.agent57.module import Agent57Module
from policies.autoexplore.config import AutoExploreModuleConfig
from policies.autoexplore.module import AutoExploreModule
from policies.exploration import Explorer
from policies.ppo.config import ExplorerPPOSettings, PPOSettings
from policies.ppo.module import PPOModule

POLICY_FILE, WEIGHTS_FILE = "policy.json", "weights.safetensors"
LITTLE = 64 << 20  # bytes of weights that are made though their file may not have them
LONGEST = 200  # characters of what a file holds, in a message
PICKLED = "module_state.pkl"  # of an RLlib checkpoint


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A policy that can be saved."""

    module: type[RLModule]
    settings: type
    key: str  # of the settings in the module's `model_config`


KINDS = {
    "autoexplore": Kind(module=AutoExploreModule, settings=AutoExploreModuleConfig, key="network"),
    "ppo explorer": Kind(module=PPOModule, settings=ExplorerPPOSettings, key="settings"),
    "ppo": Kind(module=PPOModule, settings=PPOSettings, key="settings"),
    "agent57": Kind(module=Agent57Module, settings=Agent57Settings, key="settings"),
}


def save_policy(module: Any, directory: Path, about: dict[str, Any] | None = None) -> None:
    """Saves what acting needs of a trained policy.

    Args:
        directory: is created.
        about: further entries of policy.json, as JSON, e.g. the game and the names of its actions.
    """
    kind = next(name for name, kind in KINDS.items() if kind.settings is type(module.settings))
    directory.mkdir(parents=True, exist_ok=True)
    dropped = tuple(f"{name}." for name in module.get_non_inference_attributes())
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in module.state_dict().items()
        if not name.startswith(dropped)
    }
    save_file(weights, directory / WEIGHTS_FILE)
    policy = {
        "kind": kind,
        "frame_shape": list(module.observation_space.shape),
        "num_actions": int(module.action_space.n),
        "settings": asdict(module.settings),
        **(about or {}),
        "weights_sha256": _file_hash(directory / WEIGHTS_FILE),
    }
    policy["sha256"] = _hash(policy)
    (directory / POLICY_FILE).write_text(json.dumps(policy, indent=1))


def _file_hash(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _hash(policy: dict[str, Any]) -> str:
    """SHA-256 (hex) of what a policy's JSON says, but for this hash."""
    rest = {name: value for name, value in policy.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_policy(directory: str | Path) -> dict[str, Any]:
    """What a saved policy's JSON says.

    Raises:
        ValueError: no policy there, or of a kind that is unknown.
    """
    path = Path(directory)
    if not (path / POLICY_FILE).is_file():
        if (path / PICKLED).is_file():
            raise ValueError(
                f"{path} holds a pickled policy ({PICKLED}): loading it would run code that the file brings. Train it "
                f"again; policies are saved as {POLICY_FILE} and {WEIGHTS_FILE}"
            )
        raise ValueError(f"no policy in {path}: it has no {POLICY_FILE}")
    try:
        policy = json.loads((path / POLICY_FILE).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path / POLICY_FILE} is damaged: it is not a JSON object") from error
    if not isinstance(policy, dict):
        raise ValueError(f"{path / POLICY_FILE} is damaged: it is not a JSON object")
    if policy.get("kind") not in list(KINDS):
        kind = repr(policy.get("kind"))[:LONGEST]
        raise ValueError(f"{path}: the kind of policy is {kind}; known: {', '.join(KINDS)}")
    if policy.get("sha256") not in (None, _hash(policy)):  # None: as once written
        raise ValueError(f"{path / POLICY_FILE} is damaged: it was changed after it was written")
    return policy


def load_policy(directory: str | Path, **exploration: Any) -> RLModule:
    """Loads a saved policy, ready to act.

    Args:
        directory: as written by `save_policy`.
        exploration: `epsilon` and `temperature` to act with; without them, those of its settings.

    Raises:
        ValueError: no policy there, or a damaged one.
    """
    path, policy = Path(directory), read_policy(directory)
    kind = KINDS[policy["kind"]]
    try:
        shape: Any = TypeAdapter(tuple[int, int, int]).validate_python(policy["frame_shape"])
        actions: int = TypeAdapter(int).validate_python(policy["num_actions"], strict=True)
        settings: Any = TypeAdapter(kind.settings).validate_python(policy["settings"])
        unknown = list(_unknown(policy["settings"], asdict(settings)))
        if unknown or min(*shape, actions) < 1:
            raise ValueError(f"unknown settings {unknown}" if unknown else f"frames {shape}, {actions} actions")
        described = {
            "observation_space": gym.spaces.Box(0, 255, shape, np.uint8),
            "action_space": gym.spaces.Discrete(actions),
            "inference_only": True,
            "model_config": {kind.key: settings},
        }
        with torch.device("meta"):  # takes no memory, however large the settings make it
            needed = 4 * sum(parameter.numel() for parameter in kind.module(**described).parameters())
        file = path / WEIGHTS_FILE
        if needed > max(LITTLE, file.stat().st_size if file.is_file() else 0):
            raise ValueError(f"its weights are {needed:,} bytes, {WEIGHTS_FILE} has fewer")
        module = kind.module(**described)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, MemoryError, AssertionError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise ValueError(
            f"{path / POLICY_FILE} does not describe a policy: {cause[:LONGEST] or type(error).__name__}"
        ) from error
    _load_weights(module, path / WEIGHTS_FILE, policy.get("weights_sha256"))
    if exploration:
        assert isinstance(module, Explorer)
        module.set_exploration(**exploration)
    return module


def _unknown(given: Any, known: Any) -> Iterator[str]:
    """The names, at any depth, that the settings do not have."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, value in given.items():
            if name not in known:
                yield name
            else:
                yield from _unknown(value, known[name])


def _load_weights(module: Any, file: Path, sha256: str | None) -> None:
    """Loads a file of weights; `sha256` is the file's, None if it is not known."""
    try:
        weights = load_file(file)
        if sha256 not in (None, _file_hash(file)):
            raise OSError(f"it does not match {POLICY_FILE}")
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise ValueError(f"{file} is missing or damaged: {reason}") from error
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if given != expected:
        wrong = sorted(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        name = wrong[0]
        raise ValueError(
            f"{file} does not fit its {POLICY_FILE}: {ascii(name)[1:-1][:LONGEST]} is "
            f"{given.get(name, 'missing')}, expected {expected.get(name, 'none')} ({len(wrong)} such)"
        )
    module.load_state_dict(weights)
