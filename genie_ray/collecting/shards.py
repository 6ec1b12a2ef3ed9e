"""The work of a collection, divided into shards: a number of steps, or of whole episodes, of one game.

If steps are requested, a shard's last episode is cut short; if episodes are, none is. A shard depends only on (policy,
game, seed, position), so shards can be played anywhere, in any order, and again after a crash, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["steps", "episodes"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of work: `count` steps or episodes of one game."""

    game: str
    number: int
    first: int  # steps or episodes of the game in earlier shards
    count: int
    unit: Unit

    @property
    def name(self) -> str:
        """The file's name, without suffix."""
        return f"shard-{self.number:05d}"


def plan_shards(games: Sequence[str], per_game: int, per_shard: int, unit: Unit = "steps") -> list[Shard]:
    """All shards of a collection, alternating between games."""
    return [
        Shard(
            game=game,
            number=first // per_shard,
            first=first,
            count=min(per_shard, per_game - first),
            unit=unit,
        )
        for first in range(0, per_game, per_shard)
        for game in games
    ]


def spans(shards: Sequence[Shard]) -> tuple[tuple[int, int], ...]:
    """The ranges [first, end) of a game's steps or episodes that its shards cover; adjacent ranges are merged."""
    joined: list[tuple[int, int]] = []
    for shard in sorted(shards, key=lambda shard: shard.first):
        if joined and joined[-1][1] == shard.first:
            joined[-1] = (joined[-1][0], shard.first + shard.count)
        else:
            joined.append((shard.first, shard.first + shard.count))
    return tuple(joined)
