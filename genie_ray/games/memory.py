"""What is known of a game's memory: where its player is, how long it does not listen, …: the table `memory.yaml`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class GameMemory:
    """A game's row of the table."""

    addresses: dict[str, int] = field(default_factory=dict)  # variable → address of its byte
    pixels: dict[str, int] = field(default_factory=dict)  # variable → pixels of a unit, where that is not 1
    dead_start: int = 0  # emulator frames of an episode, at first, in which no action shows
    partial_state: bool = False  # what the emulator saves is not all that there is


def memory_of(game: str) -> GameMemory:
    """The row of a game, by id with or without `-v0`; an empty one if it has none."""
    return GAMES.get(game.removesuffix("-v0"), GameMemory())


def _row(position: dict[str, Any] | None = None, dead_start: int = 0, partial_state: bool = False) -> GameMemory:
    units = {name: value if isinstance(value, list) else [value, 1] for name, value in (position or {}).items()}
    return GameMemory(
        addresses={name: address for name, (address, _) in units.items()},
        pixels={name: pixels for name, (_, pixels) in units.items() if pixels != 1},
        dead_start=dead_start,
        partial_state=partial_state,
    )


TABLE = yaml.safe_load(Path(__file__).with_name("memory.yaml").read_text())
GAMES = {game: _row(**row) for game, row in TABLE["games"].items()}
