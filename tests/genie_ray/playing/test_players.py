"""Test agents as a command: trained, kept, checked against chance, and played from disk."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.cli import app
from genie_ray.collecting.plan import Policy
from genie_ray.config import load_config
from genie_ray.envs.config import EnvConfig
from genie_ray.playing.depth import told
from genie_ray.playing.players import check_player, train_player
from genie_ray.replay.dataset import ReplayDataset
from policies.saved import read_policy

GAME = "Freeway-Atari2600-v0"
PRESET = Path("experiments/players/small.yaml")
TINY = [
    "env.max_episode_steps=60",
    "player.iterations=2",
    "player.checkpoint_every=1",
    "player.evaluation_every=1",
    "player.evaluation_episodes=2",
    "player.check_episodes=3",
    "player.agent57.play.num_envs=2",
    "player.agent57.play.steps_per_iteration=240",
    "player.agent57.play.fragment_length=30",
    "player.agent57.learning.learning_starts=120",
]
ENV = EnvConfig(max_episode_steps=60)
pytestmark = pytest.mark.usefixtures("roms", "ray_session")


@pytest.fixture(scope="module")
def players(tmp_path_factory: pytest.TempPathFactory, roms: list[str], ray_session: None) -> Path:
    output = tmp_path_factory.mktemp("players")
    config = load_config(PRESET, TINY).player
    train_player(output / GAME, GAME, config, ENV, RayConfig(threads_per_worker=1))
    return output


@pytest.mark.slow
def test_what_a_training_leaves(players: Path) -> None:
    made = players / GAME
    policy = read_policy(made / "module")
    assert policy["games"] == [GAME]
    assert policy["trained_as"] == "agent57"
    lines = read_metrics(made / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == [1, 2]
    for line in lines:
        assert {"evaluation_return", "bandit_count_3", "novelty_p50", "best_arm"} <= set(line)
    assert "return_arm_0" in lines[0]
    assert lines[-1]["inverse_dynamics_loss"] > 0
    with Image.open(made / "pictures" / "iteration-000002.gif") as clip:
        assert clip.n_frames == 61
    assert Image.open(made / "curves.png").size[0] > 400
    assert not list(made.glob("state-*"))
    # What is finished needs no room.
    config = load_config(PRESET, TINY).player
    assert train_player(made, GAME, config, ENV, RayConfig(use_gpu=True, learner_apart=True)) == made / "module"


@pytest.mark.slow
def test_a_saved_agent_is_collected_from(players: Path, tmp_path: Path) -> None:
    from genie_ray.collecting.collection import collect
    from genie_ray.collecting.config import CollectionConfig

    policy = Policy(name="player", directory=players, epsilon=0.15)
    played = ReplayDataset(collect(tmp_path / "test", policy, [GAME], 60, CollectionConfig(), ENV))
    (reference,) = played.episodes
    episode = played.read(reference)
    assert len(episode.actions) == 60
    for given, said in (
        (["Boxing-Atari2600-v0"], "no agent for Boxing"),
        ([GAME], r"has the actions .*; env.action_set = NOOP,JUMP has NOOP, JUMP"),
    ):
        env = EnvConfig(max_episode_steps=60, action_set="NOOP,JUMP")
        with pytest.raises(ValueError, match=said):
            collect(tmp_path / "other", policy, given, 60, CollectionConfig(), env)
    with pytest.raises(ValueError, match=r"sees frames of 64 pixels; env.frame_size is 32"):
        policy.check([GAME], EnvConfig(frame_size=32))
    (players / "Boxing-Atari2600-v0").symlink_to(players / GAME)
    with pytest.raises(ValueError, match=f"plays {GAME}, not Boxing"):
        policy.check(["Boxing-Atari2600-v0"], ENV)


@pytest.mark.slow
def test_r2d2_by_the_command_with_its_learner_apart_and_its_check(tmp_path: Path) -> None:
    overrides = [*TINY, "player.iterations=1", "player.evaluation_every=5", "ray.threads_per_worker=1"]
    overrides += ["ray.learner_apart=true"]
    command = ["train", "player", str(tmp_path), "--game", GAME, "--kind", "r2d2", "-c", str(PRESET), *overrides]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    check = json.loads((tmp_path / GAME / "check.json").read_text())
    assert check["episodes"] == 3
    assert "a test agent" in result.output
    assert read_policy(tmp_path / GAME / "module")["settings"]["novelty"]["enabled"] is False
    again = CliRunner().invoke(app, [*command, "player.agent57.learning.batch_size=3"])
    assert "batch_size" in str(again.exception)


def test_whether_it_is_a_test_agent_is_told() -> None:
    found = {"deep": False, "gain_interval": [-1.0, 0.5], "return": 1.0, "return_by_chance": 1.2}
    assert told(found) == (
        "not a test agent, since it is not visibly better than chance: 1.00 a game, chance 1.20; gain [-1.00, 0.50]"
    )
    assert told(found | {"deep": True, "gain_interval": [0.1, 0.5]}).startswith("a test agent: 1.00 a game")
    assert "too few" in told(found | {"deep": None})


def test_a_replay_too_large_is_refused_at_once() -> None:
    config = load_config(PRESET, ["player.agent57.learning.replay_capacity=900000000"]).player
    with pytest.raises(ValueError, match=r"replay_capacity is 900,000,000 steps, which take"):
        check_player(config, ENV)
    check_player(load_config(None, ["player.agent57.learning.replay_capacity=900000000"]).player, ENV)  # of PPO
