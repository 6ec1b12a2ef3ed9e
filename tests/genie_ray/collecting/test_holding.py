"""Random play that holds its actions: equal blocks, what a repeat's log-probability is, and when it is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.env_runner import CollectionEnvRunner
from genie_ray.collecting.plan import Collection, Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify

GAME = "Kangaroo-Atari2600-v0"
ENV = EnvConfig(max_episode_steps=42)  # not a multiple of what is held
HOLD = 4


def played(hold: int, weights: tuple[float, ...] = (), max_steps: int | None = None) -> SingleAgentEpisode:
    runner = CollectionEnvRunner(
        GAME, ENV, checkpoint=None, exploration={}, weights=weights, hold=hold, native_frame_every=0
    )
    (episode,) = runner.sample(seed=3, max_steps=max_steps)
    runner.stop()
    return episode


def blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[first : first + HOLD] for first in range(0, len(values), HOLD)]


@pytest.mark.usefixtures("roms")
@pytest.mark.parametrize("weights", [(), (1.0, 1.0, 4.0, 1.0, 1.0)], ids=["all alike", "weighted"])
def test_each_draw_is_held_and_recorded_step_by_step(weights: tuple[float, ...]) -> None:
    episode = played(HOLD, weights)
    actions, log_probs = episode.get_actions(), episode.get_extra_model_outputs(Columns.ACTION_LOGP)
    assert (len(actions), len(episode.get_observations())) == (42, 43)
    assert all(len(set(block.tolist())) == 1 for block in blocks(actions))
    assert len({int(block[0]) for block in blocks(actions)}) > 1
    chances = np.array(weights or [1.0] * 5)
    for action, block in zip(actions[::HOLD], blocks(log_probs), strict=True):
        assert block[0] == pytest.approx(math.log(chances[action] / chances.sum()), abs=1e-6)
        assert not block[1:].any()


@pytest.mark.usefixtures("roms")
def test_held_play_is_determined_by_its_seed() -> None:
    whole, again, cut = played(HOLD), played(HOLD), played(HOLD, max_steps=15)
    assert np.array_equal(whole.get_actions(), again.get_actions())
    assert np.array_equal(whole.get_observations(), again.get_observations())
    assert np.array_equal(cut.get_actions(), whole.get_actions(slice(0, 15)))
    assert not np.array_equal(whole.get_actions(), played(1).get_actions())


@pytest.mark.slow
@pytest.mark.usefixtures("roms", "ray_session")
def test_a_collection_of_held_play_is_a_dataset_as_any(tmp_path: Path) -> None:
    collect(tmp_path, Policy(name="held", hold=HOLD), [GAME], 100, CollectionConfig(steps_per_shard=50), ENV)
    dataset = ReplayDataset(tmp_path)
    assert verify(tmp_path) == []
    assert sum(episode.length for episode in dataset.episodes) == 100
    for reference in dataset.episodes:
        episode = dataset.read(reference)
        assert all(len(set(block.tolist())) == 1 for block in blocks(episode.actions))
        assert episode.episode_id.startswith(f"{GAME}/held/")
    with pytest.raises(ValueError, match=r"hold: 4 → None"):
        collect(tmp_path, Policy(name="held"), [GAME], 100, CollectionConfig(steps_per_shard=50), ENV)


def test_the_plan_of_play_that_holds_nothing_is_as_before(tmp_path: Path) -> None:
    def plan(policy: Policy) -> dict[str, object]:
        config = CollectionConfig()
        return Collection(
            output=tmp_path, policy=policy, games=(GAME,), per_game=10, unit="steps", config=config, env=ENV, seed=0
        ).plan

    assert "hold" not in plan(Policy(name="random"))
    assert plan(Policy(name="random", hold=HOLD)) == plan(Policy(name="random")) | {"hold": HOLD}


def test_holding_is_for_random_play(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"hold = 0: must be at least 1"):
        Policy(name="random", hold=0)
    with pytest.raises(ValueError, match=r"hold = 4 with the agents of .*: must be 1"):
        Policy(name="explorer", directory=tmp_path, hold=HOLD)
