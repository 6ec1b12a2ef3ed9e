"""Collected play: every step exactly once, the same whenever and wherever it is played."""

import os
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from genie_ray.collection import CollectionConfig, Policy, collect
from genie_ray.envs.retro import EnvConfig, RetroEnv
from genie_ray.replay.dataset import ReplayDataset, read_row_group
from genie_ray.replay.schema import LargeFrameLayout
from genie_ray.replay.verify import verify
from genie_ray.shards import plan_shards

GAMES = ["Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"]
ENV = EnvConfig(max_episode_steps=100)


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_shards_hold_every_step_once() -> None:
    shards = plan_shards(["a", "b"], per_game=25, per_shard=10)
    for game in ("a", "b"):
        ranges = [range(s.first, s.first + s.count) for s in shards if s.game == game]
        assert sorted(step for span in ranges for step in span) == list(range(25))


def test_collection_has_exactly_the_steps_asked_for(replay: ReplayDataset) -> None:
    assert sum(episode.length for episode in replay.episodes) == 600
    assert max(episode.length for episode in replay.episodes) <= 100
    assert verify(replay.root) == []


def test_recorded_actions_give_back_the_recorded_frames(replay: ReplayDataset) -> None:
    env = RetroEnv(replay.episodes[0].game, ENV)
    for reference in replay.episodes[:2]:
        episode = replay.read(reference)
        frames = [env.reset()[0], *(env.step(action)[0] for action in episode.actions)]
        assert np.array_equal(np.stack(frames), episode.frames)
    env.close()


def test_large_frames_are_the_emulators_own_pictures(pictures: ReplayDataset) -> None:
    """Replayed, each picture padded to a square and fitted here to 128 pixels, as the observation is to 64."""
    env = RetroEnv(pictures.episodes[0].game, ENV, native_frame_every=1)
    for reference in pictures.episodes[:2]:
        episode = pictures.read(reference)
        infos = [env.reset()[1], *(env.step(action)[-1] for action in episode.actions)]
        assert episode.large_frames is not None
        for large, info in zip(episode.large_frames.frames, infos[::5], strict=True):
            height, width = info["native_frame"].shape[:2]
            left = (height - width) // 2
            square = np.pad(info["native_frame"], ((0, 0), (left, height - width - left), (0, 0)))
            assert np.array_equal(large, cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA))
        assert not any("native_frame" in info for info in episode.infos)
    env.close()


def test_large_frames_change_nothing_else(pictures: ReplayDataset, replay: ReplayDataset) -> None:
    assert verify(pictures.root) == []
    assert pictures.metadata.large_frames == LargeFrameLayout(size=128, every=5)
    for ours, theirs in zip(pictures.episodes, replay.episodes, strict=True):
        table = read_row_group(ours.path, ours.row_group)
        assert table.drop_columns("large_frame").equals(read_row_group(theirs.path, theirs.row_group))
        assert len(table) - table["large_frame"].null_count == ours.length // 5 + 1
    plan = replay.metadata.config | {"large_frames": {"size": 128, "every": 5}}
    assert pictures.metadata.config == plan


def test_random_play_draws_every_action_alike_and_says_so(replay: ReplayDataset) -> None:
    episodes = [replay.read(reference) for reference in replay.episodes]
    counts = np.bincount(np.concatenate([episode.actions for episode in episodes]), minlength=5)
    assert np.all(np.abs(counts - 120) < 50)  # five standard deviations of a binomial(600, 1/5)
    for episode in episodes:
        assert episode.action_logp is not None
        assert np.allclose(episode.action_logp, np.log(1 / 5))
    assert len({episode.actions.tobytes() for episode in episodes}) == len(episodes)


@pytest.mark.slow
def test_a_killed_worker_and_a_lost_shard_change_nothing(roms: list[str], ray_session: None, tmp_path: Path) -> None:
    """One collection in peace; one whose rollout worker is killed, and that later loses a shard and its metadata."""
    config = CollectionConfig(steps_per_shard=200, workers_max=1)

    def run(name: str) -> Path:
        return collect(tmp_path / name, Policy(name="random"), GAMES, 400, config, ENV, seed=7)

    peaceful = files(run("peaceful"))
    killed: list[int] = []

    def kill_when_the_first_shard_is_there() -> None:
        while not list((tmp_path / "disturbed").glob("game=*/*.parquet")):
            time.sleep(0.02)
        for process in psutil.Process().children(recursive=True):
            if process.name() == "ray::RolloutWorker" or "RolloutWorker" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    killer = threading.Thread(target=kill_when_the_first_shard_is_there)
    killer.start()
    disturbed = run("disturbed")
    killer.join()
    assert killed
    assert files(disturbed) == peaceful

    lost = disturbed / f"game={GAMES[1]}" / "shard-00001.parquet"
    lost.unlink()
    (disturbed / "_dataset.json").unlink()
    assert files(run("disturbed")) == peaceful


def test_impossible_large_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="large_frame_every = -1: must be 0 or more"):
        CollectionConfig(large_frame_every=-1)
    with pytest.raises(ValueError, match="large_frame_size = 0: must be at least 1"):
        CollectionConfig(large_frame_every=5, large_frame_size=0)


def test_another_collection_in_the_same_place_is_refused(replay: ReplayDataset, ray_session: None) -> None:
    with pytest.raises(ValueError, match=r"holds another collection \(seed: 0 → 1\)"):
        collect(
            replay.root,
            Policy(name="random"),
            [GAMES[1]],
            600,
            CollectionConfig(steps_per_shard=300),
            ENV,
            seed=1,
        )
    assert verify(replay.root) == []


def test_a_missing_agent_is_refused_before_anything_starts(roms: list[str], tmp_path: Path) -> None:
    policy = Policy(name="explorer", directory=tmp_path)
    with pytest.raises(ValueError, match="no agent for Hero-Atari2600-v0"):
        collect(tmp_path / "out", policy, GAMES, 100, CollectionConfig(), ENV)
    assert not (tmp_path / "out").exists()
