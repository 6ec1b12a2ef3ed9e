"""Action sets as buttons."""

import numpy as np
import pytest
from stable_retro import get_system_info

from genie_ray.games.actions import (
    ACTION_SETS,
    BUTTONS_OF_GAME,
    BUTTONS_OF_PLATFORM,
    WORDS,
    action_names,
    action_weights,
    button_table,
    platform_of,
)

# As Stable-Retro lists them.
ATARI = ["BUTTON", None, "SELECT", "RESET", "UP", "DOWN", "LEFT", "RIGHT"]
SNES = ["B", "Y", "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A", "X", "L", "R"]
GENESIS = ["B", "A", "MODE", "START", "UP", "DOWN", "LEFT", "RIGHT", "C", "Y", "X", "Z"]
NES = ["B", None, "SELECT", "START", "UP", "DOWN", "LEFT", "RIGHT", "A"]


def held(game: str, buttons: list[str | None], action_set: str = "paper") -> list[set[str | None]]:
    table = button_table(game, buttons, action_set)
    assert table.dtype == np.int8
    assert table.shape == (len(action_names(action_set)), len(buttons))
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
    with pytest.raises(
        ValueError, match=r"action_set is 'papre': must be one of paper, .*, or actions joined by commas"
    ):
        button_table("Kangaroo-Atari2600-v0", ATARI, "papre")


def test_datasets_record_these_sets() -> None:
    """Names in existing datasets: their order is what an action index means."""
    five = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
    assert ACTION_SETS["paper"] == five
    assert ACTION_SETS["paper_noop"] == (*five, "NOOP")
    assert ACTION_SETS["running_jumps"] == (*five, "RIGHT+JUMP", "LEFT+JUMP")


@pytest.mark.parametrize("action_set", sorted(set(ACTION_SETS) - {"ninja", "starpilot"}))  # which have letters
def test_every_action_of_a_set_is_its_own(action_set: str) -> None:
    table = button_table("SuperMarioWorld-Snes-v0", SNES, action_set)
    if action_set in ("paper_fire", "paper_second"):
        assert held("SuperMarioWorld-Snes-v0", SNES, action_set)[5] == {"Y"}
    assert len(np.unique(table, axis=0)) == len(table)


def test_sizes_that_others_count_on() -> None:
    """CoinRun has 7 actions; the Arcade Learning Environment's full set has 18, the first of which is no-op."""
    assert len(ACTION_SETS["coinrun"]) == 7
    assert len(ACTION_SETS["ale"]) == 18
    ale = held("Kangaroo-Atari2600-v0", ATARI, "ale")
    assert ale[0] == set()
    assert ale[17] == {"DOWN", "LEFT", "BUTTON"}


def test_tables_name_only_buttons_that_stable_retro_has() -> None:
    for name, words in (BUTTONS_OF_PLATFORM | BUTTONS_OF_GAME).items():
        assert set(words) <= set(WORDS)
        assert set(words.values()) <= set(get_system_info(platform_of(name))["buttons"])


def test_a_set_may_be_written_out() -> None:
    assert held("SuperMarioWorld-Snes-v0", SNES, "RIGHT, JUMP+X,NOOP") == [{"RIGHT"}, {"B", "X"}, set()]
    for wrong in ("RIGHT", "", "RIGHT,,LEFT", "RIGHT,UP+"):
        with pytest.raises(ValueError, match="must be one of paper"):
            action_names(wrong)
    with pytest.raises(ValueError, match="names RIGHT twice"):
        action_names("RIGHT,LEFT,RIGHT")


def test_word_without_a_button() -> None:
    with pytest.raises(
        ValueError, match=r"no second button known for platform Atari2600 of Kangaroo.*: known are 32x, "
    ):
        button_table("Kangaroo-Atari2600-v0", ATARI, "paper_second")


def test_weights_of_actions() -> None:
    assert action_weights("LEFT=3, NOOP=0.5", ("RIGHT", "LEFT", "NOOP")) == (1.0, 3.0, 0.5)
    for wrong, told in (
        ("LEFT", "weight 'LEFT' is not NAME=WEIGHT: NAME must be one of RIGHT, LEFT"),
        ("UP=2", "weight 'UP=2' is not NAME=WEIGHT: NAME must be one of RIGHT, LEFT"),
        ("LEFT=much", "weight of LEFT is 'much': must be a number"),
        ("LEFT=0", "weight of LEFT is 0: must be above 0 and finite"),
    ):
        with pytest.raises(ValueError, match=told):
            action_weights(wrong, ("RIGHT", "LEFT"))
