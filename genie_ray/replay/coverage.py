"""How much of a game has been seen, in cells and places.

A cell is the set of frames that are equal after shrinking to 16×16 grey pixels of 8 levels. Go-Explore defines cells
this way (Ecoffet et al., "First return, then explore", Nature 590, 2021); ours are finer, because random play finds all
coarse cells within a thousand steps. Unlike a reward, the number of distinct cells does not depend on a world model.
A place is where the player is, if the game tells it.

Axis letters: N frames, H, W and C=3 of a frame.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genie_ray.base.files import shown
from genie_ray.replay.schema import Episode

SIDE = 16  # pixels of a cell's picture, height and width
LEVEL_BITS = 3  # 8 grey levels

# Variables of a game that give the player's position: Stable-Retro's, of `games/memory.yaml` or CoinRun's.
PLACES = ("x", "y", "screen", "screen_x", "screen_y", "room", "level", "levello", "levelhi", "zone", "act", "stage")
PLACE_SIZE = 16  # pixels that count as one place; in CoinRun, a cell of the level

# A random linear function modulo 2⁶⁴ confuses two pictures with a probability of about 2⁻⁶¹.
_WEIGHTS = np.random.PCG64(0).random_raw(SIDE * SIDE)


def cells(frames_NHWC: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The cell of each frame, as a hash [N]."""
    pictures = np.empty((len(frames_NHWC), SIDE, SIDE), np.uint8)
    for picture, frame in zip(pictures, frames_NHWC, strict=True):
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        cv2.resize(grey, (SIDE, SIDE), dst=picture, interpolation=cv2.INTER_AREA)
    levels = pictures.reshape(len(pictures), -1) >> (8 - LEVEL_BITS)
    return levels.astype(np.uint64) @ _WEIGHTS


def place_of(info: Mapping[str, Any]) -> tuple[int, ...]:
    """The player's position from a game's variables; () if they do not have it.

    Raises:
        ValueError: one of the coordinates is not a number.
    """
    return tuple(_whole(info, name) // (PLACE_SIZE if name in ("x", "y") else 1) for name in PLACES if name in info)


def level_of(info: Mapping[str, Any]) -> int | None:
    """The level that is played, from a game's variables; None if they do not have it. CoinRun's levels are endless.

    Raises:
        ValueError: it is not a number.
    """
    return _whole(info, "level") if "level" in info else None


def _whole(info: Mapping[str, Any], name: str) -> int:
    try:
        return int(info[name])
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} in info is {shown(info[name])}: must be a number") from None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What play has shown."""

    steps: int
    cells: int  # distinct ones
    places: int | None  # distinct ones; None if the game's variables do not tell them
    levels: int | None = None  # the same of these


def seen(episodes: Iterable[Episode], steps: int) -> Seen:
    """What the first `steps` steps of these episodes have shown; they may have fewer."""
    left, found_cells, found_places, found_levels = steps, set[int](), set[tuple[int, ...]](), set[int]()
    for episode in episodes:
        rows = slice(0, left + 1)
        found_cells.update(cells(episode.frames[rows]).tolist())
        found_places.update(place for info in episode.infos[rows] if (place := place_of(info)))
        found_levels.update(level for info in episode.infos[rows] if (level := level_of(info)) is not None)
        left -= min(len(episode.actions), left)
        if not left:
            break
    return Seen(
        steps=steps - left,
        cells=len(found_cells),
        places=len(found_places) or None,
        levels=len(found_levels) or None,
    )


class Distinct:
    """Counts what is new, in play that is added piece by piece."""

    def __init__(self) -> None:
        self._known: set[Hashable] = set()

    def add(self, keys: Iterable[Hashable]) -> list[int]:
        """How many distinct ones there were up to each of these, those added before included; () does not count."""
        counts = []
        for key in keys:
            if key != ():
                self._known.add(key)
            counts.append(len(self._known))
        return counts


def coverage_curve(episodes: Iterable[Episode]) -> NDArray[np.int64]:
    """Distinct cells seen up to each step, over the episodes in turn; [total number of actions]."""
    distinct = Distinct()
    return np.concatenate([np.array(distinct.add(cells(episode.frames).tolist())[1:]) for episode in episodes])
