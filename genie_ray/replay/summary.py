"""Statistics of a replay dataset by game and policy, from the footers and four narrow columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from genie_ray.base.errors import one_line
from genie_ray.base.progress import console, notices, progress_bar
from genie_ray.base.session import usable_cpus
from genie_ray.replay.coverage import place_of
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.replay.schema import infos_of, policy_of
from genie_ray.replay.storage import file_size, open_parquet
from genie_ray.storage.paths import StoredPath

COLUMNS = ["action", "reward_env", "terminated", "info"]


@dataclass(frozen=True, kw_only=True)
class EpisodeFigures:
    """The statistics of one episode."""

    game: str
    policy: str
    actions: NDArray[np.int64]  # how often each was taken
    game_return: float  # sum of the game's own rewards
    rewarded_steps: int  # those with a reward other than 0
    terminated: bool  # the game ended
    places: frozenset[tuple[int, ...]]  # of the player, where the game tells them
    frame_bytes: int  # of the frame column, compressed


def summarize(dataset: ReplayDataset) -> dict[str, Any]:
    """Counts, lengths, actions, rewards and sizes of a dataset, as plain JSON; `groups` are by game and policy.

    Frames are not read, so time and memory do not depend on their size.

    Raises:
        ValueError: a damaged file; the message names it.
    """
    by_file: dict[StoredPath, list[EpisodeRef]] = defaultdict(list)
    for ref in dataset.episodes:
        by_file[ref.path].append(ref)
    groups: dict[tuple[str, str], list[EpisodeFigures]] = defaultdict(list)
    names = dataset.metadata.action_names
    with ThreadPoolExecutor(usable_cpus()) as pool, progress_bar("info", len(by_file), to=notices) as bar:
        figures = pool.map(lambda refs: _figures_of_file(refs, len(names)), by_file.values())
        for done, episodes in enumerate(figures, start=1):
            for episode in episodes:
                groups[episode.game, episode.policy].append(episode)
            bar.update(done)
    frames = sum(ref.length + 1 for ref in dataset.episodes)
    metadata = asdict(dataset.metadata)
    del metadata["files"]
    return {
        "dataset": str(dataset.root),
        "content": dataset.content_hash(),
        "files": len(by_file),
        "bytes": sum(map(file_size, [*by_file, dataset.root / METADATA_FILE])),
        "episodes": len(dataset.episodes),
        "frames": frames,
        "frame_bytes": sum(episode.frame_bytes for group in groups.values() for episode in group) / frames,
        "groups": [_group(*key, groups[key], names) for key in sorted(groups)],
        "metadata": metadata,
    }


def print_summary(document: Mapping[str, Any]) -> None:
    """Prints the result of `summarize` as tables."""
    metadata = document["metadata"]
    height, width, _ = metadata["frame_shape"]
    size = f"{document['bytes'] / 1e6:,.1f} MB in {document['files']:,} files"
    lines = {
        "dataset": document["dataset"],
        "frames": f"{document['frames']:,} of {width}×{height} pixels in {document['episodes']:,} episodes",
        "size": f"{size}, {document['frame_bytes']:.0f} bytes a frame",
        "policy checkpoint": metadata["policy_checkpoint"],
        "config": ", ".join(f"{key} {value}" for key, value in metadata["config"].items()),
    }
    if metadata["large_frames"]:
        lines["large frames"] = "{size}×{size} pixels, one every {every} steps".format(**metadata["large_frames"])
    for label, line in lines.items():
        if line:
            console.print(f"{label + ':':18} {line}", soft_wrap=True, markup=False)

    counts = _table("episodes", "steps", "length\nmin–med–max", "bytes/\nframe")
    results = _table("score\nmean (range)", "rewarded\nsteps", "game\nover", "places")
    actions = _table(*metadata["action_names"])
    for group in document["groups"]:
        who, steps = (group["game"], group["policy"]), group["steps"]
        lengths, returns = group["lengths"], group["returns"]
        counts.add_row(
            *who,
            f"{group['episodes']:,}",
            f"{steps:,}",
            f"{lengths['min']}–{lengths['median']:g}–{lengths['max']}",
            f"{group['frame_bytes']:.0f}",
        )
        results.add_row(
            *who,
            f"{returns['mean']:,.1f} ({returns['min']:,g}–{returns['max']:,g})",
            f"{group['rewarded_steps'] / steps:.1%}",
            f"{group['terminated']} of {group['episodes']}",
            f"{group['places']:,}" if group["places"] else "–",
        )
        actions.add_row(*who, *(f"{count / steps:.1%}" for count in group["actions"].values()))
    for table in (counts, results, actions):
        console.print(table)


def _table(*columns: str) -> Table:
    """An empty table of games and policies."""
    table = Table("game", "policy", box=box.SIMPLE_HEAD, padding=(0, 0), collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _figures_of_file(refs: Sequence[EpisodeRef], action_count: int) -> list[EpisodeFigures]:
    """The statistics of all episodes of one file, which is opened once."""
    path = refs[0].path
    try:
        with open_parquet(path) as file:
            return [
                _figures(
                    ref,
                    file.read_row_group(ref.row_group, columns=COLUMNS, use_threads=False),
                    file.metadata.row_group(ref.row_group).column(file.schema_arrow.names.index("frame")),
                    action_count,
                )
                for ref in refs
            ]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"damaged file {path}: {one_line(error)}") from error


def _figures(ref: EpisodeRef, table: pa.Table, frame_chunk: Any, action_count: int) -> EpisodeFigures:
    rewards, actions = table["reward_env"].to_numpy()[:-1], table["action"].to_numpy()[:-1]
    if actions.min() < 0 or actions.max() >= action_count:
        raise ValueError(f"actions of {ref.episode_id} are not all from 0 to {action_count - 1}")
    return EpisodeFigures(
        game=ref.game,
        policy=policy_of(ref.episode_id),
        actions=np.bincount(actions, minlength=action_count),
        game_return=float(np.nansum(rewards)),
        rewarded_steps=int(np.count_nonzero(np.nan_to_num(rewards))),
        terminated=table["terminated"][-1].as_py(),
        places=frozenset(place for info in infos_of(table) if (place := place_of(info))),
        frame_bytes=frame_chunk.total_compressed_size,
    )


def _group(game: str, policy: str, episodes: Sequence[EpisodeFigures], names: Sequence[str]) -> dict[str, Any]:
    actions = np.sum([episode.actions for episode in episodes], axis=0)
    lengths = [int(episode.actions.sum()) for episode in episodes]
    frames = sum(lengths) + len(episodes)
    return {
        "game": game,
        "policy": policy,
        "episodes": len(episodes),
        "steps": sum(lengths),
        "lengths": _spread(lengths),
        "terminated": sum(episode.terminated for episode in episodes),
        "actions": dict(zip(names, actions.tolist(), strict=True)),
        "returns": _spread([episode.game_return for episode in episodes]),
        "places": len(frozenset[tuple[int, ...]]().union(*(episode.places for episode in episodes))),
        "rewarded_steps": sum(episode.rewarded_steps for episode in episodes),
        "frame_bytes": sum(episode.frame_bytes for episode in episodes) / frames,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "min": min(values),
        "median": float(np.median(values)),
        "mean": float(np.mean(values)),
        "max": max(values),
    }
