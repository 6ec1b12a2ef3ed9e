"""Test agents: trained on the game's own reward.

They play the test sets, mixed with random actions, so that these cover what neither random play nor an explorer aims
for (Savov et al. 2025, section 5, who use Agent57).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from genie_ray.base.files import write_atomically
from genie_ray.base.resources import Role, learner_role, require_room
from genie_ray.base.session import RayConfig
from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import is_trained, train_agent
from genie_ray.playing.config import PlayerConfig
from genie_ray.playing.depth import depth, outcome
from genie_ray.storage.paths import StoredPath

CHECK_FILE = "check.json"


def train_player(
    output: StoredPath, game: str, config: PlayerConfig, env: EnvConfig, ray_config: RayConfig, *, seed: int = 0
) -> StoredPath:
    """Trains a game's test agent and returns the directory of its policy. Needs a running Ray.

    Raises:
        ValueError: the output was started with other settings, or what it needs is not there.
    """
    from genie_ray.playing.player_log import PlayerLog

    settings = {"game": game, "seed": seed, "env": to_dict(env), "player": settings_of(config)}
    check_unchanged(output, settings, what="a test agent")
    keep_settings(output, settings)
    recurrent = config.kind != "ppo"
    runners = config.recurrent().play.runners if recurrent else 1
    if not is_trained(output):
        check_player(config, env)
        require_room(
            "a test agent", [Role(name="rollout workers", count=runners), learner_role(ray_config)], ray_config
        )
    about = {"games": [game], "action_names": list(action_names(env.action_set)), "trained_as": config.kind}
    log = PlayerLog(output, about, arms=config.recurrent().family.arms)
    module = train_agent(
        _recurrent(game, config, env, ray_config, seed) if recurrent else _ppo(game, config, env, ray_config, seed),
        output,
        iterations=config.iterations,
        checkpoint_every=config.checkpoint_every,
        title=f"test agent for {game} ({config.kind})",
        figures=_recurrent_figures if recurrent else _ppo_figures,
        shown=("return", "best_arm", "env_steps") if recurrent else ("return", "entropy", "env_steps"),
        companions=[log] if recurrent else [],
        about=about,
        mlflow=ray_config.mlflow,
    )
    log.draw()
    return module


def check_against_chance(
    output: StoredPath, game: str, config: PlayerConfig, env: EnvConfig, *, seed: int = 0
) -> dict[str, Any]:
    """Plays an agent and chance, and writes and returns whether the agent is visibly better (`depth`).

    Args:
        output: as for `train_player`.

    Raises:
        ValueError: it was checked with other settings before.
    """
    file, collection = output / CHECK_FILE, CollectionConfig()
    players = {
        "agent": Policy(name="agent", directory=output.parent, epsilon=config.check_epsilon),
        "chance": Policy(name="random"),
    }
    for name, policy in players.items():
        collect(
            output / "check" / name,
            policy,
            [game],
            config.check_episodes,
            collection,
            env,
            unit="episodes",
            seed=seed + 1_000 * (name == "chance"),
        )
    if not file.exists():
        played = {name: outcome(output / "check" / name, env.max_episode_steps) for name in players}
        found = depth(played["agent"], played["chance"])
        text = json.dumps(found, indent=1)
        write_atomically(file, lambda path: path.write_text(text))
    return json.loads(file.read_text())


def check_player(config: PlayerConfig, env: EnvConfig) -> None:
    """Requires what can be known before anything starts.

    Raises:
        ValueError: the replay does not fit this machine's memory.
    """
    if config.kind != "ppo":
        from policies.agent57.algorithm import check_room

        check_room(config.recurrent(), (env.frame_size, env.frame_size, 3))


def settings_of(config: PlayerConfig) -> dict[str, Any]:
    """The settings that count for this kind, as plain values."""
    values = to_dict(config)
    if config.kind == "ppo":
        return {key: values[key] for key in ("iterations", "checkpoint_every", "ppo")}
    del values["ppo"]
    return values | {"agent57": to_dict(config.recurrent())}


def _ppo(game: str, config: PlayerConfig, env: EnvConfig, ray_config: RayConfig, seed: int) -> Any:
    from genie_ray.envs.game import register_rllib_env, vectorize_mode
    from policies.ppo.test_agents import ppo_config

    algorithm = ppo_config(register_rllib_env(), {"game": game, "env": env, "hold": config.ppo.hold}, config.ppo)
    return (
        algorithm.env_runners(num_env_runners=1, gym_env_vectorize_mode=vectorize_mode([game]))
        .learners(num_learners=int(ray_config.learner_apart), num_gpus_per_learner=int(ray_config.use_gpu))
        .debugging(seed=seed, log_level="ERROR")
    )


def _recurrent(game: str, config: PlayerConfig, env: EnvConfig, ray_config: RayConfig, seed: int) -> Any:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from genie_ray.envs.game import register_rllib_env, vectorize_mode
    from policies.agent57.algorithm import Agent57Config

    settings = config.recurrent()
    evaluation = AlgorithmConfig.overrides(
        num_cpus_per_env_runner=0,  # it is short and rare
        num_envs_per_env_runner=config.evaluation_episodes,
    )
    return (
        Agent57Config()
        .environment(register_rllib_env(), env_config={"game": game, "env": env})
        .env_runners(gym_env_vectorize_mode=vectorize_mode([game]))
        .training(
            settings=settings,
            learner_threads=ray_config.torch_threads(2),  # leaves half of the cores to emulators
            evaluation_epsilon=config.evaluation_epsilon,
        )
        .evaluation(
            evaluation_num_env_runners=1, evaluation_interval=config.evaluation_every, evaluation_config=evaluation
        )
        .learners(num_learners=int(ray_config.learner_apart), num_gpus_per_learner=int(ray_config.use_gpu))
        .debugging(seed=seed, log_level="ERROR")
    )


def _ppo_figures(result: Mapping[str, Any]) -> dict[str, float]:
    runners = result["env_runners"]
    learner = result["learners"]["default_policy"]
    return {
        "env_steps": float(runners["num_env_steps_sampled_lifetime"]),
        "return": float(runners.get("episode_return_mean", float("nan"))),
        "entropy": float(learner["entropy"]),
    }


def _recurrent_figures(result: Mapping[str, Any]) -> dict[str, float]:
    figures = {key: float(value) for key, value in result["agent57"].items()}
    learner = result.get("learners", {}).get("default_policy", {})  # an iteration may have no update
    return figures | {key: float(value) for key, value in learner.items() if key.endswith(("_error", "_loss", "_norm"))}
