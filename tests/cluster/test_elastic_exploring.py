"""Exploring on nodes that come and go: rollout worker and reward service move, and the training goes on."""

import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from tests.cluster.running import DEADLINE_S, Nodes, start, wait_for
from tests.genie_ray.tiny_world import SIZE, guided_model
from world_model import checkpoint

GAME = "Kangaroo-Atari2600-v0"
EPOCHS, ENVS, DECISIONS, HOLD = 30, 2, 16, 4
SETTINGS = [
    f"env.frame_size={SIZE}",
    f"tokenizer.frame_size={SIZE}",
    "env.max_episode_steps=100",
    f"exploration.epochs={EPOCHS}",
    "exploration.checkpoint_every=5",
    f"exploration.ppo.num_envs={ENVS}",
    f"exploration.ppo.fragment_length={DECISIONS}",
    f"exploration.ppo.hold={HOLD}",
    "exploration.ppo.minibatch_size=32",
    "exploration.ppo.filters=[[4, 4, 2], [8, 3, 1]]",
    "exploration.ppo.hidden=16",
    "ray.threads_per_worker=1",
]


def holds(raylet: int, name: str) -> bool:
    """Whether a node runs a process of this name."""
    processes = psutil.Process(raylet).children() if psutil.pid_exists(raylet) else []
    return any(process.is_running() and name in " ".join(process.cmdline()) for process in processes)


def workers(output: Path) -> list[int]:
    """Rollout workers of each epoch so far."""
    file = output / GAME / "metrics.jsonl"
    lines = read_metrics(file) if file.exists() else []
    return [int(line["rollout_workers"]) for line in lines if "rollout_workers" in line]


@pytest.mark.long
def test_the_nodes_of_play_and_rewards_die(nodes: Nodes, roms: list[str], tmp_path: Path) -> None:
    checkpoint.save(guided_model(), tmp_path / "judge", provenance={})
    output = tmp_path / "explorers"
    there = [nodes.add(), nodes.add()]
    command = ["-m", "genie_ray", "explore", str(output), "--world-model", str(tmp_path / "judge"), "--game", GAME]
    driver = start([*command, "--address", nodes.address, *SETTINGS])

    def epochs() -> int:
        file = output / GAME / "metrics.jsonl"
        return max((int(line["iteration"]) for line in read_metrics(file)), default=0) if file.exists() else 0

    for name in ("EnvRunner", "ServeReplica"):
        before = epochs()
        wait_for(lambda before=before: epochs() >= before + 2, driver)
        there.append(nodes.add())
        lost = next(raylet for raylet in there if holds(raylet, name))
        there.remove(lost)
        nodes.remove(lost)
        wait_for(lambda name=name: any(holds(raylet, name) for raylet in there), driver)
    assert epochs() < EPOCHS
    assert driver.wait(timeout=2 * DEADLINE_S) == 0, driver.communicate()
    for raylet in there:
        nodes.remove(raylet)
    lines = [line for line in read_metrics(output / GAME / "metrics.jsonl") if "entropy" in line]
    assert [line["iteration"] for line in lines] == list(range(1, EPOCHS + 1))
    assert (output / GAME / "module" / "policy.json").exists()
    play = output / GAME / "play"
    assert verify(play) == []
    episodes = [ReplayDataset(play).read(ref) for ref in ReplayDataset(play).episodes]
    steps = sum(len(episode.actions) for episode in episodes)
    # Fewer where an episode ends within a held action.
    assert 0.9 * EPOCHS * ENVS * DECISIONS * HOLD <= steps <= EPOCHS * ENVS * DECISIONS * HOLD
    rewards = np.concatenate([episode.reward_uncertainty for episode in episodes])
    assert np.isfinite(rewards).mean() == pytest.approx(1 / HOLD, abs=0.01)  # one for each held action
    assert rewards[np.isfinite(rewards)].std() > 0


def start_elastic(nodes: Nodes, place: Path) -> tuple[subprocess.Popen[str], Path]:
    """An explorer that needs one of its two rollout workers; its driver and where it writes."""
    checkpoint.save(guided_model(), place / "judge", provenance={})
    output = place / "explorers"
    command = ["-m", "genie_ray", "explore", str(output), "--world-model", str(place / "judge"), "--game", GAME]
    elastic = ["exploration.num_env_runners=2", "ray.rollout_workers_min=1"]
    return start([*command, "--address", nodes.address, *SETTINGS, *elastic]), output


@pytest.mark.slow
@pytest.mark.long  # a minute or two
def test_it_starts_with_fewer_workers_and_others_join(nodes: Nodes, roms: list[str], tmp_path: Path) -> None:
    """Epochs have the same steps, whoever plays them."""
    there = [nodes.add(), nodes.add()]  # the reward service, and one of two rollout workers
    driver, output = start_elastic(nodes, tmp_path)

    wait_for(lambda: workers(output)[-1:] == [1], driver)
    there.append(nodes.add())
    wait_for(lambda: workers(output)[-1:] == [2], driver)
    assert len(workers(output)) < EPOCHS
    # Not the reward service's node, which may hold a runner that only evaluates: two workers would leave it no CPU.
    lost = next(raylet for raylet in there if holds(raylet, "EnvRunner") and not holds(raylet, "ServeReplica"))
    there.remove(lost)
    nodes.remove(lost)
    out, error = driver.communicate(timeout=2 * DEADLINE_S)
    assert driver.returncode == 0, (out, error)
    for raylet in there:
        nodes.remove(raylet)
    assert workers(output)[0] == 1
    assert workers(output)[-1] == 1
    assert "1 of 2 rollout workers play; more join when CPUs become free" in out
    assert "2 of 2 rollout workers play" in out
    lines = [line for line in read_metrics(output / GAME / "metrics.jsonl") if "entropy" in line]
    assert [line["iteration"] for line in lines] == list(range(1, EPOCHS + 1))
    steps, full = np.diff([0, *(line["env_steps"] for line in lines)]), 2 * ENVS * DECISIONS * HOLD
    assert 0.9 * full <= steps.min()  # fewer where an episode ends within a held action
    assert steps.max() <= full


@pytest.mark.slow
@pytest.mark.long  # two minutes; rewards are waited for for one of them
def test_a_worker_makes_room_for_the_rewards_whose_node_died(nodes: Nodes, roms: list[str], tmp_path: Path) -> None:
    """The other nodes have no CPU left, so the service would find no place."""
    there = [nodes.add() for _ in range(3)]  # the reward service and two rollout workers
    driver, output = start_elastic(nodes, tmp_path)
    wait_for(lambda: workers(output)[-1:] == [2], driver)
    lost = next(raylet for raylet in there if holds(raylet, "ServeReplica"))
    there.remove(lost)
    nodes.remove(lost)
    out, error = driver.communicate(timeout=2 * DEADLINE_S)
    assert driver.returncode == 0, (out, error)
    for raylet in there:
        nodes.remove(raylet)
    assert workers(output)[-1] == 1
    lines = [line for line in read_metrics(output / GAME / "metrics.jsonl") if "entropy" in line]
    assert [line["iteration"] for line in lines] == list(range(1, EPOCHS + 1))
    assert verify(output / GAME / "play") == []
