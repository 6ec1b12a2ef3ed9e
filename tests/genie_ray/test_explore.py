"""Exploring real games end to end, with rounds: play, rewards of a served world model, learning, fine-tuning, swaps."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from genie_ray.agents import SCORE_FILE
from genie_ray.collection import Policy
from genie_ray.envs.actions import action_names
from genie_ray.envs.retro import EnvConfig
from genie_ray.exploration import ExplorationConfig, explore
from genie_ray.metrics_log import read_metrics
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.service import reward_service
from genie_ray.rounds import RoundsConfig
from genie_ray.training import TrainingConfig
from policies.autoexplore.config import AutoExploreLearningConfig
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.exploration import load_module
from world_model import checkpoint

GAMES = ["Kangaroo-Atari2600-v0", "Hero-Atari2600-v0"]
ENV = EnvConfig(max_episode_steps=60)
TRAINING = TrainingConfig(
    iterations=4, batch_size=2, window=6, warmup_iterations=1, log_every=2, validate_every=4, validation_windows=2,
    checkpoint_every=4,
)  # fmt: skip
CONFIG = ExplorationConfig(
    epochs=6,
    checkpoint_every=2,
    network=AutoExploreModuleConfig(channels=(4, 4, 8, 8), lstm_size=16),
    learning=AutoExploreLearningConfig(
        num_envs=2,
        steps_per_epoch=40,
        fragment_length=20,
        updates_per_epoch=2,
        sequences_per_update=4,
        sequence_length=10,
        replay_capacity=2_000,
        evaluation_every=2,
        evaluation_steps=20,
    ),
    rounds=RoundsConfig(every=2, training=TRAINING),
)


@pytest.mark.slow
def test_two_games_are_explored_by_one_agent_in_rounds(
    roms: list[str], ray_session: None, world_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "shared"
    rewards = RewardConfig(cpus=0.5, gpus=0.0)
    with reward_service(world_model, rewards, frame_size=64, action_names=action_names(ENV.action_set)) as service:
        module = explore(output, GAMES, service, CONFIG, ENV, world_model=world_model)
        frames, actions = np.zeros((5, 64, 64, 3), np.uint8), np.zeros(4, np.int64)
        served = service().submit([frames], [actions], episodes=["last"]).answer(30.0).version
    assert load_module(module, epsilon=0.1, temperature=1.0).settings.lstm_size == 16
    assert Policy(name="explorer", directory=tmp_path).checkpoint(GAMES[1]) == module

    # The best policy was kept, and is what is left as the result.
    lines = read_metrics(output / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    scores = {line["iteration"]: line["evaluation_return_per_step"] for line in lines if line["iteration"] % 2 == 0}
    kept = json.loads((module / SCORE_FILE).read_text())
    assert kept["score"] == max(scores.values())
    assert scores[kept["iteration"]] == kept["score"]
    assert not list(output.glob("state-*"))

    # What is logged of each epoch, and shown of each evaluation.
    last = lines[-1]
    assert {"cells", "new_cells_per_step", "kl_of_epoch", "rho", "weights_age_max", "reward_p95", "settled"} <= set(
        last
    )
    assert last["cells"] == sum(last[f"cells/{game}"] for game in GAMES) > 20
    for epoch in scores:
        pictures = output / "pictures" / f"epoch-{epoch:06d}"
        assert {path.name for path in pictures.iterdir()} == {"episode.gif", "top_rewards.png", "entropy_map.png"}

    # Rounds: the play of both games was stored, learned from, and the service took the new weights.
    dataset = ReplayDataset(output / "rounds" / "dataset")
    assert verify(dataset.root) == []
    assert set(dataset.metadata.counts) == set(GAMES)
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        assert episode.frames.std() > 0
        assert np.isnan(episode.reward_env).all()
        assert np.isfinite(episode.reward_uncertainty[3:]).all()
        assert (episode.action_logp < 0).all()
    first = checkpoint.read_description(output / "rounds" / "epoch-000002" / "best")
    assert first["weights_sha256"] != checkpoint.read_description(world_model)["weights_sha256"]
    assert first["tokenizer_sha256"] == checkpoint.read_description(world_model)["tokenizer_sha256"]
    assert served == checkpoint.read_description(max(output.glob("rounds/epoch-*/best")))["weights_sha256"]


def test_what_cannot_be_explored_is_refused_before_anything_starts(world_model: Path, tmp_path: Path) -> None:
    def explored(config: ExplorationConfig) -> None:
        explore(tmp_path / "agent", GAMES, lambda: None, config, ENV, world_model=world_model)

    with pytest.raises(ValueError, match="rounds train the world model that gives the rewards"):
        explored(CONFIG)
    small = dataclasses.replace(CONFIG.learning, replay_capacity=160)
    with pytest.raises(ValueError, match="replay_capacity is 160; allowed: more than 160, that is 2 environments"):
        explored(dataclasses.replace(CONFIG, learning=small))
    assert not (tmp_path / "agent").exists()
