"""Policies on disk: weights as safetensors, and everything else as JSON. Nothing that a file brings is ever run.

<directory>/weights.safetensors
<directory>/policy.json          its kind, its settings, the frames and actions that it is for
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
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
    }
    (directory / POLICY_FILE).write_text(json.dumps(policy, indent=1))


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
        policy = json.loads((path / POLICY_FILE).read_text())
        assert isinstance(policy, dict)
    except (ValueError, AssertionError) as error:
        raise ValueError(f"{path / POLICY_FILE} is damaged: it is not a JSON object") from error
    if policy.get("kind") not in KINDS:
        raise ValueError(f"{path}: the kind of policy is {policy.get('kind')!r}; known: {', '.join(KINDS)}")
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
        shape, actions = tuple(map(int, policy["frame_shape"])), int(policy["num_actions"])
        settings: Any = TypeAdapter(kind.settings).validate_python(policy["settings"])
        unknown = set(policy["settings"]) - set(asdict(settings))
        if unknown or len(shape) != 3 or min(*shape, actions) < 1:
            raise ValueError(f"unknown settings {sorted(unknown)}" if unknown else f"frames {shape}, {actions} actions")
        module = kind.module(
            observation_space=gym.spaces.Box(0, 255, shape, np.uint8),
            action_space=gym.spaces.Discrete(actions),
            inference_only=True,
            model_config={kind.key: settings},
        )
    except (KeyError, TypeError, ValueError, ValidationError, OverflowError) as error:
        cause = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ValueError(f"{path / POLICY_FILE} does not describe a policy: {cause}") from error
    _load_weights(module, path / WEIGHTS_FILE)
    if exploration:
        assert isinstance(module, Explorer)
        module.set_exploration(**exploration)
    return module


def _load_weights(module: Any, file: Path) -> None:
    try:
        weights = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} is missing or damaged: {error}") from error
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if given != expected:
        wrong = sorted(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        name = wrong[0]
        raise ValueError(
            f"{file} does not fit its {POLICY_FILE}: {name} is {given.get(name, 'missing')}, expected "
            f"{expected.get(name, 'none')} ({len(wrong)} such)"
        )
    module.load_state_dict(weights)
