"""The agent's actions as buttons of the console.

An action set is a tuple of action names. An action name is a button, or several joined by `+`, or `NOOP`, or a word
(`JUMP`, `FIRE`, `SECOND`) for a button that depends on the platform and sometimes on the game. The sets, platforms and
games are listed in `actions.yaml`; a preset may also spell out a set: `action_set: RIGHT,LEFT,A+B`. The paper plays
every game with the five actions of the set `paper`.

Axis letters: A actions; the second axis of a button table is the console's buttons in Stable-Retro's order.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

TABLES = yaml.safe_load(Path(__file__).with_name("actions.yaml").read_text())
ACTION_SETS: dict[str, tuple[str, ...]] = {name: tuple(actions) for name, actions in TABLES["action_sets"].items()}
BUTTONS_OF_PLATFORM: dict[str, dict[str, str]] = TABLES["platforms"]
BUTTONS_OF_GAME: dict[str, dict[str, str]] = TABLES["games"]
WORDS = ("JUMP", "FIRE", "SECOND")  # that stand for a button


def action_names(action_set: str) -> tuple[str, ...]:
    """The actions of a set: a name in `ACTION_SETS`, or actions joined by commas (`RIGHT,LEFT,A+B`).

    Raises:
        ValueError: neither, or an action that is listed twice.
    """
    if action_set in ACTION_SETS:
        return ACTION_SETS[action_set]
    actions = tuple(action.strip() for action in action_set.split(","))
    if len(actions) < 2 or not all(all(action.split("+")) for action in actions):
        raise ValueError(
            f"action_set is {action_set!r}: must be one of {', '.join(ACTION_SETS)}, or actions joined by commas"
        )
    if repeated := sorted({action for action in actions if actions.count(action) > 1}):
        raise ValueError(f"action_set is {action_set!r}: names {', '.join(repeated)} twice")
    return actions


def action_weights(text: str, actions: Sequence[str]) -> tuple[float, ...]:
    """The weight of each action, [A], from `NAME=WEIGHT,...`; actions not named have weight 1.

    Raises:
        ValueError: a part that is not NAME=WEIGHT, an unknown action, or a weight that is not a positive number.
    """
    weights = dict.fromkeys(actions, 1.0)
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if not equals or name not in weights:
            raise ValueError(f"weight {part.strip()!r} is not NAME=WEIGHT: NAME must be one of {', '.join(actions)}")
        try:
            weights[name] = float(number)
        except ValueError:
            raise ValueError(f"weight of {name} is {number!r}: must be a number") from None
        if not 0 < weights[name] < float("inf"):
            raise ValueError(f"weight of {name} is {number}: must be above 0 and finite")
    return tuple(weights.values())


def platform_of(game: str) -> str:
    """The platform in a Stable-Retro id: `Kangaroo-Atari2600-v0` → `Atari2600`."""
    return game.removesuffix("-v0").rsplit("-", 1)[-1]


def button_table(game: str, buttons: Sequence[str | None], action_set: str) -> NDArray[np.int8]:
    """Which buttons each action holds down.

    Args:
        game: a Stable-Retro id.
        buttons: the console's buttons in Stable-Retro's order; None for a gap.
        action_set: see `action_names`.

    Returns:
        int8 [A, len(buttons)], 1 where the button is held.

    Raises:
        ValueError: an unknown action set, a word that the platform has no button for, or a button that it lacks.
    """
    actions = action_names(action_set)
    table = np.zeros((len(actions), len(buttons)), np.int8)
    for row, action in zip(table, actions, strict=True):
        for name in action.split("+") if action != "NOOP" else ():
            button = _button(game, name) if name in WORDS else name
            if button not in buttons:
                present = ", ".join(b for b in buttons if b is not None)
                raise ValueError(
                    f"action {action} needs button {button}, which {game} lacks: its buttons are {present}"
                )
            row[buttons.index(button)] = 1
    return table


def _button(game: str, word: str) -> str:
    """The button that a word stands for in a game."""
    platform = platform_of(game)
    of_platform = BUTTONS_OF_PLATFORM.get(platform, {})
    of_game = BUTTONS_OF_GAME.get(game.removesuffix("-v0"), {})
    if word in (known := of_platform | of_game):
        return known[word]
    platforms = [name for name, words in BUTTONS_OF_PLATFORM.items() if word in words]
    raise ValueError(
        f"no {word.lower()} button known for platform {platform} of {game}: known are {', '.join(platforms)}"
    )
