"""Probing several games at once, each in its own process: Stable-Retro allows one emulator per process."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from genie_ray.base.files import write_atomically
from genie_ray.base.progress import progress_bar
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.games.roms import add_integrations, require_rom, resolve_game
from genie_ray.probing.config import ProbeConfig
from genie_ray.probing.pictures import RESULT, write_index, write_pictures
from genie_ray.probing.play import play_contexts
from genie_ray.probing.propose import Proposal, propose

T = TypeVar("T")


def probe_games(
    games: Sequence[str], out: Path, config: ProbeConfig, *, workers: int
) -> Iterator[tuple[str, list[Proposal]]]:
    """Probes games and yields each with its proposals as soon as it is done, in any order.

    Writes `OUT/<game>/<ACTION>.png`, `.gif` and `probe.json` of each, and `OUT/index.html`.

    Args:
        workers: the number of games played at the same time.

    Raises:
        ValueError: an unknown game, one of procgen's, a missing ROM, or a button that a console lacks.
        RuntimeError: a process died, for example in an emulator crash; what was yielded is complete.
    """
    for game in games:
        if game in PROCGEN_GAMES:
            raise ValueError(f"{game} is procgen's: what acts in it is known, env.action_set={game.lower()}")
    add_integrations(config.integrations)
    probed = play_each(
        games,
        lambda pool, game: pool.submit(probe_game, game, out / game.removesuffix("-v0"), config),
        title="probe games",
        workers=workers,
    )
    try:
        yield from probed
    finally:
        write_index(out)


def play_each(
    games: Sequence[str],
    start: Callable[[ProcessPoolExecutor, str], Future[T]],
    *,
    title: str,
    workers: int,
) -> Iterator[tuple[str, T]]:
    """Works on several games at once, each in its own process; yields each with its result as soon as it is done.

    Args:
        start: submits the work on a game.
        title: of the progress bar.
        workers: the number of games worked on at the same time.

    Raises:
        ValueError: an unknown game, or a missing ROM.
        RuntimeError: a process died.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: must be at least 1")
    games = list(dict.fromkeys(resolve_game(game) for game in games))
    for game in games:
        require_rom(game)
    return _results(games, start, title, workers)


def _results(
    games: list[str], start: Callable[[ProcessPoolExecutor, str], Future[T]], title: str, workers: int
) -> Iterator[tuple[str, T]]:
    missing = set(games)
    spawn = multiprocessing.get_context("spawn")
    with (
        progress_bar(title, len(games)) as bar,
        ProcessPoolExecutor(min(workers, len(games)), mp_context=spawn) as pool,
    ):
        bar.update(0)
        futures = {start(pool, game): game for game in games}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
                missing.remove(futures[future])
                bar.update(len(games) - len(missing))
        except BrokenProcessPool as error:
            raise RuntimeError(f"a process died; unfinished games: {', '.join(sorted(missing))}") from error
        finally:
            pool.shutdown(cancel_futures=True)


def probe_game(game: str, directory: Path, config: ProbeConfig) -> list[Proposal]:
    """Probes one game and writes its pictures and measurements to a directory."""
    contexts = list(play_contexts(game, config))
    proposals = propose(contexts)
    directory.mkdir(parents=True, exist_ok=True)
    write_pictures(directory, game.removesuffix("-v0"), contexts, proposals)
    result = {
        "game": game.removesuffix("-v0"),
        "config": asdict(config),
        "proposals": [{"evidence": proposal.evidence, **asdict(proposal)} for proposal in proposals],
    }
    write_atomically(directory / RESULT, lambda path: path.write_text(json.dumps(result, indent=1)))
    return proposals
