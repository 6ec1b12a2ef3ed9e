"""Reading a replay dataset: an index of its episodes, from the Parquet footers alone, and the episodes themselves."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genie_ray.replay.schema import (
    Episode,
    frame_shape_of,
    frames_of,
    large_frame_layout_of,
    large_frames_of,
    table_to_episode,
)
from genie_ray.replay.writer import METADATA_FILE, TEMPORARY_PREFIX, DatasetMetadata, GameCounts, read_metadata

Split = Literal["train", "validation", "all"]
HELD_OUT_FRACTION = 0.01  # of each game's episodes
FEWEST_HELD_OUT = 3  # of each game, if it has five times as many: a loss over one episode is that episode's luck


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeRef:
    """Where an episode is."""

    episode_id: str
    game: str
    path: Path
    row_group: int
    length: int  # actions; the episode has one frame more


class ReplayDataset:
    """The episodes under a directory that `write_shard` and `write_metadata` filled.

    Opening reads `_dataset.json` and every file's footer, no frames.

    Attributes:
        root: the directory, absolute.
        metadata: what `_dataset.json` says.
        episodes: all episodes, sorted by id.

    Raises:
        ValueError: no dataset here, a damaged or foreign file, an episode that is there twice, or other counts than
            `_dataset.json` has. The message names the file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.metadata = read_metadata(self.root)
        self.episodes = index_episodes(self.root)
        if not self.episodes:
            raise ValueError(f"dataset {self.root} holds no episodes")
        for path in {ref.path: None for ref in self.episodes}:
            schema = pq.read_schema(path)
            shape, large_frames = frame_shape_of(schema), large_frame_layout_of(schema)
            if shape != self.metadata.frame_shape:
                raise ValueError(f"frames of {path} are {shape}: {METADATA_FILE} says {self.metadata.frame_shape}")
            if large_frames != self.metadata.large_frames:
                raise ValueError(
                    f"large frames of {path} are {large_frames}: {METADATA_FILE} says {self.metadata.large_frames}"
                )
        for difference in count_differences(self.episodes, self.metadata):
            raise ValueError(f"dataset {self.root} is not what its {METADATA_FILE} says: {difference}")

    def split(self, name: Split) -> list[EpisodeRef]:
        """The episodes to train on, those held out for validation, or all; sorted by id.

        An episode is held out if `is_held_out` says so. Where these are few, those with the lowest hashes join them: a
        game with several episodes has at least one held out, one with fifteen at least three; never all of them.
        """
        if name == "all":
            return list(self.episodes)
        by_game: dict[str, list[EpisodeRef]] = defaultdict(list)
        for ref in self.episodes:
            by_game[ref.game].append(ref)
        held_out: set[str] = set()
        for refs in by_game.values():
            ids = sorted((ref.episode_id for ref in refs), key=_unit_hash)
            wanted = sum(is_held_out(episode_id) for episode_id in ids)
            fewest = max(1, min(FEWEST_HELD_OUT, len(ids) // 5))
            held_out.update(ids[: min(max(wanted, fewest), len(ids) - 1)])
        return [ref for ref in self.episodes if (ref.episode_id in held_out) == (name == "validation")]

    def read(self, ref: EpisodeRef) -> Episode:
        """The whole episode.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        return table_to_episode(read_row_group(ref.path, ref.row_group), game=ref.game)

    def read_frames_and_actions(self, ref: EpisodeRef) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """The frames uint8 [T+1, H, W, 3] of an episode and the actions int8 [T+1], the last of them −1.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        table = read_row_group(ref.path, ref.row_group, columns=["frame", "action"])
        return frames_of(table), table["action"].to_numpy()

    def read_pictures(self, ref: EpisodeRef) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The steps of an episode that have a large frame: frames uint8 [M, H, W, 3], large ones uint8 [M, L, L, 3].

        The dataset must have large frames.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        table = read_row_group(ref.path, ref.row_group, columns=["frame", "large_frame"])
        try:
            large_frames = large_frames_of(table)
        except ValueError as error:
            raise ValueError(f"damaged file {ref.path}, row group {ref.row_group}: {error}") from error
        assert large_frames is not None
        return frames_of(table)[:: large_frames.every], large_frames.frames

    def content_hash(self) -> str:
        """SHA-256 over the name, size and footer of every file. A footer carries a digest of its file's rows."""
        digest = hashlib.sha256()
        for path in shard_paths(self.root):
            digest.update(f"{path.relative_to(self.root).as_posix()} {path.stat().st_size}\n".encode())
            digest.update(_footer(path))
        return digest.hexdigest()


def is_held_out(episode_id: str, fraction: float = HELD_OUT_FRACTION) -> bool:
    """Whether an episode belongs to validation, decided by a hash of its id alone."""
    return _unit_hash(episode_id) < fraction


def shard_paths(root: Path) -> list[Path]:
    """The complete shards under a directory, sorted."""
    return sorted(path for path in root.glob("game=*/*.parquet") if not path.name.startswith(TEMPORARY_PREFIX))


def index_episodes(root: str | os.PathLike[str]) -> list[EpisodeRef]:
    """The episodes of all complete shards under a directory, finished dataset or not; sorted by id.

    Raises:
        ValueError: a damaged or foreign file, or an episode that is there twice.
    """
    refs: dict[str, EpisodeRef] = {}
    for path in shard_paths(Path(root)):
        for ref in index_shard(path):
            if ref.episode_id in refs:
                raise ValueError(f"episode {ref.episode_id} is in {refs[ref.episode_id].path} and again in {path}")
            refs[ref.episode_id] = ref
    return sorted(refs.values())


def index_shard(path: Path) -> list[EpisodeRef]:
    """The episodes of one file, from its footer: one row group each.

    Raises:
        ValueError: the file is damaged or foreign.
    """
    try:
        footer = pq.read_metadata(path)
        frame_shape_of(footer.schema.to_arrow_schema())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"damaged or foreign file {path}: {error}") from error
    game = path.parent.name.removeprefix("game=")
    refs = []
    for index in range(footer.num_row_groups):
        row_group = footer.row_group(index)
        ids = row_group.column(0).statistics
        if ids is None or ids.min != ids.max:
            raise ValueError(f"foreign file {path}: row group {index} is not one episode")
        length = row_group.num_rows - 1
        refs.append(EpisodeRef(episode_id=ids.min, game=game, path=path, row_group=index, length=length))
    return refs


def count_episodes(episodes: Iterable[EpisodeRef]) -> dict[str, GameCounts]:
    """Episodes and actions by game, as `_dataset.json` has them."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for ref in episodes:
        lengths[ref.game].append(ref.length)
    return {game: GameCounts(episodes=len(ls), actions=sum(ls)) for game, ls in sorted(lengths.items())}


def count_differences(episodes: Iterable[EpisodeRef], metadata: DatasetMetadata) -> Iterator[str]:
    """One message for each game of which there are not as many episodes and actions as the metadata says."""
    nothing = GameCounts(episodes=0, actions=0)
    counts = count_episodes(episodes)
    for game in sorted(counts.keys() | metadata.counts.keys()):
        found, expected = counts.get(game, nothing), metadata.counts.get(game, nothing)
        if found != expected:
            yield (
                f"{game} has {found.episodes} episodes with {found.actions} actions, "
                f"expected {expected.episodes} with {expected.actions}"
            )


def read_row_group(path: Path, row_group: int, columns: list[str] | None = None) -> pa.Table:
    """The rows of one episode.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            return file.read_row_group(row_group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"damaged file {path}, row group {row_group}: {error}") from error


def _unit_hash(episode_id: str) -> float:
    """A hash of an episode id, uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(episode_id.encode()).digest()[:6], "big") / 2**48


def _footer(path: Path) -> bytes:
    """The footer of a Parquet file: it ends with the footer's length, 4 bytes little-endian, and `PAR1`."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, os.SEEK_END)
        return file.read(length)
