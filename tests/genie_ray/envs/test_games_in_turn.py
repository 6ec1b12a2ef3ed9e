"""Several games in one run: which environment plays which game, on real emulators."""

import numpy as np
import pytest

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.games_in_turn import GamesInTurn, _make_from_env_config
from genie_ray.envs.retro import RetroEnv

GAMES = ["Kangaroo-Atari2600-v0", "Hero-Atari2600-v0", "Pong-Atari2600-v0"]
SHORT = EnvConfig(max_episode_steps=2)


@pytest.mark.parametrize(("environments", "second"), [(2, [2, 0]), (3, [0, 1, 2])])
def test_games_are_dealt_out_and_take_turns(roms: list[str], environments: int, second: list[int]) -> None:
    envs = _make_from_env_config({"games": GAMES, "env": SHORT, "num_envs": environments})
    _, info = envs.reset()
    assert list(info["game"]) == GAMES[:environments]
    for _ in range(2):
        *_, truncated, info = envs.step(np.zeros(environments, np.int64))
    assert truncated.all()
    *_, info = envs.step(np.zeros(environments, np.int64))  # the next episodes begin
    assert list(info["game"]) == [GAMES[index] for index in second]
    envs.close()


def test_with_a_seed_each_environment_begins_with_its_first_game(roms: list[str]) -> None:
    env = GamesInTurn(GAMES, SHORT, number=1)
    played = [env.reset(seed=seed)[1]["game"] for seed in (0, None, None, 0, None, 7)]
    env.close()
    assert played == [GAMES[index] for index in (1, 2, 0, 1, 2, 1)]


def test_a_game_in_turn_is_the_game_itself(roms: list[str]) -> None:
    env = GamesInTurn(GAMES, SHORT, number=1)
    frame, info = env.reset()
    stepped, reward, *_ = env.step(np.int64(2))
    env.close()
    alone = RetroEnv(GAMES[1], SHORT)
    np.testing.assert_array_equal(frame, alone.reset()[0])
    np.testing.assert_array_equal(stepped, alone.step(2)[0])
    assert info["game"] == GAMES[1]
    assert reward == 0.0
    alone.close()
