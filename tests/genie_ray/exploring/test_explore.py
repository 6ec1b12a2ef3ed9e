"""Exploring real games end to end, with rounds: play, rewards from a served model, learning, fine-tuning, swaps."""

import dataclasses
import json
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.exploring.config import ExplorationConfig, ExplorersConfig, RoundsConfig
from genie_ray.exploring.exploration import algorithm_config, exploration_epochs, explore
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import SCORE_FILE, Line
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.rewards.client import ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.service import reward_service
from genie_ray.training.config import TrainingConfig
from policies.autoexplore.config import AutoExploreLearningConfig
from policies.ppo.config import ExplorerPPOSettings
from policies.saved import load_policy
from tests.genie_ray.children import children_named
from world_model import checkpoint

GAMES = ["Kangaroo-Atari2600-v0", "Hero-Atari2600-v0"]
ENV = EnvConfig(max_episode_steps=60)
TRAINING = TrainingConfig(
    iterations=4, batch_size=2, window=6, warmup_iterations=1, log_every=2, validate_every=4, validation_windows=2,
    checkpoint_every=4,
)  # fmt: skip
CONFIG = ExplorationConfig(
    epochs=8,
    checkpoint_every=3,
    ppo=ExplorerPPOSettings(
        num_envs=2,
        fragment_length=10,
        minibatch_size=10,
        filters=((4, 8, 4), (8, 4, 2)),
        hidden=16,
        keep="return",
        evaluation_every=2,
        evaluation_steps=5,
    ),
    rounds=RoundsConfig(every=3, wait=False, training=TRAINING),  # one round: the next would be due after the end
)


def run_of(exploration: ExplorationConfig, reward: RewardConfig | None = None) -> ExplorersConfig:
    return ExplorersConfig(env=ENV, exploration=exploration, reward=reward or RewardConfig())


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_two_games_are_explored_by_one_agent_in_rounds(
    roms: list[str], ray_session: None, world_model: Path, tmp_path: Path
) -> None:
    output, first = tmp_path / "shared", tmp_path / "shared" / "rounds" / "epoch-000003"
    module = output / "module"
    rewards = RewardConfig(cpus=0.5, gpus=0.0)
    with reward_service(world_model, rewards, frame_size=64, action_names=action_names(ENV.action_set)) as service:

        def epochs(config: ExplorationConfig = CONFIG) -> Generator[Line, None, None]:
            return exploration_epochs(output, GAMES, service, run_of(config, rewards), world_model=world_model)

        # Stopped during the first round's training, which ends with the exploration.
        begun = epochs()
        assert [next(begun)["iteration"] for _ in range(3)] == [1, 2, 3]
        next(begun)
        wait_until(lambda: bool(children_named("RayTrainWorker")))
        begun.close()
        wait_until(lambda: not children_named("RayTrainWorker"))
        with pytest.raises(ValueError, match=r"other settings \(exploration.ppo.gamma: 0.99 → 0.9\)"):
            next(epochs(dataclasses.replace(CONFIG, ppo=dataclasses.replace(CONFIG.ppo, gamma=0.9))))
        # Continued; the agent waits until the first round's world model is there, while a longer run would play on.
        for line in epochs():
            if line["iteration"] == 4:
                wait_until(lambda: (first / "last" / "config.json").exists() and not (first / "resume").exists())
                time.sleep(2)
        frames, actions = np.zeros((5, 64, 64, 3), np.uint8), np.zeros(4, np.int64)
        served = service().submit([frames], [actions], episodes=["last"]).answer(30.0).version
    assert load_policy(module, epsilon=0.1, temperature=1.0).settings.hidden == 16
    assert Policy(name="explorer", directory=tmp_path).checkpoint(GAMES[1]) == module

    # The best policy was kept, and is the result.
    lines = read_metrics(output / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == list(range(1, 9))
    scores = {line["iteration"]: line["evaluation_return_per_step"] for line in lines if line["iteration"] % 2 == 0}
    kept = json.loads((module / SCORE_FILE).read_text())
    assert kept["iteration"] in (6, 8)  # the earlier world model no longer judges
    assert kept["score"] == max(scores[6], scores[8])
    assert scores[kept["iteration"]] == kept["score"]
    assert not list(output.glob("state-*"))

    # What is logged for each epoch, and shown for each evaluation.
    last = lines[-1]
    assert {"cells", "new_cells_per_step", "ends_per_1000_steps", "settled"} <= set(last)
    assert {"kl_of_epoch", "state_information", "explained_variance", "advantage_of_steps_left"} <= set(last)
    assert last["cells"] == sum(last[f"cells/{game}"] for game in GAMES) > 20
    for epoch in scores:
        pictures = output / "pictures" / f"epoch-{epoch:06d}"
        assert {path.name for path in pictures.iterdir()} == {"episode.gif", "top_rewards.png", "entropy_map.png"}

    # Rounds: the play of both games was stored, learned from, and the service took the new weights.
    dataset, learned_from = (ReplayDataset(output / part) for part in ("play", "rounds/play-000003"))
    assert verify(dataset.root) == verify(learned_from.root) == []
    assert set(dataset.metadata.counts) == set(learned_from.metadata.counts) == set(GAMES)
    played = sum(ref.length for ref in dataset.episodes)
    assert played == last["env_steps"] > sum(ref.length for ref in learned_from.episodes) > 0
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        assert episode.frames.std() > 0
        assert np.isfinite(episode.reward_env).all()
        assert np.isfinite(episode.reward_uncertainty[-1])
        assert (episode.action_logp[::4] < 0).all()
        assert not episode.action_logp[1::4].any()
    learned, base = checkpoint.read_description(first / "best"), checkpoint.read_description(world_model)
    assert learned["weights_sha256"] != base["weights_sha256"]
    assert learned["tokenizer_sha256"] == base["tokenizer_sha256"]
    # The swap happened while the agent went on: two judges gave rewards, and the later evaluations are by the new one.
    assert [line["judges"] for line in lines[:4]] == [1] * 4
    assert (lines[-1]["judges"], lines[-1]["round"]) == (2, 3)
    assert served == kept["judge"] == learned["weights_sha256"]
    assert {"fragments_dropped", "reward_wait_s"} <= set(lines[-1])


def test_an_evaluation_has_an_episode_of_each_game() -> None:
    games = [f"game {number}" for number in range(10)]
    for played, environments in ((games, 10), (games[:1], 2)):
        training: Any = algorithm_config(played, ServeRewardClient, run_of(CONFIG))
        assert training.num_envs_per_env_runner == 2
        assert training.get_evaluation_config_object().num_envs_per_env_runner == environments


def test_what_cannot_be_explored_is_refused_before_anything_starts(world_model: Path, tmp_path: Path) -> None:
    def explored(config: ExplorationConfig) -> None:
        explore(tmp_path / "agent", GAMES, lambda: None, run_of(config), world_model=world_model)

    with pytest.raises(ValueError, match="rounds train the world model behind the rewards"):
        explored(CONFIG)
    small = AutoExploreLearningConfig(num_envs=2, replay_capacity=160)
    with pytest.raises(ValueError, match="replay_capacity is 160; allowed: more than 170, that is 2 environments"):
        explored(ExplorationConfig(algorithm="vtrace", learning=small))
    with pytest.raises(ValueError, match="every = 3: must be at most half of epochs = 5"):
        dataclasses.replace(CONFIG, epochs=5)
    assert not (tmp_path / "agent").exists()
