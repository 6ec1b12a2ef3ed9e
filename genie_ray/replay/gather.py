"""One replay dataset out of several. On the same disk nothing is copied: its files are hard links to theirs.

A dataset that still grows can so be read as it is now. Shards are never changed once they are written, only replaced.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from genie_ray.replay import writer
from genie_ray.replay.dataset import count_episodes, index_episodes
from genie_ray.storage.paths import StoredPath
from genie_ray.storage.whole import copy_file


def gather(output: StoredPath, sources: Sequence[StoredPath], *, policy: str) -> StoredPath:
    """Makes a dataset with the shards of all sources and returns its directory; files are copied if links are refused.

    Args:
        output: directory; what an interrupted call left there is completed.
        sources: datasets of the same actions and frame size, without an episode in common.
        policy: who played, for the metadata.

    Raises:
        ValueError: the sources differ in actions or frames, or share an episode.
    """
    first, *others = [writer.read_metadata(source) for source in sources]
    for source, other in zip(sources[1:], others, strict=True):
        for name in ("action_names", "frame_shape"):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"{source} has {name} {getattr(other, name)}: must be {getattr(first, name)}, as in {sources[0]}"
                )
    for number, source in enumerate(sources):
        for path in writer.shard_paths(source):
            prefix = f"{number}-" if len(sources) > 1 else ""
            copy = output / path.parent.name / f"{prefix}{path.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not copy.exists():
                _link(path, copy)
    metadata = dataclasses.replace(
        first, policy=policy, policy_checkpoint=None, config={}, counts=count_episodes(index_episodes(output))
    )
    writer.write_metadata(output, metadata)
    return output


def _link(path: StoredPath, copy: StoredPath) -> None:
    if isinstance(path, Path) and isinstance(copy, Path):
        try:
            os.link(path, copy)
            return
        except OSError:  # another file system, or one without links
            pass
    copy_file(path, copy)
