"""Where the player and a level's end are, read from procgen's own record of a level (`get_state`).

The record is a sequence of 32-bit little-endian numbers and of strings, each a length and its bytes: a version; the
game's name; 17 options and seeds; two random generators, each a flag and a string, whose length varies; 15 numbers of
the episode, among them the ticks that a level lasts at most; how many cells the grid has; the number of entities; and
the entities. The first entity is the player, whose first two numbers are x and y of its centre. At the end lies the
grid, row by row from the bottom, and behind it numbers of the game's and a mark of the end.
`tests/genie_ray/envs/test_procgen_place.py` holds this against play.
"""

import struct
from typing import NamedTuple

import numpy as np

OPTIONS, EPISODE = 17, 17  # numbers; the latter with the counts of cells and entities
TIME_LIMIT = 4  # which of the episode's numbers
SIDE = 64  # cells of the grids of CoinRun and Ninja, in both directions
COIN, WALL = 1, 20  # cells of CoinRun's and of Ninja's
TAIL = {"CoinRun": 8, "Ninja": 9}  # numbers behind the grid
UNITS = 16  # of x and y in `info`, to a cell: one cell is then one place of `replay.coverage.place_of`

_length = struct.Struct("<i").unpack_from
_point = struct.Struct("<2f").unpack_from


class End(NamedTuple):
    """Where a level ends."""

    axis: int  # 0: x, 1: y
    cell: float  # in cells, from the level's left or bottom; not a whole number


def player_cell(state: bytes) -> tuple[float, float]:
    """The player's x and y in cells, from the level's left and bottom; not whole numbers."""
    x, y = _point(state, _episode(state) + 4 * EPISODE)
    return x, y


def time_limit(state: bytes) -> int:
    """The ticks after which procgen starts the next level."""
    return int(_length(state, _episode(state) + 4 * TIME_LIMIT)[0])


def end(game: str, state: bytes) -> End | None:
    """Where the level ends; None for a game whose levels do not end at one side of them."""
    if game == "Leaper":  # its last number but one is the row behind the finish
        return End(1, _length(state, len(state) - 8)[0] - 0.5)
    if game not in TAIL:
        return None
    grid = np.frombuffer(state, "<i4", SIDE * SIDE, len(state) - 4 * (SIDE * SIDE + TAIL[game])).reshape(SIDE, SIDE)
    there = grid == COIN if game == "CoinRun" else grid != WALL  # behind Ninja's mushroom all is wall
    return End(0, int(np.flatnonzero(there.any(axis=0))[-1]) + 0.5)


def _episode(state: bytes) -> int:
    """Where the numbers of the episode begin."""
    at = 4
    at += 4 + _length(state, at)[0] + 4 * OPTIONS
    for _ in range(2):
        at += 8 + _length(state, at + 4)[0]
    return at
