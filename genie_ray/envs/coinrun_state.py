"""Where the player and the coin are, read from procgen's own record of a CoinRun level (`get_state`).

The record is a sequence of 32-bit little-endian numbers and of strings, each a length and its bytes: a version; the
game's name; 17 options and seeds; two random generators, each a flag and a string, whose length varies; 15 numbers of
the episode; the size of the grid; the number of entities; and the entities. The first entity is the player, whose
first two numbers are x and y of its centre. At the end lies the grid of 64 × 64 cells, row by row from the bottom, and
behind it eight numbers of CoinRun's. `tests/genie_ray/envs/test_coinrun_place.py` holds this against play.
"""

import struct

import numpy as np

SIDE = 64  # cells of the grid, in both directions
COIN = 1  # a cell that holds the coin
OPTIONS, EPISODE, TAIL = 17, 17, 8  # numbers
UNITS = 16  # of x and y in `info`, to a cell: one cell is then one place of `replay.coverage.place_of`

_length = struct.Struct("<i").unpack_from
_point = struct.Struct("<2f").unpack_from


def player_cell(state: bytes) -> tuple[float, float]:
    """The player's x and y in cells, from the level's left and bottom; not whole numbers."""
    at = 4
    at += 4 + _length(state, at)[0] + 4 * OPTIONS
    for _ in range(2):
        at += 8 + _length(state, at + 4)[0]
    x, y = _point(state, at + 4 * EPISODE)
    return x, y


def coin_column(state: bytes) -> float:
    """The x of the coin's centre in cells; a level ends behind it."""
    at = len(state) - 4 * (SIDE * SIDE + TAIL)
    grid = np.frombuffer(state, "<i4", SIDE * SIDE, at)
    return int(np.flatnonzero(grid == COIN)[0]) % SIDE + 0.5
