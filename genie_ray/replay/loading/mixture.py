"""Mixtures of replay datasets, each with a weight.

A weight is a dataset's share of the examples, relative to the others': of `data/random` and `data/explore:2`, two
windows in three are explored play, however much there is of either. `order.epoch_order` defines an epoch.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split
    from genie_ray.replay.metadata import DatasetMetadata
    from genie_ray.storage.paths import Location, StoredPath


@dataclass(frozen=True, kw_only=True)
class WeightedData:
    """A replay dataset of a mixture."""

    path: Location  # a directory, or a URI (storage/paths.py)
    weight: float = 1.0
    game: str | None = None  # only its episodes

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight of {self.path} is {self.weight:g}: must be above 0 and finite")


def parse_data(text: str) -> WeightedData:
    """Parses a dataset given on the command line: `DIR`, `DIR:WEIGHT`, `URI` or `URI:WEIGHT`.

    Raises:
        ValueError: a weight that is not above 0.
    """
    weighted = re.fullmatch(r"(.+):([-+]?\d*\.?\d+)", text)
    where, weight = (text, 1.0) if weighted is None else (weighted[1], float(weighted[2]))
    return WeightedData(path=where if "://" in where else Path(where), weight=weight)


def resolved(data: StoredPath | tuple[WeightedData, ...]) -> StoredPath | tuple[WeightedData, ...]:
    """The same datasets with absolute paths."""
    if not isinstance(data, tuple):
        return data.resolve()
    return tuple(replace(part, path=part.path.resolve() if isinstance(part.path, Path) else part.path) for part in data)


class ReplayMix:
    """Replay datasets, opened as one mixture.

    Attributes:
        datasets: at least one.
        shares: of each dataset; they add up to 1.

    Raises:
        ValueError: a dataset is listed twice, or its frames or actions differ from the first's.
    """

    def __init__(self, datasets: Sequence[ReplayDataset], weights: Sequence[float]) -> None:
        self.datasets = tuple(datasets)
        self.shares = tuple(weight / sum(weights) for weight in weights)
        first = self.datasets[0]
        for index, other in enumerate(self.datasets[1:], start=1):
            if (other.root, other.game) in [(dataset.root, dataset.game) for dataset in self.datasets[:index]]:
                raise ValueError(f"dataset {other.root} is mixed with itself: give it a larger weight")
            for what, name in (("frames", "frame_shape"), ("actions", "action_names")):
                ours, theirs = getattr(first.metadata, name), getattr(other.metadata, name)
                if ours != theirs:
                    raise ValueError(
                        f"datasets {first.root} and {other.root} cannot be mixed: their {what} are {ours} and {theirs}"
                    )

    @property
    def metadata(self) -> DatasetMetadata:
        """The first dataset's metadata; all share its frame shape and action names."""
        return self.datasets[0].metadata

    def name(self, split: Split) -> str:
        """The name of a split for messages."""
        return f"split {split!r} of {' and '.join(str(dataset.root) for dataset in self.datasets)}"

    def split(self, name: Split) -> list[list[EpisodeRef]]:
        """The episodes of a split of each dataset.

        Raises:
            ValueError: one has none.
        """
        splits = [dataset.split(name) for dataset in self.datasets]
        for dataset, episodes in zip(self.datasets, splits, strict=True):
            if not episodes:
                raise ValueError(f"split {name!r} of {dataset.root} has no episodes")
        return splits

    def content_hash(self) -> str:
        """A single dataset's content hash; for several, SHA-256 over their hashes and shares."""
        hashes = [dataset.content_hash() for dataset in self.datasets]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256(repr([*zip(hashes, self.shares, strict=True)]).encode()).hexdigest()


def mix_of(replay: ReplayDataset | ReplayMix) -> ReplayMix:
    """The mixture itself, or a mixture of a single dataset."""
    return replay if isinstance(replay, ReplayMix) else ReplayMix([replay], [1.0])


def open_mix(data: StoredPath | Sequence[WeightedData]) -> ReplayMix:
    """Open the dataset or datasets of a training run.

    Raises:
        ValueError: one cannot be opened, or they cannot be mixed.
    """
    from genie_ray.replay.dataset import ReplayDataset

    parts = data if isinstance(data, Sequence) else [WeightedData(path=data)]
    return ReplayMix([ReplayDataset(part.path, game=part.game) for part in parts], [part.weight for part in parts])
