"""Reading a replay dataset: an index of its episodes, built from the Parquet footers alone, and the episodes."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genie_ray.base.errors import one_line
from genie_ray.base.files import shown
from genie_ray.replay.layout import frame_shape_of, large_frame_layout_of
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata, GameCounts
from genie_ray.replay.schema import Episode, frames_of, large_frames_of, table_to_episode
from genie_ray.replay.storage import file_size, open_parquet, read_footer_bytes
from genie_ray.replay.writer import footer_digest, read_metadata, shard_name, shard_paths
from genie_ray.storage.paths import Location, StoredPath, resolve

Split = Literal["train", "validation", "all"]
HELD_OUT_FRACTION = 0.01  # of each game's episodes
FEWEST_HELD_OUT = 3  # of each game, if it has five times as many: the loss on a single episode is too noisy
FOOTERS_AT_ONCE = 16  # an object store answers slowly, but many requests at a time


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeRef:
    """Where an episode is."""

    episode_id: str
    game: str
    path: StoredPath
    row_group: int
    length: int  # actions; the episode has one frame more


class ReplayDataset:
    """The episodes under a directory or URI that `write_shard` and `write_metadata` wrote.

    Opening reads `_dataset.json` and every file's footer, but no frames.

    Args:
        game: only its episodes, as if the dataset held no others.

    Attributes:
        root: the directory, absolute.
        metadata: what `_dataset.json` says.
        episodes: all episodes, sorted by id.

    Raises:
        ValueError: no dataset here, a damaged or foreign file, a duplicate episode, or counts that differ from
            `_dataset.json`. The message names the file. Or it has no episode of the game.
    """

    def __init__(self, root: Location, *, game: str | None = None) -> None:
        self.root, self.game = resolve(root), game
        self.metadata = read_metadata(self.root)
        self.episodes = index_episodes(self.root, self.metadata)
        if not self.episodes:
            raise ValueError(f"dataset {self.root} holds no episodes")
        for name in sorted((self.metadata.files or {}).keys() - set(map(shard_name, shard_paths(self.root)))):
            raise ValueError(f"dataset {self.root} has lost {name}")
        for difference in count_differences(self.episodes, self.metadata):
            raise ValueError(f"dataset {self.root} does not match its {METADATA_FILE}: {difference}")
        if game is not None:
            if game not in self.metadata.counts:
                raise ValueError(f"dataset {self.root} has no play of {game}, but of {', '.join(self.metadata.counts)}")
            self.episodes = [ref for ref in self.episodes if ref.game == game]
            self.metadata = replace(self.metadata, counts={game: self.metadata.counts[game]}, missing={})

    def split(self, name: Split) -> list[EpisodeRef]:
        """The episodes to train on, those held out for validation, or all; sorted by id.

        An episode is held out if `is_held_out` says so. If these are too few, those with the next lowest hashes are
        added: of several episodes of a game at least one is held out, of fifteen at least three, but never all. Pieces
        of one episode (`whole_of`) count as one and stay together.
        """
        if name == "all":
            return list(self.episodes)
        by_game: dict[str, list[EpisodeRef]] = defaultdict(list)
        for ref in self.episodes:
            by_game[ref.game].append(ref)
        held_out: set[str] = set()
        for refs in by_game.values():
            ids = sorted({whole_of(ref.episode_id) for ref in refs}, key=_unit_hash)
            wanted = sum(is_held_out(episode_id) for episode_id in ids)
            fewest = max(1, min(FEWEST_HELD_OUT, len(ids) // 5))
            held_out.update(ids[: min(max(wanted, fewest), len(ids) - 1)])
        return [ref for ref in self.episodes if (whole_of(ref.episode_id) in held_out) == (name == "validation")]

    def read(self, ref: EpisodeRef) -> Episode:
        """The whole episode.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        table = read_row_group(ref.path, ref.row_group)
        try:
            return table_to_episode(table, game=ref.game)
        except ValueError as error:
            raise ValueError(f"damaged file {ref.path}, row group {ref.row_group}: {error}") from error

    def read_frames_and_actions(self, ref: EpisodeRef) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
        """The frames uint8 [T+1, H, W, 3] of an episode and the actions int8 [T+1], the last of them −1.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        table = read_row_group(ref.path, ref.row_group, columns=["frame", "action"])
        return frames_of(table), table["action"].to_numpy()

    def read_pictures(self, ref: EpisodeRef) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The steps of an episode that have a large frame: frames uint8 [M, H, W, 3], large frames uint8 [M, L, L, 3].

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
        digest, files = hashlib.sha256(), {ref.path for ref in self.episodes}
        for path in shard_paths(self.root):
            if self.game is not None and path not in files:
                continue
            digest.update(f"{shard_name(path)} {file_size(path)}\n".encode())
            digest.update(read_footer_bytes(path)[:-8])
        return digest.hexdigest()


def is_held_out(episode_id: str, fraction: float = HELD_OUT_FRACTION) -> bool:
    """Whether an episode is held out for validation, decided by a hash of its id alone."""
    return _unit_hash(whole_of(episode_id)) < fraction


def whole_of(episode_id: str) -> str:
    """What the ids of all pieces of one episode begin with: pieces after the first add "+1", "+2"…"""
    place, slash, number = episode_id.rpartition("/")
    return place + slash + number.partition("+")[0]


def index_episodes(root: Location, metadata: DatasetMetadata | None = None) -> list[EpisodeRef]:
    """The episodes of all complete shards under a directory, finished dataset or not; sorted by id.

    Raises:
        ValueError: a damaged or foreign file, a duplicate episode, or frames that do not match the metadata.
    """
    refs: dict[str, EpisodeRef] = {}
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        for ref in (
            ref for shard in pool.map(partial(index_shard, metadata=metadata), shard_paths(root)) for ref in shard
        ):
            if ref.episode_id in refs:
                raise ValueError(f"episode {ref.episode_id} is in {refs[ref.episode_id].path} and again in {ref.path}")
            refs[ref.episode_id] = ref
    return sorted(refs.values())


def index_shard(path: StoredPath, metadata: DatasetMetadata | None = None) -> list[EpisodeRef]:
    """The episodes of one file, from its footer: one row group each.

    Raises:
        ValueError: the file is damaged or foreign, or its frames do not match the metadata.
    """
    footer = read_footer(path, metadata)
    if metadata is not None:
        for difference in layout_differences(footer, metadata):
            raise ValueError(f"{path}: {difference}")
    game = path.parent.name.removeprefix("game=")
    refs = []
    for index in range(footer.num_row_groups):
        row_group = footer.row_group(index)
        try:
            episode_id = _only_episode(row_group)
        except ValueError as error:
            raise ValueError(f"damaged or foreign file {path}: row group {index} is not one episode") from error
        if not episode_id.startswith(f"{game}/"):
            raise ValueError(f"damaged or foreign file {path}: episode {episode_id} is not of {game}")
        length = row_group.num_rows - 1
        refs.append(EpisodeRef(episode_id=episode_id, game=game, path=path, row_group=index, length=length))
    return refs


def _only_episode(row_group: pq.RowGroupMetaData) -> str:
    """The id shared by all rows of a row group, from its statistics."""
    ids = row_group.column(0).statistics
    if ids is None or not ids.has_min_max or ids.min != ids.max or not ids.min.isprintable():
        raise ValueError("no statistics, or those of several episodes")
    if row_group.num_rows < 2:
        raise ValueError("no action")
    return ids.min


def read_footer(path: StoredPath, metadata: DatasetMetadata | None = None) -> pq.FileMetaData:
    """The footer of a file of a replay dataset.

    Raises:
        ValueError: the file is damaged or foreign, or not one that the metadata lists.
    """
    content = read_footer_bytes(path)
    try:
        if metadata is not None and metadata.files is not None:  # before Parquet, which may abort on a damaged footer
            known = metadata.files.get(shard_name(path))
            if known is None:
                raise ValueError(f"{METADATA_FILE} does not list it")
            if known != footer_digest(content):
                raise ValueError(f"its footer is not the one that {METADATA_FILE} lists")
        footer = pq.read_metadata(pa.BufferReader(content))
        schema = footer.schema.to_arrow_schema()
        frame_shape_of(schema)
        if not schema.metadata.items() <= footer.metadata.items():  # a footer stores it twice
            raise ValueError("its footer contradicts itself")
        return footer
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"damaged or foreign file {path}: {one_line(error)}") from error


def layout_differences(footer: pq.FileMetaData, metadata: DatasetMetadata) -> Iterator[str]:
    """A message for each kind of frame of a file that does not match the metadata."""
    schema = footer.schema.to_arrow_schema()
    shape, large_frames = frame_shape_of(schema), large_frame_layout_of(schema)
    if shape != metadata.frame_shape:
        yield f"frames are {shape}: {METADATA_FILE} says {metadata.frame_shape}"
    if large_frames != metadata.large_frames:
        yield f"large frames are {large_frames}: {METADATA_FILE} says {metadata.large_frames}"


def count_episodes(episodes: Iterable[EpisodeRef]) -> dict[str, GameCounts]:
    """Episodes and actions by game, as in `_dataset.json`."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for ref in episodes:
        lengths[ref.game].append(ref.length)
    return {game: GameCounts(episodes=len(ls), actions=sum(ls)) for game, ls in sorted(lengths.items())}


def count_differences(episodes: Iterable[EpisodeRef], metadata: DatasetMetadata) -> Iterator[str]:
    """A message for each game whose numbers of episodes and actions do not match the metadata."""
    nothing = GameCounts(episodes=0, actions=0)
    counts = count_episodes(episodes)
    for game in sorted(counts.keys() | metadata.counts.keys()):
        found, expected = counts.get(game, nothing), metadata.counts.get(game, nothing)
        if found != expected:
            name = game if game.isprintable() else shown(game)
            yield (
                f"{name} has {found.episodes} episodes with {found.actions} actions, "
                f"expected {expected.episodes} with {expected.actions}"
            )


def read_row_group(path: StoredPath, row_group: int, columns: list[str] | None = None) -> pa.Table:
    """The rows of one episode.

    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        with open_parquet(path) as file:
            return file.read_row_group(row_group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"damaged file {path}, row group {row_group}: {one_line(error)}") from error


def _unit_hash(episode_id: str) -> float:
    """A hash of an episode id, uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(episode_id.encode()).digest()[:6], "big") / 2**48
