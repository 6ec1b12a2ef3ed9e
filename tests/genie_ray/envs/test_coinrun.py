"""CoinRun, run for real: the games' interface, levels by seed, the effect of the five actions."""

from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game, register_rllib_env, vectorize_mode
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.games.roms import require_rom, resolve_game

pytestmark = pytest.mark.usefixtures("procgen")
TIME_LIMIT = 1_000  # ticks, procgen's
EVERY_TICK = EnvConfig(frame_skip=1)
RIGHT, LEFT, UP, DOWN, JUMP = range(5)


def play(config: EnvConfig, actions: np.ndarray, seed: int | None = 0, level: int | None = None) -> list[tuple]:
    with closing(ProcgenEnv("CoinRun", config)) as env:
        frame, info = env.reset(seed=seed, options=None if level is None else {"level": level})
        steps = [(frame, 0.0, False, False, info)]
        for action in actions:
            steps.append(env.step(action))
            if steps[-1][2] or steps[-1][3]:
                break
        return steps


def frames(steps: list[tuple]) -> np.ndarray:
    return np.stack([step[0] for step in steps])


def test_it_is_a_game_by_name() -> None:
    assert resolve_game("CoinRun") == "CoinRun"
    require_rom("CoinRun")
    with closing(make_game("CoinRun", EVERY_TICK)) as env:
        assert isinstance(env, ProcgenEnv)
        assert env.action_space.n == 5
        check_env(env, skip_render_check=True)


def test_seed_and_actions_decide_everything() -> None:
    actions = np.random.default_rng(0).integers(5, size=100)
    one, same, other = (play(EVERY_TICK, actions, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(frames(one), frames(same))
    assert [step[1:] for step in one] == [step[1:] for step in same]
    assert one[0][4]["level"] != other[0][4]["level"]
    assert not np.array_equal(one[0][0], other[0][0])
    by_number = play(EVERY_TICK, actions, seed=9, level=one[0][4]["level"])
    np.testing.assert_array_equal(frames(one), frames(by_number))


def test_levels_are_those_of_the_settings_and_each_episode_draws_one() -> None:
    with closing(ProcgenEnv("CoinRun", EnvConfig(coinrun_levels=(500, 3)))) as env:
        drawn = [env.reset(seed=0 if episode == 0 else None)[1]["level"] for episode in range(40)]
    assert set(drawn) == {500, 501, 502}


def test_easy_levels_are_others() -> None:
    actions = np.full(20, RIGHT)
    easy, hard = (frames(play(EnvConfig(coinrun_mode=mode), actions, level=3)) for mode in ("easy", "hard"))
    assert not np.array_equal(easy[0], hard[0])
    with pytest.raises(ValueError, match="coinrun_mode is 'medium': must be 'easy' or 'hard'"):
        EnvConfig(coinrun_mode="medium")  # type: ignore[arg-type]


def test_a_state_gives_the_same_steps_again_even_after_its_level_has_ended() -> None:
    with closing(ProcgenEnv("CoinRun", EnvConfig(frame_skip=1, max_episode_steps=TIME_LIMIT))) as env:
        env.reset(seed=0)
        for action in np.random.default_rng(0).integers(5, size=30):
            env.step(action)
        state = env.get_state()
        runs = []
        for _ in range(2):
            env.set_state(state)
            runs.append([])
            while not runs[-1] or not (runs[-1][-1][2] or runs[-1][-1][3]):
                runs[-1].append(env.step(RIGHT if len(runs[-1]) % 20 else JUMP))
    once, again = runs
    assert [step[1:] for step in again] == [step[1:] for step in once]
    np.testing.assert_array_equal(frames(again), frames(once))


def test_actions_press_procgens_keys() -> None:
    """Against procgen itself, whose 15 actions are LEFT 1, DOWN 3, nothing 4, UP 5, RIGHT 7, RIGHT and UP 8."""
    from procgen import ProcgenGym3Env

    config = EnvConfig(frame_skip=1, action_set="running_jumps")
    ours = np.array([0, 0, 4, 0, 5, 5, 0, 1, 3, 2, 5, 0, 6, 6, 1])
    theirs = np.array([7, 7, 5, 7, 8, 8, 7, 1, 3, 5, 8, 7, 2, 2, 1], np.int32)
    game = ProcgenGym3Env(1, "coinrun", start_level=17, num_levels=1, rand_seed=3)
    expected = [game.observe()[1]["rgb"][0]]
    for action in theirs:
        game.act(action[None])
        expected.append(game.observe()[1]["rgb"][0])
    played = frames(play(config, ours, level=17))
    np.testing.assert_array_equal(played, np.stack(expected))
    assert len(np.unique(played.reshape(16, -1), axis=0)) > 10  # it moves


def test_a_step_is_the_last_of_its_ticks_with_summed_reward() -> None:
    actions = np.random.default_rng(2).integers(5, size=30)
    ticks = play(EVERY_TICK, actions.repeat(4), level=3)
    steps = play(EnvConfig(), actions, level=3)
    for index, step in enumerate(steps[:-1]):  # the last one may have been cut short by the end
        np.testing.assert_array_equal(step[0], ticks[4 * index][0])
    assert sum(step[1] for step in steps) == sum(tick[1] for tick in ticks)


def test_the_coin_ends_an_episode_and_the_last_frame_is_of_its_own_level() -> None:
    rng = np.random.default_rng(0)
    config = EnvConfig(frame_skip=1, action_set="running_jumps")
    complete = died = 0
    for seed in range(12):
        steps = play(config, rng.choice([0, 5, 5, 5], size=700), seed)
        frame, reward, terminated, truncated, info = steps[-1]
        assert terminated
        assert not truncated
        np.testing.assert_array_equal(frame, steps[-2][0])  # the game already shows the next level
        assert reward == (10 if info["level_complete"] else 0)
        assert sum(step[1] for step in steps[:-1]) == 0
        complete += info["level_complete"]
        died += not info["level_complete"]
    assert complete >= 3
    assert died >= 2


def test_limits_of_time_truncate() -> None:
    waiting = np.zeros(1_200, int)
    noop = {"action_set": "paper_noop", "frame_skip": 1}
    ours = play(EnvConfig(**noop, max_episode_steps=50), waiting + 5)
    assert (len(ours) - 1, *ours[-1][2:4]) == (50, False, True)
    theirs = play(EnvConfig(**noop, max_episode_steps=5_000), waiting + 5)
    assert (len(theirs) - 1, *theirs[-1][2:4]) == (TIME_LIMIT, False, True)


def test_painting_the_speed_changes_the_corner_and_nothing_else() -> None:
    actions = np.random.default_rng(0).integers(5, size=60)
    plain, painted = (
        frames(play(EnvConfig(frame_skip=1, paint_vel_info=paint), actions, level=3)) for paint in (False, True)
    )
    changed = (plain != painted).any(axis=(0, 3))
    rows, columns = np.nonzero(changed)
    assert changed.any()
    assert (rows.max() + 1, columns.max() + 1) == (13, 26)  # what evaluation.black_corner hides in the papers' table
    corner = painted[:, : rows.max() + 1, : columns.max() + 1]
    assert len(np.unique(corner.reshape(len(corner), -1), axis=0)) > 5  # it shows a speed that changes


@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib")
def test_rllib_steps_several_in_one_process() -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from policies.baselines.random import RandomModule

    assert vectorize_mode(["CoinRun", "Kangaroo-Atari2600-v0"]) == "async"
    config = (
        PPOConfig()  # stands for any algorithm
        .environment(register_rllib_env(), env_config={"game": "CoinRun", "env": EVERY_TICK})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=3, gym_env_vectorize_mode=vectorize_mode(["CoinRun"]))
        .rl_module(rl_module_spec=RLModuleSpec(module_class=RandomModule))
    )
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_timesteps=30)
    assert isinstance(runner.env.unwrapped, gym.vector.SyncVectorEnv)
    runner.stop()
    assert len({episode.get_infos(0)["level"] for episode in episodes}) == 3


def test_sizes_and_native_frames() -> None:
    with closing(ProcgenEnv("CoinRun", EnvConfig(frame_size=32, frame_skip=1), native_frame_every=2)) as env:
        frame, info = env.reset(seed=0)
        infos = [info, *(env.step(RIGHT)[4] for _ in range(3))]
    assert frame.shape == (32, 32, 3)
    assert ["native_frame" in info for info in infos] == [True, False, True, False]
    assert info["native_frame"].shape == (512, 512, 3)


def test_what_it_cannot_do_is_told() -> None:
    with pytest.raises(ValueError, match=r"coinrun_levels is 5, 0: must be a first level from 0 on"):
        EnvConfig(coinrun_levels=(5, 0))


def test_without_a_level_there_is_one_clear_error() -> None:
    env = ProcgenEnv("CoinRun", EnvConfig(action_set="coinrun"))
    for after_close in (False, True):
        with pytest.raises(gym.error.ResetNeeded, match=r"step\(\) without an episode: reset\(\) comes first"):
            env.step(0)
        if not after_close:
            env.reset(seed=0)
            env.close()
