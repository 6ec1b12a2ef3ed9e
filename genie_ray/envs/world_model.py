"""A world model as a gymnasium environment: an agent, or a person, acts inside the model instead of the game.

An episode starts from prime frames, given by a replay dataset or the caller. Each action yields one predicted frame
(`world_model.rollout`) and, in `info`, how uncertain the model was about it. A world model predicts neither score nor
game over: rewards are 0 and only the step limit ends an episode. The vector environment plays all of its games in one
rollout, as one batch.

Sources: an agent inside its world model, Ha & Schmidhuber, 2018 (arXiv 1803.10122); uncertainty, GenieRedux-G (Savov
et al., CVPR 2025, arXiv 2504.02515, eqs. 3–4).
Axes: B games, T prime frames, H W C pixels, h w the grid of a frame's tokens.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from genie_ray.envs.world_model_games import ImaginedGames, WorldModelEnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import Location
from world_model.checkpoint import WorldModel

RLLIB_NAME = "genie_ray/WorldModelEnv"
METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # 60 frames/s at the usual frame skip of 4


class WorldModelEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """One game inside a world model: observations uint8 [H, W, 3], `Discrete` actions (latent with a GenieRedux).

    `info` holds `uncertainty`, float32 [h, w] in [0, 1], of the frame's tokens before any was decoded, and
    `uncertainty_top_k`, the mean of the largest of them (not at a reset: prime frames are not predicted). If the prime
    frames come from the dataset, `episode_id` and `prime_step` tell which: that episode's frames from that step on.
    The same seed and actions give the same frames.

    Args:
        model: see `load_world_model`.
        dataset: source of the prime frames. Without one, each reset needs them in its options.
        config: episodes and decoding.

    Raises:
        ValueError: a dataset with another frame size or number of actions, or without a long enough episode of the
            game; more prime frames than the model takes.
    """

    metadata = METADATA
    render_mode = "rgb_array"

    def __init__(
        self, model: WorldModel, dataset: ReplayDataset | None, config: WorldModelEnvConfig | None = None
    ) -> None:
        self._games = ImaginedGames(1, model, dataset, config or WorldModelEnvConfig())
        self.observation_space, self.action_space = self._games.spaces()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start from prime frames: drawn from the dataset, or given in the options. The last one is the observation.

        Args:
            seed: of the draw and of sampled tokens.
            options: `prime_frames`, uint8 [T, H, W, 3], and `prime_actions`, T−1 integers: the actions between
                them (if absent, a GenieRedux infers its latent ones).

        Raises:
            ValueError: prime frames or actions that the model cannot take, or none at all.
        """
        super().reset(seed=seed)
        batched = {name: np.asarray(value)[None] for name, value in (options or {}).items()}
        frames_BHWC, infos = self._games.start([self.np_random], batched)
        return frames_BHWC[0], _first(infos)

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """The frame that the model predicts after this action.

        Raises:
            ValueError: the action is not an integer, or is out of range.
        """
        frames_BHWC, truncated, infos = self._games.step(np.asarray(action)[None])
        return frames_BHWC[0], 0.0, False, truncated, _first(infos)

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]  # gymnasium leaves RenderFrame unbound
        """The frame that the last reset or step returned."""
        return self._games.frames()[0]


class WorldModelVectorEnv(gym.vector.VectorEnv[NDArray[np.uint8], NDArray[np.int64], NDArray[Any]]):
    """Many games inside a world model, in one batch: like `num_envs` `WorldModelEnv`s in gymnasium's vector interface.

    Game i has seed + i and sees what a `WorldModelEnv` with that seed sees. If tokens are sampled (temperature above
    0), however, all games draw from one stream, and this holds only for a single game. All games are truncated
    together, and the step after that starts their next episodes.

    Args:
        num_envs: B.
        model, dataset, config: see `WorldModelEnv`.

    Raises:
        ValueError: as in `WorldModelEnv`; fewer than one game.
    """

    metadata = METADATA | {"autoreset_mode": AutoresetMode.NEXT_STEP}
    render_mode = "rgb_array"

    def __init__(
        self,
        num_envs: int,
        model: WorldModel,
        dataset: ReplayDataset | None,
        config: WorldModelEnvConfig | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: must be at least 1")
        self.num_envs = num_envs
        self._games = ImaginedGames(num_envs, model, dataset, config or WorldModelEnvConfig())
        self._rngs = _rngs(None, num_envs)
        self._truncated = False
        self.single_observation_space, self.single_action_space = self._games.spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """As `WorldModelEnv.reset`, with a leading axis of games: uint8 [B, T, H, W, 3] and [B, T−1]."""
        super().reset(seed=seed)
        if seed is not None:
            self._rngs = _rngs(seed, self.num_envs)
        self._truncated = False
        return self._games.start(self._rngs, {name: np.asarray(value) for name, value in (options or {}).items()})

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """The frames predicted after these actions; after a truncation, the next episodes' first frames."""
        if self._truncated:
            frames_BHWC, infos = self.reset()
        else:
            frames_BHWC, self._truncated, infos = self._games.step(np.asarray(actions))
        never_B = np.zeros(self.num_envs, bool)
        return frames_BHWC, np.zeros(self.num_envs), never_B, never_B | self._truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...]:  # type: ignore[override]  # as above
        """The frames that the last reset or step returned."""
        return tuple(self._games.frames())


def load_world_model(path: Location) -> WorldModel:
    """The world model of a checkpoint, on the GPU if there is one.

    Raises:
        ValueError: it is not a checkpoint, is damaged, or holds another kind of model.
    """
    return checkpoints.load_as(WorldModel, path, "cuda" if torch.cuda.is_available() else "cpu")


def register_rllib_world_model_env() -> str:
    """Register the environments with RLlib; returns the name for `AlgorithmConfig.environment`.

    Their `env_config` is `{"world_model": <checkpoint>, "dataset": <directory>, "env": WorldModelEnvConfig}`. With
    `env_runners(gym_env_vectorize_mode="vector_entry_point")` the games of a rollout worker form one batch; otherwise
    each loads its own model.
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> WorldModelEnv | WorldModelVectorEnv:
    model, dataset = load_world_model(env_config["world_model"]), ReplayDataset(env_config["dataset"])
    if "num_envs" in env_config:  # RLlib asks for a vector environment
        return WorldModelVectorEnv(env_config["num_envs"], model, dataset, env_config["env"])
    return WorldModelEnv(model, dataset, env_config["env"])


def _rngs(seed: int | None, count: int) -> list[np.random.Generator]:
    """A random stream per game: that of a single environment with this seed plus the game's index."""
    return [seeding.np_random(None if seed is None else seed + index)[0] for index in range(count)]


def _first(infos: dict[str, Any]) -> dict[str, Any]:
    """The info of the first game."""
    return {name: values[0] for name, values in infos.items()}
