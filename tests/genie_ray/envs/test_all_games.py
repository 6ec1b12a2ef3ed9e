"""The 33 games that run out of the box: each starts, and replaying a recording gives the same pixels.

Different processes record and replay, with the games in opposite orders.
"""

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import installed_games
from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import write_metadata, write_shard

STEPS = 500
CONFIG = EnvConfig(max_episode_steps=STEPS)


def play(game: str, actions: np.ndarray) -> list[Episode]:
    """Plays the actions, in as many episodes as needed."""
    episodes: list[Episode] = []
    with closing(RetroEnv(game, CONFIG)) as env:
        done = 0
        while done < len(actions):
            frame, info = env.reset(seed=0)
            frames, rewards, infos, terminated, truncated = [frame], [], [info], False, False
            for action in actions[done:]:
                frame, reward, terminated, truncated, info = env.step(action)
                frames.append(frame)
                rewards.append(reward)
                infos.append(info)
                if terminated or truncated:
                    break
            episodes.append(
                Episode(
                    episode_id=f"{game}/test/0/{len(episodes):06d}",
                    game=game,
                    frames=np.stack(frames),
                    actions=actions[done : done + len(rewards)].astype(np.int8),
                    action_logp=None,
                    reward_env=np.array(rewards, np.float32),
                    reward_uncertainty=None,
                    terminated=terminated,
                    truncated=truncated,
                    infos=infos,
                )
            )
            done += len(rewards)
    return episodes


def record(game: str, root: Path) -> tuple[int, str]:
    """Records random play in a shard; returns the number of distinct frames and a digest of all."""
    episodes = play(game, np.random.default_rng(0).integers(5, size=STEPS))
    write_shard(root, game, "0", episodes)
    frames = np.concatenate([episode.frames for episode in episodes])
    return len({frame.tobytes() for frame in frames}), hashlib.sha256(frames.tobytes()).hexdigest()


def replay(game: str, root: Path) -> tuple[str, bool]:
    """Replays the recorded actions; returns a digest of the frames, and whether everything recorded was reproduced."""
    dataset = ReplayDataset(root)
    recorded = [dataset.read(ref) for ref in dataset.episodes if ref.game == game]
    again = play(game, np.concatenate([episode.actions for episode in recorded]))
    same = len(again) == len(recorded) and all(
        np.array_equal(a.frames, b.frames)
        and np.array_equal(a.reward_env, b.reward_env)
        and a.infos == b.infos
        and (a.terminated, a.truncated) == (b.terminated, b.truncated)
        for a, b in zip(again, recorded, strict=True)
    )
    frames = np.concatenate([episode.frames for episode in again])
    return hashlib.sha256(frames.tobytes()).hexdigest(), same


@pytest.mark.slow
def test_every_game_starts_and_replays_its_recording_bit_for_bit(roms: list[str], tmp_path: Path) -> None:
    games = sorted({*roms, "Airstriker-Genesis-v0"})
    assert len(games) == 33
    assert set(games) <= set(installed_games())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        recorded = dict(zip(games, pool.map(record, games, [tmp_path] * len(games)), strict=True))
    names = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
    counts = count_episodes(index_episodes(tmp_path))
    write_metadata(tmp_path, DatasetMetadata(action_names=names, frame_shape=(64, 64, 3), policy="test", counts=counts))
    assert verify(tmp_path) == []
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        replayed = dict(zip(games[::-1], pool.map(replay, games[::-1], [tmp_path] * len(games)), strict=True))

    stuck = {game: distinct for game, (distinct, _) in recorded.items() if distinct < STEPS // 10}
    assert not stuck, "hardly anything moves: no game was started"
    assert [game for game in games if replayed[game][0] != recorded[game][1]] == []
    assert [game for game in games if not replayed[game][1]] == []
