"""A rollout to look at: a recorded episode provides the first frames, and the world model continues.

With the recorded actions, the prediction is shown beside the true frames and scored against them, as is the copy
baseline (the last given frame, unchanged). Other actions show whether the model follows them.

Axes: T predicted frames, H W C pixels, h w the grid of a frame's tokens.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from genie_ray.base.figures import StripRow, heat_maps, labelled_clip, labelled_strip
from genie_ray.base.files import write_atomically
from genie_ray.base.precision import Precision
from genie_ray.base.progress import console, progress_bar
from genie_ray.base.psnr import psnr as psnr_of
from genie_ray.envs.world_model import WorldModelEnv, load_world_model
from genie_ray.envs.world_model_games import INTERACTIVE, WorldModelEnvConfig, episodes_of
from genie_ray.evaluating.predictors import infer_actions
from genie_ray.evaluating.upscaling import upscale
from genie_ray.evaluating.windows import evenly_spaced
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.storage.checkpoints import load_as
from genie_ray.storage.paths import Location
from world_model.checkpoint import WorldModel
from world_model.genie import GenieRedux
from world_model.maskgit import DecodingConfig
from world_model.upscaler import Upscaler

GIF_FRAME_MS = 100
STRIP_FRAMES = 9  # of a film strip, besides the given one
SHOWN = (1, 4, 10)  # frames whose scores are printed, besides the last one


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Where a rollout starts, and which actions are taken."""

    game: str | None = None  # None: any of the dataset's
    episode: str | None = None  # its id; None: the first one that is long enough
    start: int = 0  # the episode's step that the first given frame comes from
    prime_frames: int = 2  # given; paper, Sec. 5
    steps: int = 40  # predicted frames
    actions: str = "recorded"  # "recorded", "random", or comma-separated names, repeated in turn
    decoding: DecodingConfig = INTERACTIVE
    precision: Precision = "auto"
    seed: int = 0  # of random actions and sampled tokens

    def __post_init__(self) -> None:
        for name, lowest in (("start", 0), ("prime_frames", 1), ("steps", 1)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least {lowest}")


@dataclass(frozen=True, kw_only=True)
class Played:
    """A rollout's frames, actions and uncertainty."""

    given_HWC: NDArray[np.uint8]  # the last prime frame
    actions: list[str]  # T
    frames_THWC: NDArray[np.uint8]
    truth_THWC: NDArray[np.uint8] | None  # None unless the recorded actions were taken
    uncertainty_Thw: NDArray[np.float32]  # of each token before any token of its frame is known, in [0, 1]
    frames_per_second: float  # measured from action to frame


def play(
    output: Path, checkpoint: Location, data: Location, config: RolloutConfig, *, upscaler: Location | None = None
) -> dict[str, Any]:
    """Plays in a world model and writes `rollout.gif`, `film_strip.png` and `rollout.json` to `output`.

    Args:
        checkpoint: of a GenieReduxG or GenieRedux.
        data: replay dataset.
        upscaler: checkpoint that enlarges all pictures, the true ones too. Scores are those of the original frames.

    Returns:
        The contents of rollout.json.

    Raises:
        ValueError: a checkpoint or dataset that does not fit, an unknown game, episode or action, or no episode that
            is long enough.
    """
    model, dataset = load_world_model(checkpoint), ReplayDataset(data)
    enlarge = None if upscaler is None else _load_upscaler(upscaler, model)
    episode = _find_episode(dataset, config)
    played = _play(model, dataset, episode, config)
    document = {
        "world_model": str(checkpoint),
        "dataset": dataset.content_hash(),
        "config": asdict(config) | {"episode": episode.episode_id, "game": episode.game},
        "actions": played.actions,
        "frames_per_second": played.frames_per_second,
        "mean_uncertainty": played.uncertainty_Thw.mean(axis=(1, 2)).tolist(),
        "scores": _scores(played),
    }
    strip, clip = _pictures(played, document, enlarge)
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / "film_strip.png", lambda path: path.write_bytes(strip))
    write_atomically(output / "rollout.gif", lambda path: path.write_bytes(clip))
    write_atomically(output / "rollout.json", lambda path: path.write_text(json.dumps(document, indent=1)))
    return document


def print_rollout(document: dict[str, Any]) -> None:
    """Prints the scores of some of a rollout's frames, and the speed."""
    config, found = document["config"], document["scores"]
    table = Table(title=f"{config['episode']} from step {config['start']}", title_justify="left")
    for column in ("frame", "PSNR (dB)", "PSNR of copying (dB)", "mean uncertainty"):
        table.add_column(column, justify="right")
    for frame in sorted({*(frame for frame in SHOWN if frame < config["steps"]), config["steps"]}):
        values = [f"{found[key][frame - 1]:.2f}" for key in ("psnr", "psnr_copy")] if found else ["–", "–"]
        table.add_row(str(frame), *values, f"{document['mean_uncertainty'][frame - 1]:.3f}")
    if found:
        table.add_row("all", f"{found['psnr_pooled']:.2f}", f"{found['psnr_copy_pooled']:.2f}", "")
    console.print(table)
    console.print(f"{document['frames_per_second']:.1f} frames/s", soft_wrap=True)


def _load_upscaler(checkpoint: Location, model: WorldModel) -> Upscaler:
    device = next(model.parameters()).device
    upscaler = load_as(Upscaler, checkpoint, device)
    if upscaler.config.frame_size != model.tokenizer.config.frame_size:
        raise ValueError(
            f"upscaler {checkpoint} takes frames of {upscaler.config.frame_size} pixels, "
            f"the world model makes {model.tokenizer.config.frame_size}"
        )
    return upscaler


def _find_episode(dataset: ReplayDataset, config: RolloutConfig) -> EpisodeRef:
    """The requested episode, or the first one that has all the frames needed."""
    episodes = episodes_of(dataset, config.game)
    if config.episode is not None:
        episodes = [ref for ref in episodes if ref.episode_id == config.episode]
        if not episodes:
            of_game = f" of {config.game}" if config.game else ""
            raise ValueError(f"{dataset.root} has no episode {config.episode!r}{of_game}")
    needed = config.start + config.prime_frames + (config.steps if config.actions == "recorded" else 0)
    for ref in episodes:
        if ref.length + 1 >= needed:
            return ref
    what = f"episode {config.episode}" if config.episode else "the longest episode"
    raise ValueError(f"the rollout needs {needed} recorded frames: {what} has {max(r.length for r in episodes) + 1}")


def _play(model: WorldModel, dataset: ReplayDataset, episode: EpisodeRef, config: RolloutConfig) -> Played:
    env = WorldModelEnv(
        model,
        dataset,
        WorldModelEnvConfig(
            prime_frames=config.prime_frames,
            game=episode.game,
            max_episode_steps=config.steps,
            decoding=config.decoding,
            precision=config.precision,
        ),
    )
    frames, actions = dataset.read_frames_and_actions(episode)
    known = config.start + config.prime_frames  # frames up to the last given one
    names = _action_names(model, dataset)
    window = slice(config.start, known + config.steps)
    taken = _actions(model, frames[window], actions[window], config, names)
    options: dict[str, NDArray[Any]] = {"prime_frames": frames[config.start : known]}
    if not isinstance(model, GenieRedux):  # which infers its own actions
        options["prime_actions"] = actions[config.start : known - 1]
    env.reset(seed=config.seed, options=options)
    predicted, uncertainty, seconds = [], [], 0.0
    with progress_bar("rollout", config.steps) as bar:
        for action in taken:
            began = time.perf_counter()
            frame, *_, info = env.step(action)
            seconds += time.perf_counter() - began
            predicted.append(frame)
            uncertainty.append(info["uncertainty"])
            bar.update(len(predicted), frames_per_second=len(predicted) / seconds)
    return Played(
        given_HWC=frames[known - 1],
        actions=[names[action] for action in taken],
        frames_THWC=np.stack(predicted),
        truth_THWC=frames[known : known + config.steps] if config.actions == "recorded" else None,
        uncertainty_Thw=np.stack(uncertainty),
        frames_per_second=len(predicted) / seconds,
    )


def _action_names(model: WorldModel, dataset: ReplayDataset) -> list[str]:
    """The dataset's action names; latent actions are named by their number."""
    if isinstance(model, GenieRedux):
        return [str(action) for action in range(model.num_actions)]
    return list(dataset.metadata.action_names)


def _actions(
    model: WorldModel,
    frames_THWC: NDArray[np.uint8],
    actions_T: NDArray[np.int8],
    config: RolloutConfig,
    names: list[str],
) -> NDArray[np.int64]:
    """The actions of all steps; the recorded frames and actions start at the first given frame."""
    if config.actions == "random":
        return np.random.default_rng(config.seed).integers(len(names), size=config.steps)
    if config.actions == "recorded":
        recorded_T = actions_T.astype(np.int64)
        if isinstance(model, GenieRedux):
            frames = torch.tensor(frames_THWC, device=next(model.parameters()).device)
            recorded_T = infer_actions(model, frames[None]).actions_BT[0].numpy()
        return recorded_T[config.prime_frames - 1 :][: config.steps]
    wanted = config.actions.split(",")
    for name in wanted:
        if name not in names:
            raise ValueError(f"unknown action {name!r}: allowed are recorded, random, or some of {', '.join(names)}")
    return np.resize([names.index(name) for name in wanted], config.steps)


def _scores(played: Played) -> dict[str, Any] | None:
    """PSNR in dB of each frame and of the pooled error, for the model and for copying; None without truth."""
    if played.truth_THWC is None:
        return None
    found: dict[str, Any] = {}
    for key, frames in (("psnr", played.frames_THWC), ("psnr_copy", played.given_HWC[None])):
        error_T = (((frames.astype(np.float64) - played.truth_THWC) / 255) ** 2).mean(axis=(1, 2, 3))
        found[key] = psnr_of(torch.from_numpy(error_T)).tolist()
        found[f"{key}_pooled"] = float(psnr_of(error_T.mean()))
    return found


def _pictures(played: Played, document: dict[str, Any], upscaler: Upscaler | None) -> tuple[bytes, bytes]:
    """The film strip (PNG) and the clip (GIF)."""
    config, found, unsure = document["config"], document["scores"], document["mean_uncertainty"]
    given = played.given_HWC[None]
    sources = {"truth": played.truth_THWC, "world model": played.frames_THWC}
    shown = {label: np.concatenate([given, frames]) for label, frames in sources.items() if frames is not None}
    if upscaler is not None:
        shown = {label: upscale(upscaler, torch.tensor(frames)).numpy() for label, frames in shown.items()}
    top = max(0.1, math.ceil(10 * played.uncertainty_Thw.max()) / 10)
    nowhere = np.full_like(played.uncertainty_Thw[:1], np.nan)
    heat = heat_maps(np.concatenate([nowhere, played.uncertainty_Thw]), top, shown["world model"].shape[1])

    picked = [0, *(1 + index for index in evenly_spaced(config["steps"], STRIP_FRAMES))]
    heads = ["given", *(f"frame {index}\n{played.actions[index - 1]}" for index in picked[1:])]
    notes: dict[str, list[str]] = {}
    if found:
        pairs = [(found["psnr"][index - 1], found["psnr_copy"][index - 1]) for index in picked[1:]]
        notes["world model"] = ["PSNR\n(copying)", *(f"{ours:.1f} dB\n({copy:.1f})" for ours, copy in pairs)]
    rows = [StripRow(label=label, frames=frames[picked], notes=notes.get(label, ())) for label, frames in shown.items()]
    means = ["mean", *(f"{unsure[index - 1]:.2f}" for index in picked[1:])]
    rows.append(StripRow(label="uncertainty", frames=heat[picked], notes=means))
    kind = config["actions"] if config["actions"] in ("recorded", "random") else "chosen"
    title = f"{config['episode']} from step {config['start']}, {kind} actions"
    strip = labelled_strip(rows, title=title, heads=heads, heat=("token entropy", top))

    captions = ["given"]
    for index, action in enumerate(played.actions):
        psnr = f" · PSNR {found['psnr'][index]:.1f} dB (copying {found['psnr_copy'][index]:.1f})" if found else ""
        captions.append(f"frame {index + 1} of {config['steps']} · {action}{psnr}")
    panels = shown | {f"uncertainty, 0 to {top:.1f}": heat}
    return strip, labelled_clip(panels, captions, frame_ms=GIF_FRAME_MS)
