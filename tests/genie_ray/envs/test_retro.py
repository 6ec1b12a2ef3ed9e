"""Games as environments, with real emulators: one per process, so each test closes its own."""

from collections.abc import Iterator
from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
import stable_retro
from gymnasium.utils.env_checker import check_env

from genie_ray.base.frames import fit_frame
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import INTEGRATIONS, installed_games, known_games
from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.replay.writer import write_metadata, write_shard

GAMES = ["Airstriker-Genesis-v0", "Kangaroo-Atari2600-v0", "Hero-Atari2600-v0", "MontezumaRevenge-Atari2600-v0"]
pytestmark = pytest.mark.usefixtures("roms")


@pytest.fixture
def kangaroo() -> Iterator[RetroEnv]:
    with closing(RetroEnv("Kangaroo-Atari2600", EnvConfig(max_episode_steps=20))) as env:
        yield env


def play(env: RetroEnv, actions: np.ndarray) -> Episode:
    frame, info = env.reset(seed=0)
    frames, rewards, infos = [frame], [], [info]
    terminated = truncated = False
    for action in actions:
        frame, reward, terminated, truncated, info = env.step(action)
        frames.append(frame)
        rewards.append(reward)
        infos.append(info)
        if terminated or truncated:
            break
    return Episode(
        episode_id=f"{env.game}/test/0/000000",
        game=env.game,
        frames=np.stack(frames),
        actions=actions[: len(rewards)].astype(np.int8),
        action_logp=None,
        reward_env=np.array(rewards, np.float32),
        reward_uncertainty=None,
        terminated=terminated,
        truncated=truncated,
        infos=infos,
    )


@pytest.mark.parametrize("game", GAMES)
def test_recorded_episode_replays_to_the_same_frames(game: str, tmp_path) -> None:
    config = EnvConfig(max_episode_steps=200)
    actions = np.random.default_rng(0).integers(5, size=250)
    with closing(RetroEnv(game, config)) as env:
        assert env.game == game
        recorded = play(env, actions)
        assert env.observation_space.contains(recorded.frames[0])
    assert len(np.unique(recorded.frames.reshape(len(recorded.frames), -1), axis=0)) > 50  # something happens
    assert recorded.terminated != recorded.truncated
    assert all(type(value) is int for info in recorded.infos for value in info.values())
    assert "lives" in recorded.infos[0]

    write_shard(tmp_path, game, "0", [recorded])
    counts = count_episodes(index_episodes(tmp_path))
    names = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
    write_metadata(tmp_path, DatasetMetadata(action_names=names, frame_shape=(64, 64, 3), policy="test", counts=counts))
    dataset = ReplayDataset(tmp_path)
    stored = dataset.read(dataset.episodes[0])

    with closing(RetroEnv(game, config)) as env:
        play(env, 4 - actions[:50])  # what was played before leaves no trace
        replayed = play(env, stored.actions)
    np.testing.assert_array_equal(replayed.frames, recorded.frames)
    np.testing.assert_array_equal(stored.frames, recorded.frames)
    np.testing.assert_array_equal(replayed.reward_env, stored.reward_env)
    assert replayed.infos == stored.infos
    assert (replayed.terminated, replayed.truncated) == (stored.terminated, stored.truncated)


@pytest.mark.parametrize("game", GAMES[:2])
def test_a_state_gives_the_same_steps_again(game: str) -> None:
    actions = np.random.default_rng(2).integers(5, size=80)
    with closing(RetroEnv(game, EnvConfig(max_episode_steps=80))) as env:
        env.reset()
        for action in actions[:40]:
            env.step(action)
        state = env.get_state()
        once = [env.step(action) for action in actions[40:]]
        for action in 4 - actions[:30]:  # leads elsewhere
            env.step(action)
        env.set_state(state)
        again = [env.step(action) for action in actions[40:]]
    assert once[-1][3]  # the step limit holds on, too
    assert [step[1:] for step in again] == [step[1:] for step in once]
    np.testing.assert_array_equal([step[0] for step in again], [step[0] for step in once])


def test_native_frames_come_as_often_as_asked_for_and_change_nothing() -> None:
    actions = np.random.default_rng(1).integers(5, size=10)
    with closing(RetroEnv("Airstriker-Genesis", native_frame_every=3)) as env:
        with_them = [play(env, actions) for _ in range(2)][1]  # counted anew in every episode
    with closing(RetroEnv("Airstriker-Genesis")) as env:
        without = play(env, actions)
    assert ["native_frame" in info for info in with_them.infos] == [step % 3 == 0 for step in range(11)]
    assert [{k: v for k, v in info.items() if k != "native_frame"} for info in with_them.infos] == without.infos
    np.testing.assert_array_equal(with_them.frames, without.frames)


def test_step_is_the_last_of_four_held_frames_with_summed_reward() -> None:
    """Against Stable-Retro's own environment, button by button."""
    actions = np.random.default_rng(1).integers(5, size=150)
    with closing(RetroEnv("Airstriker-Genesis", native_frame_every=1)) as env:
        episode = play(env, actions)
    native = [info.pop("native_frame") for info in episode.infos]

    emulator = stable_retro.RetroEnv(
        "Airstriker-Genesis-v0", inttype=INTEGRATIONS, use_restricted_actions=stable_retro.Actions.ALL, render_mode=None
    )
    with closing(emulator):
        emulator.reset()
        for t, action in enumerate(episode.actions):
            button = ["RIGHT", "LEFT", "UP", "DOWN", "B"][action]
            held = [int(button == name) for name in emulator.buttons]
            four = [emulator.step(held) for _ in range(4)]
            np.testing.assert_array_equal(native[t + 1], four[-1][0])
            assert episode.reward_env[t] == sum(reward for _, reward, *_ in four)
            assert episode.infos[t + 1] == four[-1][-1]
    assert episode.reward_env.sum() > 0


def test_truncates_at_the_step_limit_and_starts_anew(kangaroo: RetroEnv) -> None:
    first = play(kangaroo, np.zeros(30, int))
    assert len(first.actions) == 20
    assert first.truncated
    assert not first.terminated
    np.testing.assert_array_equal(play(kangaroo, np.zeros(30, int)).frames, first.frames)


def test_passes_gymnasiums_checker(kangaroo: RetroEnv) -> None:
    check_env(kangaroo, skip_render_check=True)


def test_without_an_episode_there_is_one_clear_error() -> None:
    env = RetroEnv("Kangaroo-Atari2600-v0")
    for after_close in (False, True):
        with pytest.raises(gym.error.ResetNeeded, match=r"step\(\) without an episode: reset\(\) comes first"):
            env.step(0)
        with pytest.raises(gym.error.ResetNeeded, match="get_state"):
            env.get_state()
        if not after_close:
            env.reset(seed=0)
            env.step(0)
            env.close()


def test_second_emulator_is_refused_by_name(kangaroo: RetroEnv) -> None:
    hero = RetroEnv("Hero-Atari2600")  # only constructed, not reset: blocks no other
    kangaroo.reset()
    with pytest.raises(RuntimeError, match=r"cannot start Hero-Atari2600-v0: .* of Kangaroo-Atari2600-v0"):
        hero.reset()
    kangaroo.close()
    with closing(hero):
        hero.reset()


def test_refuses_what_cannot_be_played() -> None:
    with pytest.raises(ValueError, match=r"unknown game 'Kangoroo-Atari2600'.*nearest: Kangaroo-Atari2600-v0"):
        RetroEnv("Kangoroo-Atari2600")
    missing = (set(known_games()) - set(installed_games())).pop()
    with pytest.raises(ValueError, match=f"no ROM for {missing}"):
        RetroEnv(missing)
    with pytest.raises(ValueError, match="frame_skip is 0: must be at least 1"):
        EnvConfig(frame_skip=0)
    with pytest.raises(ValueError, match="fit is 'crop': must be 'pad' or 'stretch'"):
        EnvConfig(fit="crop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="action_set is 'all': must be one of paper"):
        EnvConfig(action_set="all")


def test_padding_keeps_the_aspect_ratio_and_stretching_does_not() -> None:
    white = np.full((210, 160, 3), 255, np.uint8)
    padded = fit_frame(white, 64, "pad")
    # 25 of 210 columns are black on either side: 7.6 of 64, so 7 wholly, 49 wholly white.
    row = padded[32, :, 0]
    assert row[:7].max() == 0
    assert row[57:].max() == 0
    assert row[8:56].min() == 255
    assert 0 < row[7] < 255
    np.testing.assert_array_equal(padded[:, 8:56], 255)
    np.testing.assert_array_equal(fit_frame(white, 64, "stretch"), 255)


def test_resizing_averages_areas() -> None:
    screen = np.random.default_rng(0).integers(256, size=(128, 128, 3), dtype=np.uint8)
    means = screen.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit_frame(screen, 64, "pad") - means).max() <= 0.5
