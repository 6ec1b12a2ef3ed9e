"""Saved policies of every kind come back as they were, and nothing that a file brings is run."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from policies.agent57.module import Agent57Module
from policies.autoexplore.config import AutoExploreModuleConfig
from policies.autoexplore.module import AutoExploreModule
from policies.play.acting import learned
from policies.ppo.config import ExplorerPPOSettings, PPOSettings
from policies.ppo.module import PPOModule
from policies.saved import KINDS, POLICY_FILE, WEIGHTS_FILE, load_policy, read_policy, save_policy
from tests.policies.agent57.small_agent import settings

SIZE = 36


def module_of(kind: str) -> Any:
    channels = 6 if kind.startswith("ppo") else 3
    model_config = {
        "autoexplore": {"network": AutoExploreModuleConfig(channels=(4, 4), lstm_size=8)},
        "ppo": {"settings": PPOSettings(hold=3, hidden=8)},
        "ppo explorer": {"settings": ExplorerPPOSettings(hold=2, hidden=8)},
        "agent57": {"settings": settings()},
    }[kind]
    module_class = {"autoexplore": AutoExploreModule, "agent57": Agent57Module}.get(kind, PPOModule)
    torch.manual_seed(0)
    made = module_class(
        observation_space=gym.spaces.Box(0, 255, (SIZE, SIZE, channels), np.uint8),
        action_space=gym.spaces.Discrete(4),
        model_config=model_config,
    )
    if kind == "agent57":
        made.best_arm.fill_(2)
    return made


def episode(module: Any) -> list[tuple[int, float]]:
    """What it does in an episode of random frames."""
    torch.manual_seed(1)
    rng, act = np.random.default_rng(0), learned(module)
    return [act(rng.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8), float(step % 3)) for step in range(12)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_policy_plays_as_it_did(kind: str, tmp_path: Path) -> None:
    module = module_of(kind)
    save_policy(module, tmp_path / "policy", {"games": ["Toy"]})
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == [POLICY_FILE, WEIGHTS_FILE]
    assert read_policy(tmp_path / "policy")["games"] == ["Toy"]
    module.set_exploration(epsilon=0.3, temperature=0.5)
    played = episode(module)
    assert len({action for action, _ in played}) > 1
    assert episode(load_policy(tmp_path / "policy", epsilon=0.3, temperature=0.5)) == played
    assert load_policy(tmp_path / "policy").settings == module_of(kind).settings


def saved(directory: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    save_policy(module_of("agent57"), directory)
    policy = json.loads((directory / POLICY_FILE).read_text())
    change(policy)
    del policy["sha256"]  # as in policies that have none
    (directory / POLICY_FILE).write_text(json.dumps(policy))
    return directory


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda policy: policy.update(kind="os.system"), "the kind of policy is 'os.system'; known: autoexplore"),
        (lambda policy: policy["settings"].update(more=1), r"does not describe a policy: unknown settings \['more'\]"),
        (lambda policy: policy["settings"]["network"].update(lstm_size="big"), "does not describe a policy"),
        (lambda policy: policy["settings"]["family"].update(arms=0), "arms is 0; allowed: 1 or more"),
        (lambda policy: policy.update(frame_shape=[0, 1]), "does not describe a policy"),
        (lambda policy: policy.pop("settings"), "does not describe a policy: 'settings'"),
        (
            lambda policy: policy["settings"]["network"].update(lstm_size=17),
            r"does not fit its policy.json: .*expected",
        ),
    ],
)
def test_a_policy_that_is_none_is_refused(change: Callable[[dict[str, Any]], None], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        load_policy(saved(tmp_path / "policy", change))


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    save_policy(module_of("ppo"), tmp_path)
    weights, text = (tmp_path / WEIGHTS_FILE).read_bytes(), (tmp_path / POLICY_FILE).read_text()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match="is missing or damaged: it does not match"):
        load_policy(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(weights)
    (tmp_path / POLICY_FILE).write_text(text.replace('"hold": 3', '"hold": 2'))
    with pytest.raises(ValueError, match="was changed after it was written"):
        load_policy(tmp_path)


def test_files_that_are_damaged_or_missing(tmp_path: Path) -> None:
    path = saved(tmp_path / "policy", lambda policy: None)
    whole = (path / WEIGHTS_FILE).read_bytes()
    (path / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is missing or damaged"):
        load_policy(path)
    (path / WEIGHTS_FILE).unlink()
    with pytest.raises(ValueError, match="is missing or damaged"):
        load_policy(path)
    (path / POLICY_FILE).write_text("[]")
    with pytest.raises(ValueError, match="is damaged: it is not a JSON object"):
        load_policy(path)
    shutil.rmtree(path)
    with pytest.raises(ValueError, match=f"no policy in {path}"):
        load_policy(path)


def test_settings_far_larger_than_the_weights_are_refused_at_once(tmp_path: Path) -> None:
    """Their layers were made and filled first, which took memory and minutes."""
    path = saved(tmp_path / "policy", lambda policy: policy["settings"]["network"].update(lstm_size=10**6))
    with pytest.raises(ValueError, match=r"its weights are [\d,]{17,} bytes, weights.safetensors has fewer"):
        load_policy(path)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["BOMB"],)


def test_a_strangers_pickle_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    for name in ("module_state.pkl", "class_and_ctor_args.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="holds a pickled policy"):
        load_policy(tmp_path)
    assert not (tmp_path / "exploded").exists()
