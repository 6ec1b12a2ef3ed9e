"""The order of an epoch's examples, without a list of them all.

An example is a run of consecutive rows of an episode. An episode's examples are divided among visits, each spread
evenly over the episode; an epoch is a random order of visits. Only visits are stored, and the example at a position is
looked up. A visit takes 40 bytes and reads about as many rows as its episode has.

Axis letters: E episodes, V visits, N examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Supply:
    """The available examples: `span` consecutive rows of an episode, `stride` rows apart within a pass."""

    rows: Integers  # [E], of each episode; at least `span`
    span: int
    stride: int
    datasets: Sequence[Integers]  # the indices of each dataset's episodes
    shares: Sequence[float]  # each dataset's share of the examples; they add up to 1

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], shares: Sequence[float], span: int, stride: int) -> Supply:
        """From the rows of each dataset's episodes."""
        ends = np.cumsum([0, *map(len, rows)])
        datasets = [np.arange(start, end) for start, end in pairwise(ends)]
        return cls(rows=np.concatenate(rows), span=span, stride=stride, datasets=datasets, shares=shares)

    @property
    def positions(self) -> Integers:
        """The number of possible first rows of an example in each episode [E]."""
        return self.rows - self.span + 1

    @property
    def fewest(self) -> int:
        """The least number of examples in a pass over all episodes."""
        return int(np.maximum(1, self.positions // self.stride).sum())

    def weighted(self, weights: Sequence[float]) -> Supply:
        """The same examples, with a weight for each episode: 2 brings its examples twice as often as 1.

        A dataset's share stays. Its episodes of one weight are passed over together, so there should be few weights.

        Raises:
            ValueError: a weight is not above 0, or their number is not that of the episodes.
        """
        weights_E = np.asarray(weights, float)
        if len(weights_E) != len(self.rows) or not (weights_E > 0).all():
            raise ValueError(f"weights are {weights_E}: must be {len(self.rows)} numbers above 0")
        groups, shares = [], []
        for episodes, share in zip(self.datasets, self.shares, strict=True):
            mass_E = weights_E * self.positions
            for weight in np.unique(weights_E[episodes]):
                groups.append(episodes[weights_E[episodes] == weight])
                shares.append(float(share * mass_E[groups[-1]].sum() / mass_E[episodes].sum()))
        return replace(self, datasets=groups, shares=shares)

    def apportion(self, examples: int) -> Integers:
        """Divides this number of examples among the datasets by share, to within one."""
        return np.diff(np.rint(examples * np.cumsum([0.0, *self.shares])).astype(np.int64))


class Visits:
    """A sequence of visits to episodes, each with examples at rows first, first + step, first + 2·step, …"""

    def __init__(self, episode: Integers, first: Integers, step: Integers, count: Integers) -> None:
        self.episode, self.first, self.step, self.count = episode, first, step, count  # [V] each
        self.ends = np.cumsum(count)  # in examples

    def __len__(self) -> int:
        """The number of examples."""
        return int(self.ends[-1])

    def at(self, positions: Integers) -> Integers:
        """The examples [N, 2] at some positions [N]: index of the episode, first row."""
        visit = np.searchsorted(self.ends, positions, side="right")
        place = positions - (self.ends[visit] - self.count[visit])
        return np.stack([self.episode[visit], self.first[visit] + self.step[visit] * place], axis=1)

    def take(self, chosen: Integers) -> Visits:
        """Some of the visits, in the order given."""
        return Visits(self.episode[chosen], self.first[chosen], self.step[chosen], self.count[chosen])

    def cut(self, examples: int) -> Visits:
        """The visits cut to this many examples."""
        last = int(np.searchsorted(self.ends, examples))
        visits = self.take(np.arange(last + 1))
        return Visits(visits.episode, visits.first, visits.step, np.diff(np.minimum(visits.ends, examples), prepend=0))


def join(parts: Sequence[Visits]) -> Visits:
    """Sequences of visits, concatenated."""
    return Visits(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("episode", "first", "step", "count")))


def in_order(supply: Supply) -> Visits:
    """All examples, starting at row 0: by episode, then by first row."""
    count = -(-supply.positions // supply.stride)
    return Visits(np.arange(len(count)), np.zeros_like(count), np.full_like(count, supply.stride), count)


def shuffled_pass(supply: Supply, episodes: Integers, rng: np.random.Generator) -> Visits:
    """Every example of some episodes once, in a random order of visits.

    The first example begins anywhere in the first `stride` rows. An episode has as many visits as possible without
    reading more rows than its examples hold: about span / stride, or one if the stride is not below the span.
    """
    positions, rows = supply.positions[episodes], supply.rows[episodes]
    begin = rng.integers(np.minimum(supply.stride, positions))
    examples = -(-(positions - begin) // supply.stride)
    parts = np.maximum(1, examples * supply.span // rows)  # visits of each episode
    which = np.repeat(np.arange(len(episodes)), parts)
    part = np.arange(len(which)) - np.repeat(np.cumsum(parts) - parts, parts)
    visits = Visits(
        episode=episodes[which],
        first=begin[which] + supply.stride * part,
        step=supply.stride * parts[which],
        count=-(-(examples[which] - part) // parts[which]),
    )
    return visits.take(rng.permutation(len(which)))


def epoch_order(supply: Supply, seed: int, epoch: int) -> Visits:
    """An epoch. With a single dataset it holds every example once.

    With several it has as many examples as one pass over each, divided by share: each dataset is passed over as often
    as needed, and a random part of its last pass is used. The shares also hold, to within a visit, at any point in the
    order.
    """
    rng = np.random.default_rng((seed, epoch))
    passes = [shuffled_pass(supply, episodes, rng) for episodes in supply.datasets]
    parts = []
    for episodes, first, examples in zip(supply.datasets, passes, supply.apportion(sum(map(len, passes))), strict=True):
        if not examples:
            continue
        repeated = [first]
        while sum(map(len, repeated)) < examples:
            repeated.append(shuffled_pass(supply, episodes, rng))
        parts.append(join(repeated).cut(int(examples)))
    progress = np.concatenate([(part.ends - part.count / 2) / len(part) for part in parts])
    return join(parts).take(np.argsort(progress, kind="stable"))
