"""Which pairs of clips a study shows, and in which order. Everything drawn depends on the seed alone.

Quality study: the recorded play beside a world model's prediction under the same actions, each model on the same
windows; and pairs of twice the recording, a hidden reference that sets the scale.

Action study: two clips that begin alike, and the name of an action. A pair of one model has the named action held in
one clip and another one in the other clip; where the emulator repeats the recording, the game makes such pairs, too,
which set the scale. A pair of two models has the named action in both.

Source: the user studies of GenieRedux-G (Savov et al., CVPR 2025, arXiv 2504.02515, supplement E).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genie_ray.base.seeding import seed_of
from genie_ray.envs.world_model_games import episodes_of
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.windows import Start, evenly_spaced, window_starts
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.studies.config import TRUTH, Kind, StudyConfig
from world_model.maskgit import DecodingConfig

NOTHING = "NOOP"


@dataclass(frozen=True)
class Clip:
    """What makes a clip: the game or a model, from a recorded window, by the recorded actions or a held one."""

    source: str  # TRUTH, or a model's label
    window: Start
    action: str | None = None  # held after the given frames; None: the recorded ones


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A pair of clips to judge."""

    name: str  # tells nothing about what it is
    left: Clip
    right: Clip
    action: str | None = None  # that a rater is asked about


def plan(kind: Kind, dataset: ReplayDataset, labels: Sequence[str], config: StudyConfig) -> list[Sample]:
    """The samples in the order in which they are kept; each rater sees them in an order of their own.

    Args:
        labels: of the models.

    Raises:
        ValueError: samples cannot be shared out evenly, too few recorded windows, an unknown action, or one alone.
    """
    # Of the action study, a source (a, b) is a pair of models; (a, a) is a model under two actions.
    sources = [(TRUTH, label) for label in labels]
    if kind == "action":
        sources = [(label, label) for label in labels] + list(itertools.combinations(labels, 2))
    each, left_over = divmod(config.samples - config.truth, len(sources))
    if left_over or not each:
        names = ", ".join(" against ".join(dict.fromkeys(pair)) for pair in sources)
        raise ValueError(
            f"samples − truth is {config.samples - config.truth}: must be a multiple of {len(sources)}, a share each "
            f"for {names}"
        )
    rng = np.random.default_rng(seed_of(config.seed, "study", kind))
    windows = _windows(dataset, max(each, config.truth), config)
    pairs = [(pair, windows[index]) for pair in sources for index in evenly_spaced(len(windows), each)]
    pairs += [((TRUTH, TRUTH), windows[index]) for index in evenly_spaced(len(windows), config.truth)]
    named = _named(dataset, windows, config, rng) if kind == "action" else {}
    samples = []
    for index, ((one, other), window) in enumerate(pairs):
        action, another = named.get(window, (None, None))
        clips = [Clip(one, window, action), Clip(other, window, another if one == other else action)]
        if rng.random() < 0.5:
            clips.reverse()
        name = f"{seed_of(config.seed, 'sample', index):014x}"[:8]
        samples.append(Sample(name=name, left=clips[0], right=clips[1], action=action))
    return [samples[index] for index in rng.permutation(len(samples))]


def evaluation_config(config: StudyConfig) -> EvaluationConfig:
    """The same windows and decoding, for the evaluation's predictors."""
    return EvaluationConfig(
        prime_frames=config.prime_frames,
        predicted_frames=config.frames,
        stride=config.stride or config.frames,
        delta_psnr_frame=1,
        decoding=DecodingConfig(
            steps=config.decoding_steps, temperature=config.temperature, mode="autoregressive", frames_per_step=1
        ),
        precision=config.precision,
        seed=config.seed,
    )


def _windows(dataset: ReplayDataset, wanted: int, config: StudyConfig) -> list[Start]:
    """So many windows, as many of each game as there are, spread evenly over its episodes."""
    games = sorted({ref.game for name in config.games or (None,) for ref in episodes_of(dataset, name)})
    found: list[Start] = []
    for index, game in enumerate(games):
        share = wanted // len(games) + (index < wanted % len(games))
        starts = window_starts(dataset, game, evaluation_config(config))
        if len(starts) < share:
            raise ValueError(
                f"{dataset.root} has {len(starts)} windows of {config.window} frames of {game}, "
                f"{config.stride or config.frames} frames apart: {share} are needed; give fewer samples or a smaller "
                "stride"
            )
        found += [starts[place] for place in evenly_spaced(len(starts), share)]
    return found


def _named(
    dataset: ReplayDataset, windows: Sequence[Start], config: StudyConfig, rng: np.random.Generator
) -> dict[Start, tuple[str, str]]:
    """For each window the action that is named, each as often, and another one that shares no button with it."""
    known = dataset.metadata.action_names
    for name in config.actions:
        if name not in known:
            raise ValueError(f"unknown action {name!r}: allowed are {', '.join(known)}")
    names = config.actions or tuple(name for name in known if name != NOTHING)
    if len(names) < 2:
        raise ValueError(f"the study has the actions {', '.join(names) or 'none'}: must be at least two")
    order = [names[index % len(names)] for index in range(len(windows))]
    drawn = {}
    for window, place in zip(windows, rng.permutation(len(windows)), strict=True):
        action = order[place]
        others = [name for name in names if name != action]
        apart = [name for name in others if not set(name.split("+")) & set(action.split("+"))]
        drawn[window] = (action, str(rng.choice(apart or others)))
    return drawn
