"""A tiny world shared by these tests: 16×16 frames, patches of 4 (a 4×4 token grid), clips of up to 6 frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard
from genie_ray.training.config import TrainingConfig
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig

NAMES = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
GAMES = ("Hero-Atari2600-v0", "Kangaroo-Atari2600-v0")
FRAMES, SIZE, CODES = 6, 16, 7
TINY: dict[str, Any] = {"max_frames": FRAMES, "dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
QUANTIZER = QuantizerConfig(kind="cosine", codes=32, code_dim=8)
TOKENIZER = TokenizerConfig(frame_size=SIZE, patch_size=4, quantizer=QUANTIZER, **TINY)

TRAINING = TrainingConfig(
    iterations=60,
    batch_size=4,
    window=FRAMES,
    learning_rate=1e-3,
    final_learning_rate=1e-4,
    warmup_iterations=5,
    shuffle_buffer=32,
    log_every=1,
    validate_every=20,
    validation_windows=8,
    checkpoint_every=20,
    precision="fp32",
)


def guided_model() -> GenieReduxG:
    """A GenieRedux-G with random weights, large enough in its last layer that each action leads to other tokens."""
    dynamics = DynamicsConfig(num_actions=len(NAMES), head="codes", **TINY)
    return _lively(GenieReduxG(GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=dynamics)))


def unguided_model() -> GenieRedux:
    """The same, but with latent actions."""
    dynamics = DynamicsConfig(conditioning="latent", head="codes", token_input_scale=0.0, **TINY)
    codes = QuantizerConfig(codes=CODES, code_dim=8)
    latent = LatentActionConfig(frame_size=SIZE, patch_size=4, quantizer=codes, **TINY)
    return _lively(GenieRedux(GenieReduxConfig(tokenizer=TOKENIZER, dynamics=dynamics, latent_actions=latent)))


def _lively(model: Any) -> Any:
    torch.nn.init.normal_(model.dynamics.to_logits.weight, std=3)
    return model.eval()


def tiny_dataset(
    root: Path, lengths: Sequence[int] = (12, 20), *, size: int = SIZE, names: Any = NAMES
) -> ReplayDataset:
    """For each length, an episode of random frames and actions; the first is of Hero, the others of Kangaroo."""
    rng = np.random.default_rng(0)
    for index, length in enumerate(lengths):
        game = GAMES[min(index, 1)]
        episode = Episode(
            episode_id=episode_id(game, "random", 0, index),
            game=game,
            frames=rng.integers(256, size=(length + 1, size, size, 3), dtype=np.uint8),
            actions=rng.integers(len(names), size=length).astype(np.int8),
            action_logp=None,
            reward_env=np.zeros(length, np.float32),
            reward_uncertainty=None,
            terminated=False,
            truncated=True,
            infos=[{}] * (length + 1),
        )
        write_shard(root, game, f"{index:05d}", [episode])
    counts = count_episodes(index_episodes(root))
    metadata = DatasetMetadata(action_names=names, frame_shape=(size, size, 3), policy="random", counts=counts)
    write_metadata(root, metadata)
    return ReplayDataset(root)


def require_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Requires the same weights to 1e-5.

    Left out is what adds a constant to all attention scores: it changes nothing, so its gradient is rounding noise,
    which Adam scales up.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if not (".spatial_bias.mlp." in name and name.endswith(".bias")):
            torch.testing.assert_close(
                ours[name], value, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
