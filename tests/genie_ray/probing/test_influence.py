"""What the actions of real games decide."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from genie_ray.cli import app
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.probing.influence import Influence, measure

pytestmark = pytest.mark.usefixtures("roms")


def test_shares_by_hand() -> None:
    found = Influence(game="a", states=1, caused=(0.0, 0.1), changed=(0.0, 0.4), distinct=1.0, dead_start=0)
    assert found.shares == (0.0, 0.25)


def test_what_no_action_changes_is_not_decided() -> None:
    """Up and down do nothing in Airstriker; right and left move its ship."""
    blind, steered = (
        measure("Airstriker-Genesis-v0", EnvConfig(action_set=actions), states=6, steps=3, seed=0)
        for actions in ("UP,DOWN", "RIGHT,LEFT")
    )
    assert blind.caused == (0.0, 0.0, 0.0)
    assert blind.shares == (0.0, 0.0, 0.0)
    assert blind.changed[-1] > 0  # the game goes on by itself
    assert (blind.distinct, blind.dead_start) == (1.0, None)
    assert steered.distinct > 1.5
    assert 0 < steered.shares[-1] <= 1


def test_kangaroo_listens_when_its_start_is_over() -> None:
    """All actions show the same frames until then, and not after it."""
    env = EnvConfig()
    dead = measure("Kangaroo-Atari2600-v0", env, states=1, steps=1, seed=0).dead_start
    assert dead is not None
    assert dead > 10
    game = RetroEnv("Kangaroo-Atari2600-v0", env)

    def last_frames(waited: int, held: int) -> set[bytes]:
        frames = set()
        for action in range(5):
            game.reset(seed=0)
            for chosen in [0] * waited + [action] * held:
                frame = game.step(chosen)[0]
            frames.add(frame.tobytes())
        return frames

    assert len(last_frames(dead - 1, 3)) == 1
    assert len(last_frames(dead, 3)) > 1
    game.close()


def test_the_command_ranks_games_and_refuses_nonsense(tmp_path: Path) -> None:
    table = tmp_path / "deep" / "influence.csv"
    games = ["--game", "Kangaroo-Atari2600", "--game", "Boxing-Atari2600"]
    command = ["games", "influence", *games, "--states", "4", "--csv", str(table), "env.max_episode_steps=200"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["game"] for row in rows] == ["Boxing-Atari2600", "Kangaroo-Atari2600"]
    assert all(row["states"] == "4" for row in rows)
    assert np.all(np.diff([float(row["decided, all"]) for row in rows]) <= 0)
    for wrong, message in (
        (["--states", "0"], "states is 0: must be at least 1"),
        (["--workers", "0"], "workers is 0: must be at least 1"),
        (["env.max_episode_steps=20"], "env.max_episode_steps is 20: must be at least 60"),
    ):
        with pytest.raises(ValueError, match=message):
            CliRunner().invoke(app, [*command[:4], *wrong], catch_exceptions=False)
