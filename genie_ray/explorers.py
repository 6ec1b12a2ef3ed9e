"""A run's explorers, one after another, each with rewards of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genie_ray.config import RunConfig, check_unchanged
from genie_ray.envs.actions import action_names
from genie_ray.exploration import explore, settings_of
from genie_ray.rewards.service import remove_services, reward_service, service_name
from genie_ray.rounds import judge_of


def train_explorers(directory: Path, games: Sequence[str], world_model: Path, run: RunConfig) -> Iterator[Path]:
    """Trains a run's explorers one after another and yields the directories of their policies. Needs a running Ray.

    Each has a reward service of its own: what a reward learns or remembers is about one explorer's play.
    """
    for name, played in run.exploration.agents(games).items():
        output = directory / name
        check_unchanged(output, settings_of(played, run.exploration, run.env, run.seed, run.reward, world_model))
        if not (output / "module").exists():
            remove_services(app_name := service_name(output))  # of a run that was killed
            with reward_service(
                judge_of(output, world_model),
                run.reward,
                frame_size=run.env.frame_size,
                action_names=action_names(run.env.action_set),
                state=output / "rewards",
                app_name=app_name,
            ) as rewards:
                explore(
                    output,
                    played,
                    rewards,
                    run.exploration,
                    run.env,
                    world_model=world_model,
                    ray=run.ray,
                    seed=run.seed,
                )
        yield output / "module"
