"""Between replay datasets and other formats: the published layout (published.py) both ways, plain clips (clips.py) in.

JPEG, GIF and most video codecs are lossy; a replay dataset and its exports as PNG or mp4 are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from genie_ray.base.progress import notices, progress_bar
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.exchange import clips, published
from genie_ray.replay.exchange.recordings import ImportConfig, Recording
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.replay.writer import write_metadata, write_shard
from genie_ray.storage.paths import Location, StoredPath, resolve

EPISODES_PER_SHARD = 20


def import_recordings(source: Path, output: Location, config: ImportConfig) -> StoredPath:
    """Converts recordings in another format to a replay dataset. If interrupted, the same call starts over.

    Args:
        source: the published layout (a game's directory, or one that holds several), or plain clips.

    Raises:
        ValueError: nothing to import, `output` already holds a dataset, or a file is damaged or does not fit; the
            message names it.
    """
    directory = resolve(output)
    if (directory / METADATA_FILE).is_file():
        raise ValueError(f"{directory} already holds a dataset: give another directory")
    recordings, names, read, layout = _find(source, config)
    by_game: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        by_game[recording.game].append(recording)
    frame_shape: tuple[int, int, int] | None = None
    done = 0
    with progress_bar("import", len(recordings), to=notices) as bar:

        def episode_of(recording: Recording) -> Episode:
            nonlocal frame_shape, done
            episode = read(recording)
            height, width, channels = episode.frames.shape[1:]
            frame_shape = frame_shape or (height, width, channels)
            if frame_shape != (height, width, channels):
                raise ValueError(
                    f"frames of {recording.path} are {width}×{height} pixels, others {frame_shape[1]}×{frame_shape[0]}:"
                    " give a frame size for all"
                )
            done += 1
            bar.update(done)
            return episode

        for game, of_game in by_game.items():
            for first in range(0, len(of_game), EPISODES_PER_SHARD):
                chunk = of_game[first : first + EPISODES_PER_SHARD]
                write_shard(directory, game, f"shard-{first // EPISODES_PER_SHARD:05d}", map(episode_of, chunk))
    assert frame_shape is not None
    metadata = DatasetMetadata(
        action_names=names,
        frame_shape=frame_shape,
        policy=config.policy,
        config={"imported_from": str(source), "layout": layout},
        counts=count_episodes(index_episodes(directory)),
    )
    write_metadata(directory, metadata)
    return directory


def export_published(dataset: ReplayDataset, output: Path, pictures: published.Pictures) -> list[Path]:
    """Writes a replay dataset in the published layout, one directory per game; returns the directories.

    The released code reads `jpg` (lossy) as is, `png` with `img_ext="png"`, and `mp4` as a video. The layout has no
    place for large frames; they are left out.

    Raises:
        ValueError: `output` is not empty, a file is damaged, the released code would mistake the seven actions for
            CoinRun's, or PyAV is needed but not installed.
    """
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: give another directory")
    names, shape = dataset.metadata.action_names, dataset.metadata.frame_shape
    by_game: dict[str, list[EpisodeRef]] = defaultdict(list)
    for ref in dataset.episodes:
        by_game[ref.game].append(ref)
    done, directories = 0, []
    with progress_bar("export", len(dataset.episodes), to=notices) as bar:
        for game, refs in by_game.items():
            directory = published.game_directory(output, game)
            published.write_info(directory, game, names, shape, [ref.length for ref in refs], pictures)
            for session, ref in enumerate(refs):
                published.write_session(directory, session, dataset.read(ref), len(names), pictures)
                done += 1
                bar.update(done)
            directories.append(directory)
    return directories


def _find(
    source: Path, config: ImportConfig
) -> tuple[list[Recording], tuple[str, ...], Callable[[Recording], Episode], str]:
    """The recordings under a path, their action names, a function that reads one, and the name of their layout."""
    games = published.find_games(source)
    if games:
        recordings = [recording for game in games for recording in published.find_sessions(game, config)]
        names = {config.action_names or published.action_names(game) for game in games}
        if len(names) > 1:
            raise ValueError(f"games under {source} have different actions ({names}): import them one by one")
        (known,) = names
        if recordings:
            return recordings, known, lambda found: published.read_session(found, len(known), config), "GenieRedux"
    recordings = clips.find_clips(source, config)
    if not recordings:
        raise ValueError(
            f"nothing to import in {source}: neither {published.INFO_FILE} of the published layout, nor clips "
            f"({', '.join(clips.SUFFIXES)})"
        )
    known = config.action_names or clips.action_names(recordings)
    return recordings, known, lambda found: clips.read_clip(found, known, config), "clips"
