"""Progress of a collection: an overall bar and one for each game being played; in a log file, lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from genie_ray.base.progress import LOG_SECONDS, console, publish
from genie_ray.collecting.shards import Shard, Unit


class GameBars:
    """What is played, how fast (environment steps per second) and how long it will take, overall and per game.

    Args:
        title: of the bar over all games.
        unit: what is counted.
        wanted: units to play, by game.
        there: units played before, by game.
    """

    def __init__(self, title: str, unit: Unit, wanted: Mapping[str, int], there: Mapping[str, int]) -> None:
        self._title, self._unit, self._wanted, self._there = title, unit, wanted, there
        self._complete: Counter[str] = Counter()  # units of shards completed since the start, by game
        self._steps: Counter[str] = Counter()  # of these shards
        self._in_hand: dict[Shard, tuple[int, int]] = {}  # units and steps of shards being played
        self._start = self._logged = time.monotonic()
        self._began: dict[str, float] = {}  # by game, when play began
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task(title, total=sum(wanted.values()), completed=sum(there.values()), figures="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> GameBars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, shard: Shard) -> None:
        """A worker starts a shard."""
        self._began.setdefault(shard.game, time.monotonic())
        self.advance(shard, 0, 0)

    def advance(self, shard: Shard, played: int, steps: int) -> None:
        """This many units and steps of a shard are played."""
        self._in_hand[shard] = (min(played, shard.count), steps)
        self._show(shard.game)

    def finish(self, shard: Shard, steps: int) -> None:
        """A shard is complete."""
        self._in_hand.pop(shard, None)
        self._complete[shard.game] += shard.count
        self._steps[shard.game] += steps
        self._show(shard.game)
        if self._done([shard.game]) == self._wanted[shard.game]:
            console.print(f"{shard.game}: {self._line([shard.game], self._began[shard.game])}", soft_wrap=True)

    def abandon(self, shard: Shard) -> None:
        """What was played of a shard is lost."""
        self._in_hand.pop(shard, None)
        self._show(shard.game)

    def _show(self, game: str) -> None:
        now = time.monotonic()
        playing = {shard.game for shard in self._in_hand}
        share = self._done(self._wanted) / max(1, sum(self._wanted.values()))
        publish(self._title, {"progress": share, "collected_steps_per_second": self._rate(self._wanted, self._start)})
        if console.is_terminal:
            if game not in self._tasks:
                self._tasks[game] = self._bars.add_task(f"  {game}", total=self._wanted[game], figures="")
            task, figures = self._tasks[game], self._figures([game], self._began[game])
            self._bars.update(task, completed=self._done([game]), figures=figures, visible=game in playing)
            figures = self._figures(self._wanted, self._start)
            self._bars.update(self._all, completed=self._done(self._wanted), figures=figures)
        elif now - self._logged >= LOG_SECONDS:
            self._logged = now
            games = ", ".join(f"{name} {self._done([name]):,}" for name in sorted(playing))
            console.print(f"{self._title}: {self._line(self._wanted, self._start)} · {games}", soft_wrap=True)

    def _done(self, games: Collection[str]) -> int:
        played = sum(units for shard, (units, _) in self._in_hand.items() if shard.game in games)
        return played + sum(self._there[game] + self._complete[game] for game in games)

    def _line(self, games: Collection[str], since: float) -> str:
        wanted = sum(self._wanted[game] for game in games)
        return f"{self._done(games):,} of {wanted:,} {self._unit}, {self._figures(games, since)}"

    def _figures(self, games: Collection[str], since: float) -> str:
        """Rate and time left, based on what was played since then."""
        seconds = max(time.monotonic() - since, 1e-3)
        done = self._done(games)
        played = done - sum(self._there[game] for game in games)
        left = sum(self._wanted[game] for game in games) - done
        rate = f"{self._rate(games, since):,.0f} steps/s"
        return f"{rate}, {_duration(seconds * left / played)} left" if left and played else rate

    def _rate(self, games: Collection[str], since: float) -> float:
        steps = sum(steps for shard, (_, steps) in self._in_hand.items() if shard.game in games)
        steps += sum(self._steps[game] for game in games)
        return steps / max(time.monotonic() - since, 1e-3)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
