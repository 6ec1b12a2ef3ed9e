"""Actions of the agent as buttons of the console.

An action set is a tuple of action names. An action name is a button, or several joined by `+`, or `NOOP`; `JUMP` is not
a button but stands for the one that jumps, which depends on the platform and sometimes on the game. The paper plays
every game with the five actions of `ACTION_SETS["paper"]`.

Axis letters: A actions; the second axis of a button table is the console's buttons in Stable-Retro's order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ACTION_SETS: dict[str, tuple[str, ...]] = {
    "paper": ("RIGHT", "LEFT", "UP", "DOWN", "JUMP"),
    "paper_noop": ("RIGHT", "LEFT", "UP", "DOWN", "JUMP", "NOOP"),
    "running_jumps": ("RIGHT", "LEFT", "UP", "DOWN", "JUMP", "RIGHT+JUMP", "LEFT+JUMP"),
}

# The platform is the part of a Stable-Retro id before its version: Kangaroo-Atari2600-v0.
JUMP_BUTTONS: dict[str, str] = {
    "32x": "B",
    "Atari2600": "BUTTON",
    "GameBoy": "A",
    "Genesis": "C",
    "Nes": "A",
    "Sms": "A",
    "Snes": "B",
}

# Games that jump with another button than their platform's.
JUMP_BUTTON_OF_GAME: dict[str, str] = {
    "Airstriker-Genesis-v0": "B",  # nothing jumps in this shooter; B fires and C does nothing
}


def platform_of(game: str) -> str:
    """The platform in a Stable-Retro id: `Kangaroo-Atari2600-v0` → `Atari2600`."""
    return game.removesuffix("-v0").rsplit("-", 1)[-1]


def button_table(game: str, buttons: Sequence[str | None], action_set: str) -> NDArray[np.int8]:
    """Which buttons each action holds down.

    Args:
        game: a Stable-Retro id.
        buttons: the console's buttons in Stable-Retro's order; None for a gap.
        action_set: a name in `ACTION_SETS`.

    Returns:
        int8 [A, len(buttons)], 1 where the button is held.

    Raises:
        ValueError: an unknown action set, a platform without a jump button, or a button that the platform lacks.
    """
    if action_set not in ACTION_SETS:
        raise ValueError(f"unknown action set {action_set!r}: allowed are {', '.join(ACTION_SETS)}")
    actions = ACTION_SETS[action_set]
    table = np.zeros((len(actions), len(buttons)), np.int8)
    for row, action in zip(table, actions, strict=True):
        for name in action.split("+") if action != "NOOP" else ():
            button = _jump_button(game) if name == "JUMP" else name
            if button not in buttons:
                present = ", ".join(b for b in buttons if b is not None)
                raise ValueError(
                    f"action {action} needs button {button}, which {game} lacks: its buttons are {present}"
                )
            row[buttons.index(button)] = 1
    return table


def _jump_button(game: str) -> str:
    if game in JUMP_BUTTON_OF_GAME:
        return JUMP_BUTTON_OF_GAME[game]
    platform = platform_of(game)
    if platform not in JUMP_BUTTONS:
        raise ValueError(f"no jump button known for platform {platform} of {game}: known are {', '.join(JUMP_BUTTONS)}")
    return JUMP_BUTTONS[platform]
