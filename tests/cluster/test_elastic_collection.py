"""Collection on nodes that come and go: every episode exists once, byte for byte as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify

GAMES = ["Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"]
EPISODES, PER_SHARD, LENGTH = 24, 2, 100  # EPISODES per game; LENGTH: most steps of an episode
SHARDS = len(GAMES) * EPISODES // PER_SHARD
DEADLINE_S = 120
pytestmark = pytest.mark.slow


class Nodes:
    """The cluster of nodes.py."""

    def __init__(self) -> None:
        script = str(Path(__file__).parent / "nodes.py")
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def add(self) -> int:
        """Starts a node; returns the process id of its raylet."""
        return int(self._ask("add"))

    def remove(self, raylet: int) -> None:
        self._ask(f"remove {raylet}")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=DEADLINE_S)

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, "the cluster broke down"
        return answer


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.stop()


@pytest.fixture(scope="module")
def peaceful(roms: list[str], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed collection."""
    directory = tmp_path_factory.mktemp("collections") / "peaceful"
    config = CollectionConfig(steps_per_shard=PER_SHARD * LENGTH)
    env = EnvConfig(max_episode_steps=LENGTH)
    return files(collect(directory, Policy(name="random"), GAMES, EPISODES, config, env, unit="episodes"))


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def start(output: Path, nodes: Nodes) -> subprocess.Popen[str]:
    """The command in a process that may be killed."""
    command = [sys.executable, "-m", "genie_ray", "collect", str(output), "--address", nodes.address]
    command += ["--episodes", str(EPISODES), "--max-steps", str(LENGTH), *(f"--game={game}" for game in GAMES)]
    command.append(f"collection.steps_per_shard={PER_SHARD * LENGTH}")
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def shards(output: Path) -> int:
    return len(list(output.glob("game=*/shard-*.parquet")))


def workers(raylet: int) -> list[psutil.Process]:
    """A node's rollout workers."""
    return [process for process in psutil.Process(raylet).children() if "RolloutWorker" in process.cmdline()[0]]


def test_workers_and_nodes_come_and_go(nodes: Nodes, peaceful: dict[str, bytes], tmp_path: Path) -> None:
    """While one worker is suspended, another on a new node plays on; then its node dies; then the first is killed."""
    output = tmp_path / "disturbed"
    first = nodes.add()
    driver = start(output, nodes)
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
    assert files(output) == peaceful
    assert verify(output) == []


def test_a_killed_and_an_interrupted_driver_go_on(nodes: Nodes, peaceful: dict[str, bytes], tmp_path: Path) -> None:
    output = tmp_path / "disturbed"
    node = nodes.add()
    driver = start(output, nodes)
    wait_for(lambda: shards(output) >= 2, driver)
    driver.kill()
    driver.wait()
    before = shards(output)
    driver = start(output, nodes)
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

    driver = start(output, nodes)
    assert driver.wait(timeout=DEADLINE_S) == 0, driver.communicate()
    assert files(output) == peaceful
    nodes.remove(node)
