"""The work of a collection, cut into shards: so many steps, or so many whole episodes, of one game.

Where steps are asked for, the shard's last episode is cut short; where episodes are, none is. A shard depends on
nothing but (policy, game, seed, its place), so shards are played anywhere, in any order, and again after a crash, and
always come out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["steps", "episodes"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A piece of work: that many steps or episodes of one game."""

    game: str
    number: int
    first: int  # steps or episodes of the game in the shards before
    count: int
    unit: Unit

    @property
    def name(self) -> str:
        """The file's name, without suffix."""
        return f"shard-{self.number:05d}"


def plan_shards(games: Sequence[str], per_game: int, per_shard: int, unit: Unit = "steps") -> list[Shard]:
    """All shards of a collection, the games taking turns."""
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
    """Where a game's shards are, as (first, behind last) of its steps or episodes; neighbours are joined."""
    joined: list[tuple[int, int]] = []
    for shard in sorted(shards, key=lambda shard: shard.first):
        if joined and joined[-1][1] == shard.first:
            joined[-1] = (joined[-1][0], shard.first + shard.count)
        else:
            joined.append((shard.first, shard.first + shard.count))
    return tuple(joined)
