"""Collection on nodes that come and go: every episode exists once, byte for byte as if nothing had happened."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from tests.cluster.running import DEADLINE_S, Nodes, contents, start, wait_for

GAMES = ["Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"]
EPISODES, PER_SHARD, LENGTH = 24, 2, 100  # EPISODES per game; LENGTH: most steps of an episode
SHARDS = len(GAMES) * EPISODES // PER_SHARD
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def peaceful(roms: list[str], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed collection."""
    directory = tmp_path_factory.mktemp("collections") / "peaceful"
    config = CollectionConfig(steps_per_shard=PER_SHARD * LENGTH)
    env = EnvConfig(max_episode_steps=LENGTH)
    return contents(collect(directory, Policy(name="random"), GAMES, EPISODES, config, env, unit="episodes"))


def collecting(output: Path, nodes: Nodes) -> subprocess.Popen[str]:
    command = ["-m", "genie_ray", "collect", str(output), "--address", nodes.address]
    command += ["--episodes", str(EPISODES), "--max-steps", str(LENGTH), *(f"--game={game}" for game in GAMES)]
    return start([*command, f"collection.steps_per_shard={PER_SHARD * LENGTH}"])


def shards(output: Path) -> int:
    return len(list(output.glob("game=*/shard-*.parquet")))


def workers(raylet: int) -> list[psutil.Process]:
    """A node's rollout workers."""
    return [process for process in psutil.Process(raylet).children() if "RolloutWorker" in process.cmdline()[0]]


def test_workers_and_nodes_come_and_go(nodes: Nodes, peaceful: dict[str, bytes], tmp_path: Path) -> None:
    """While one worker is suspended, another on a new node plays on; then its node dies; then the first is killed."""
    output = tmp_path / "disturbed"
    first = nodes.add()
    driver = collecting(output, nodes)
    wait_for(lambda: shards(output) and workers(first), driver)
    (still,) = workers(first)
    still.suspend()
    second = nodes.add()
    before = shards(output)
    wait_for(lambda: shards(output) >= before + 2 and workers(second), driver)
    (lost,) = workers(second)
    lost.suspend()  # with a shard in hand
    nodes.remove(second)
    before = shards(output)
    assert before < SHARDS
    still.resume()
    wait_for(lambda: shards(output) >= before + 2 and workers(first), driver)
    still.kill()
    assert driver.wait(timeout=DEADLINE_S) == 0, driver.communicate()
    nodes.remove(first)
    assert contents(output) == peaceful
    assert verify(output) == []


def test_a_killed_and_an_interrupted_driver_go_on(nodes: Nodes, peaceful: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "disturbed"
    node = nodes.add()
    driver = collecting(output, nodes)
    wait_for(lambda: shards(output) >= 2, driver)
    driver.kill()
    driver.wait()
    before = shards(output)
    driver = collecting(output, nodes)
    wait_for(lambda: shards(output) >= before + 1 and workers(node), driver)
    for worker in workers(node):
        worker.suspend()  # or the rest might be collected before the signal arrives
    assert shards(output) < SHARDS
    driver.send_signal(signal.SIGINT)
    out, error = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == 130, (out, error)
    assert "the same command continues" in error
    assert verify(output) == []  # what is complete is a dataset
    part = ReplayDataset(output)
    assert {missing.reason for missing in part.metadata.missing.values()} == {"interrupted"}
    lacking = sum(end - first for missing in part.metadata.missing.values() for first, end in missing.ranges)
    assert len(part.episodes) == len(GAMES) * EPISODES - lacking < len(GAMES) * EPISODES

    driver = collecting(output, nodes)
    assert driver.wait(timeout=DEADLINE_S) == 0, driver.communicate()
    assert contents(output) == peaceful
    nodes.remove(node)
