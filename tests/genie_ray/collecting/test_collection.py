"""Collected play: every step exactly once, the same whenever and wherever it is played; failures."""

import gzip
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from stable_retro import data as retro_data

from genie_ray.base.errors import IncompleteError
from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.collecting.shards import plan_shards, spans
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import INTEGRATIONS
from genie_ray.replay.dataset import ReplayDataset, read_row_group
from genie_ray.replay.layout import LargeFrameLayout
from genie_ray.replay.metadata import GameCounts
from genie_ray.replay.verify import verify
from tests.genie_ray.children import children_named

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
    """On replay: each picture is padded to a square and resized to 128 pixels here, as the observation is to 64."""
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


def test_episodes_are_those_asked_for_however_they_are_cut_into_shards(
    roms: list[str], ray_session: None, tmp_path: Path
) -> None:
    """Two shards, of two episodes and one, have the same rows as one shard of three."""
    env = EnvConfig(max_episode_steps=30)
    twos, all_in_one = (
        ReplayDataset(
            collect(
                tmp_path / str(steps),
                Policy(name="random"),
                [GAMES[1]],
                3,
                CollectionConfig(steps_per_shard=steps, workers_max=1),
                env,
                unit="episodes",
            )
        )
        for steps in (60, 90)
    )
    assert [episode.path.stem for episode in twos.episodes] == ["shard-00000", "shard-00000", "shard-00001"]
    assert [episode.path.stem for episode in all_in_one.episodes] == ["shard-00000"] * 3
    assert [episode.episode_id for episode in twos.episodes] == [
        f"{GAMES[1]}/random/0/{index:06d}" for index in range(3)
    ]
    for ours, theirs in zip(twos.episodes, all_in_one.episodes, strict=True):
        assert ours.length == 30
        assert read_row_group(ours.path, ours.row_group).equals(read_row_group(theirs.path, theirs.row_group))


@pytest.mark.slow
def test_broken_games_are_told_and_the_others_complete(
    roms: list[str], ray_session: None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A start state of noise breaks a game every time; the same command succeeds once the state is repaired."""
    broken = "Broken-Atari2600-v0"
    folder = Path(retro_data.get_romfile_path(GAMES[1], INTEGRATIONS)).parent
    shutil.copytree(folder, tmp_path / "integrations" / broken)
    (state,) = (tmp_path / "integrations" / broken).glob("*.state")
    state.write_bytes(gzip.compress(np.random.default_rng(0).bytes(5_000)))
    env = EnvConfig(max_episode_steps=100, integrations=(str(tmp_path / "integrations"),))
    request.addfinalizer(retro_data.Integrations.clear_custom_paths)

    def run() -> Path:
        config = CollectionConfig(steps_per_shard=100, tries=2)
        return collect(tmp_path / "play", Policy(name="random"), [broken, GAMES[1]], 200, config, env)

    with pytest.raises(IncompleteError, match=rf"1 of 2 games were given up.*{broken}: start state .* is damaged"):
        run()
    part = ReplayDataset(tmp_path / "play")
    assert part.metadata.counts == {GAMES[1]: GameCounts(episodes=2, actions=200)}
    assert part.metadata.missing[broken].ranges == ((0, 200),)
    assert verify(part.root) == []
    shutil.copy(folder / state.name, state)
    whole = ReplayDataset(run())
    assert whole.metadata.counts[broken].actions == 200
    assert whole.metadata.missing == {}


@pytest.mark.slow
def test_workers_that_die_or_stand_still_cost_only_their_shards(
    roms: list[str], ray_session: None, tmp_path: Path
) -> None:
    """One worker is frozen in the middle of a shard, the next one killed."""

    def run(name: str) -> Path:
        config = CollectionConfig(steps_per_shard=400, workers_max=1, step_timeout_s=3)
        return collect(tmp_path / name, Policy(name="random"), GAMES, 2_000, config, ENV, seed=7)

    signals = [signal.SIGSTOP, signal.SIGKILL]
    sent: list[int] = []

    def send_them() -> None:
        for number in signals:
            worker = None
            shards = len(list((tmp_path / "disturbed").glob("game=*/*.parquet")))
            while worker is None or len(list((tmp_path / "disturbed").glob("game=*/*.parquet"))) == shards:
                time.sleep(0.02)
                worker = next((p for p in children_named("RolloutWorker") if p.pid not in sent), None)
            os.kill(worker.pid, number)
            sent.append(worker.pid)

    sender = threading.Thread(target=send_them)
    sender.start()
    disturbed = run("disturbed")
    sender.join()
    assert len(set(sent)) == 2
    assert files(disturbed) == files(run("peaceful"))


@pytest.mark.slow
def test_a_worker_whose_memory_has_grown_is_replaced(roms: list[str], ray_session: None, tmp_path: Path) -> None:
    """Any process exceeds one megabyte, so each of the three shards is played by a different one."""
    seen: set[int] = set()
    others = {process.pid for process in children_named("RolloutWorker")}  # of an earlier test, on their way out
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen.update(process.pid for process in children_named("RolloutWorker"))

    looking = threading.Thread(target=look)
    looking.start()
    config = CollectionConfig(steps_per_shard=50, workers_max=1, worker_memory_mb=1)
    replaced = collect(tmp_path / "replaced", Policy(name="random"), GAMES[:1], 150, config, ENV)
    done.set()
    looking.join()
    assert len(seen - others) == 3
    config = CollectionConfig(steps_per_shard=50, workers_max=1)
    assert files(replaced) == files(collect(tmp_path / "kept", Policy(name="random"), GAMES[:1], 150, config, ENV))


def test_missing_play_is_told_in_ranges() -> None:
    shards = plan_shards(["a"], per_game=50, per_shard=10)
    assert spans([shards[4], shards[0], shards[1]]) == ((0, 20), (40, 50))


def test_impossible_pools_are_refused() -> None:
    with pytest.raises(ValueError, match="workers_max = 1: must be at least workers_min, 2"):
        CollectionConfig(workers_min=2, workers_max=1)
    with pytest.raises(ValueError, match="tries = 0: must be at least 1"):
        CollectionConfig(tries=0)
    with pytest.raises(ValueError, match="step_timeout_s = 0: must be above 0"):
        CollectionConfig(step_timeout_s=0)


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
