"""Action sets as buttons."""

import numpy as np
import pytest

from genie_ray.envs.actions import ACTION_SETS, button_table

# As Stable-Retro lists them.
ATARI = ["BUTTON", None, "SELECT", "RESET", "UP", "DOWN", "LEFT", "RIGHT"]
SNES = ["B", "Y", "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A", "X", "L", "R"]
GENESIS = ["B", "A", "MODE", "START", "UP", "DOWN", "LEFT", "RIGHT", "C", "Y", "X", "Z"]
NES = ["B", None, "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A"]


def held(game: str, buttons: list[str | None], action_set: str = "paper") -> list[set[str | None]]:
    table = button_table(game, buttons, action_set)
    assert table.dtype == np.int8
    assert table.shape == (len(ACTION_SETS[action_set]), len(buttons))
    return [{buttons[i] for i in np.flatnonzero(row)} for row in table]


@pytest.mark.parametrize(
    ("game", "buttons", "jump"),
    [
        ("Kangaroo-Atari2600-v0", ATARI, "BUTTON"),
        ("SuperMarioWorld-Snes-v0", SNES, "B"),
        ("SonicTheHedgehog-Genesis-v0", GENESIS, "C"),
        ("SuperMarioBros-Nes-v0", NES, "A"),
        ("Contra-Nes", NES, "A"),
        ("AlexKiddInMiracleWorld-Sms-v0", NES, "A"),
        ("SuperMarioLand-GameBoy-v0", NES, "A"),
    ],
)
def test_papers_five_actions(game: str, buttons: list[str | None], jump: str) -> None:
    assert held(game, buttons) == [{"RIGHT"}, {"LEFT"}, {"UP"}, {"DOWN"}, {jump}]


def test_game_overrides_its_platform() -> None:
    assert held("Airstriker-Genesis-v0", GENESIS)[4] == {"B"}


def test_combinations_and_noop() -> None:
    assert held("Kangaroo-Atari2600-v0", ATARI, "paper_noop")[5] == set()
    assert held("Kangaroo-Atari2600-v0", ATARI, "running_jumps")[5:] == [{"RIGHT", "BUTTON"}, {"LEFT", "BUTTON"}]


def test_missing_button_names_those_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"JUMP needs button C, which .* lacks: its buttons are RIGHT, LEFT, UP, DOWN, A$"
    ):
        button_table("SonicTheHedgehog-Genesis-v0", ["RIGHT", "LEFT", None, "UP", "DOWN", "A"], "paper")


def test_unknown_platform_and_action_set() -> None:
    with pytest.raises(ValueError, match="no jump button known for platform Saturn of"):
        button_table("VirtuaFighter-Saturn-v0", GENESIS, "paper")
    with pytest.raises(ValueError, match=r"unknown action set 'papre': allowed are paper, "):
        button_table("Kangaroo-Atari2600-v0", ATARI, "papre")
