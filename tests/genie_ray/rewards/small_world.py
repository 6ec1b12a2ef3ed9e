"""Tiny world models, replicas and fragments of play, and rewards computed from the definition."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_ray.rewards.client import ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, Judgement
from genie_ray.rewards.replica import RewardModel
from genie_ray.rewards.windows import Windows, join, unfold
from tests.policies.toys import NUM_ACTIONS, SIZE
from world_model.checkpoint import weights_hash
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig
from world_model.uncertainty import top_k_mean

SIZES = {"frame_size": SIZE, "num_actions": NUM_ACTIONS}
FITS: dict[str, Any] = {"frame_size": SIZE, "action_names": ("RIGHT", "LEFT", "UP", "JUMP")}
TOP_K, SCALE = 0.5, 2.0
CONFIG = RewardConfig(top_k_fraction=TOP_K, scale=SCALE, batch_size=7, precision="fp32")


def world_model(seed: int) -> GenieReduxG:
    """A tiny model with weights so large that its rewards differ from window to window."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"dim": 16, "blocks": 1, "heads": 2, "head_dim": 8, "max_frames": 5}
    model = GenieReduxG(
        GenieReduxGConfig(
            tokenizer=TokenizerConfig(
                frame_size=SIZE, patch_size=8, quantizer=QuantizerConfig(kind="fsq", levels=(4, 4)), **sizes
            ),
            dynamics=DynamicsConfig(num_actions=NUM_ACTIONS, **sizes),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def fragment(actions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise: n + 1 frames and n actions."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (actions + 1, SIZE, SIZE, 3), np.uint8), rng.integers(0, NUM_ACTIONS, actions)


def fragments(*lengths: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Several fragments, as a client sends them."""
    made = [fragment(length, seed=length) for length in lengths]
    return [frames for frames, _ in made], [actions for _, actions in made]


def noise_windows(count: int, seed: int = 0, episode: str | None = None) -> Windows:
    """`count` windows of one fragment."""
    return join([unfold(*fragment(count + 3, seed), episode)])


def rewards_by_hand(model: GenieReduxG, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """From the definition: the transition into frame t is judged from frames t−4, t−3 and actions t−4 … t−1."""
    rewards = np.full(len(actions), np.nan, np.float32)
    for t in range(4, len(actions) + 1):
        uncertainty_1N = model.uncertainty(
            torch.from_numpy(np.stack([frames[t - 4], frames[t - 3]])[None]),
            torch.from_numpy(actions[[t - 4, t - 3, t - 2, t - 1]].astype(np.int64)[None]),
        )
        rewards[t - 1] = float(SCALE * top_k_mean(uncertainty_1N, TOP_K))
    return rewards


def assert_rewards(given: list[np.ndarray], model: GenieReduxG, frames: list[Any], actions: list[Any]) -> None:
    """Each fragment has the model's rewards, float32, NaN where there is no window."""
    assert len(given) == len(frames)
    for reward, frames_of, actions_of in zip(given, frames, actions, strict=True):
        assert reward.dtype == np.float32
        np.testing.assert_allclose(reward, rewards_by_hand(model, frames_of, actions_of), atol=1e-5)


def user_config(checkpoint: Path, model: GenieReduxG, **changes: Any) -> dict[str, Any]:
    config = dataclasses.asdict(dataclasses.replace(CONFIG, **changes))
    state = str(checkpoint.parent / "state")
    return {
        "checkpoint": str(checkpoint), "version": weights_hash(model), "config": config, "state": state, "gpus": 0.0
    }  # fmt: skip


class Recording(Judge):
    """Wraps a judge, records what it is asked, and can be made to wait, or to fail at one of its batches."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.asked: list[Windows] = []
        self.fails_at: int | None = None
        self.go = threading.Event()
        self.go.set()

    @property
    def version(self) -> str:
        return self._judge.version

    def judge(self, windows: Windows) -> Judgement:
        self.asked.append(windows)
        assert self.go.wait(30)
        if len(self.asked) - 1 == self.fails_at:
            raise ArithmeticError("this batch fails")
        return self._judge.judge(windows)

    def learn(self) -> None:
        self._judge.learn()

    def forget(self) -> None:
        self._judge.forget()


async def started(checkpoint: Path, model: GenieReduxG, **changes: Any) -> tuple[RewardModel, Recording]:
    replica = RewardModel()
    await replica.reconfigure(user_config(checkpoint, model, **changes))
    assert replica._judge is not None
    replica._judge = recording = Recording(replica._judge)
    return replica, recording


APP, TOKEN = "test-rewards", "a token of the tests"
SERVED = RewardConfig(top_k_fraction=TOP_K, scale=SCALE, batch_size=7, precision="fp32", cpus=0.5, gpus=0.0)
"""What runs under that name, with HTTP, for tests that ask for `url` or `factory`."""
Factory = Callable[[], ServeRewardClient]
