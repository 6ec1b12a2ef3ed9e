"""Batches of pictures, to train an upscaler on: single frames, each with the large frame of the same step.

Axis letters: B pictures of a batch, M pictures of an episode, H, W and C of a frame; a large frame has the same axes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack

from torch import Tensor

from genie_ray.replay.dataset import ReplayDataset, Split
from genie_ray.replay.layout import LargeFrameLayout
from genie_ray.replay.loading.batches import Examples
from genie_ray.replay.loading.mixture import ReplayMix, mix_of
from genie_ray.replay.loading.order import Supply
from genie_ray.replay.loading.shuffled import LoaderOptions, ShuffledLoader, ordered_batches


class PictureBatch(TypedDict):
    """Pictures to train on; both are uint8."""

    frames_BHWC: Tensor
    large_BHWC: Tensor


class GamePictureBatch(PictureBatch):
    """Pictures with the game of each."""

    games: list[str]


class PictureLoader(ShuffledLoader[PictureBatch]):
    """An endless iterator over shuffled batches of pictures (of 64 and 256 pixels: 0.2 MB each).

    Args:
        replay: the replay dataset, or several mixed.
        split: which of its episodes.
        options: as for `ShuffledLoader`, whose examples are pictures.

    Raises:
        ValueError: an invalid argument, a dataset without large frames, or a split with too few for one batch on
            every rank.
    """

    def __init__(
        self,
        replay: ReplayDataset | ReplayMix,
        *,
        split: Split,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(_pictures(mix_of(replay), split), **options)


def iter_pictures(
    replay: ReplayDataset | ReplayMix, split: Split, *, batch_size: int, limit: int | None = None
) -> Iterator[GamePictureBatch]:
    """One pass over the pictures of a split, in order: by episode, then by step.

    Args:
        replay, split, batch_size: as for `PictureLoader`; the last batch may be smaller.
        limit: at most this many pictures, spread evenly over the split (of mixed datasets, each has its share of the
            limit); None for all.

    Raises:
        ValueError: an invalid argument, a dataset without large frames, or a split without episodes.
    """
    for games, batch in ordered_batches(_pictures(mix_of(replay), split), batch_size=batch_size, limit=limit):
        yield {**batch, "games": games}


def require_large_frames(dataset: ReplayDataset) -> LargeFrameLayout:
    """The layout of a dataset's large frames; ValueError if it has none."""
    layout = dataset.metadata.large_frames
    if layout is None:
        raise ValueError(
            f"dataset {dataset.root} has no large frames: collect with collection.large_frame_every above 0"
        )
    return layout


def _pictures(mix: ReplayMix, split: Split) -> Examples[PictureBatch]:
    layouts = [require_large_frames(dataset) for dataset in mix.datasets]
    if len({layout.size for layout in layouts}) > 1:
        sizes = ", ".join(
            f"{dataset.root} {layout.size}" for dataset, layout in zip(mix.datasets, layouts, strict=True)
        )
        raise ValueError(f"large frames of mixed datasets differ in size ({sizes}): must be equal")
    splits = mix.split(split)

    def batch(frames_B1HWC: Tensor, large_B1HWC: Tensor) -> PictureBatch:
        return {"frames_BHWC": frames_B1HWC.squeeze(1), "large_BHWC": large_B1HWC.squeeze(1)}

    counts = [[layout.count(ref.length) for ref in refs] for layout, refs in zip(layouts, splits, strict=True)]
    return Examples(
        name="large frames",
        source=mix.name(split),
        episodes=[ref for refs in splits for ref in refs],
        supply=Supply.of(counts, mix.shares, span=1, stride=1),
        read=mix.datasets[0].read_pictures,  # a reference locates an episode in any dataset
        batch=batch,
    )
