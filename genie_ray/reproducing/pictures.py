"""The papers' pictures of a model on a test set: what its tokens are, where it is unsure, what each action does, how
far ahead it predicts and obeys; and of what its explorers do.

Axes: T frames, H W C pixels, h w the grid of a frame's tokens, K codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from genie_ray.base.figures import GIF_FRAME_MS, StripRow, blank_figure, labelled_clip, labelled_strip
from genie_ray.base.files import write_atomically
from genie_ray.base.psnr import psnr
from genie_ray.base.seeding import seeded_generator
from genie_ray.base.session import RayConfig
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.evaluation import score
from genie_ray.evaluating.rollouts import RolloutConfig, play
from genie_ray.evaluating.windows import evenly_spaced, read_batches, window_starts
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.rewards.config import RewardConfig
from world_model.checkpoint import WorldModel, load_as
from world_model.genie import GenieReduxG
from world_model.tokenizer import Tokenizer
from world_model.uncertainty import PREDICTED_FRAMES, PRIME_FRAMES, top_k_mean

FRAMES = 8  # of a strip
STATIC = (0, 0, 0)  # colour of the commonest token of what did not change
COLOURS = matplotlib.colormaps["turbo"]
GIVEN = (1, 2, 4)  # frames, of Fig. 16: 1 and 4 are the paper's
CURVES = {"psnr_mean": "PSNR (dB)", "delta_psnr_mean": "ΔPSNR (dB)"}  # as published: means of per-frame values
EPISODES, CLIP_FRAMES = 3, 60
PAST = PRIME_FRAMES + PREDICTED_FRAMES - 1  # steps from the first given frame to the one that is judged


def draw_tokens(output: Path, checkpoint: Path, test: Path, config: EvaluationConfig) -> None:
    """Fig. 5: tokens in colour, frames with each token but the static one replaced by its nearest or furthest code."""
    tokenizer, dataset = load_as(WorldModel, checkpoint).tokenizer, ReplayDataset(test)
    frames_NTHWC = windows_of(dataset, config)
    with torch.no_grad():
        tokens_NThw = torch.cat([tokenizer.encode(clip_THWC[None]) for clip_THWC in frames_NTHWC])
    found = static_tokens(tokens_NThw, frames_NTHWC, tokenizer.config.patch_size)
    clip_THWC, tokens_Thw = frames_NTHWC[0, :FRAMES], tokens_NThw[0, :FRAMES]
    nearest_K, furthest_K = replacements(tokenizer.distance_vectors().detach())
    nearest_K[found["token"]] = furthest_K[found["token"]] = found["token"]  # paper, Sec. 5
    shown = {
        "frames": clip_THWC.numpy(),
        "tokens": in_colour(tokens_Thw, found["token"], tokenizer),
        "decoded": tokenizer.decode(tokens_Thw[None])[0].numpy(),
        "nearest instead": tokenizer.decode(nearest_K[tokens_Thw][None])[0].numpy(),
        "furthest instead": tokenizer.decode(furthest_K[tokens_Thw][None])[0].numpy(),
    }
    for name in ("decoded", "nearest instead", "furthest instead"):
        error = np.mean(((shown[name].astype(np.float64) - shown["frames"]) / 255) ** 2)
        found[f"psnr, {name}"] = float(psnr(float(error)))
    rows = [StripRow(label=name, frames=frames) for name, frames in shown.items()]
    title = f"black: token {found['token']}, at {found.get('share_of_unchanged', 0):.0%} of the unchanged places"
    _write(output, "tokens.png", labelled_strip(rows, title=title))
    _write(output, "tokens.json", json.dumps(found, indent=1).encode())


def windows_of(dataset: ReplayDataset, config: EvaluationConfig) -> Tensor:
    """The windows of a test set's first game, uint8 [N, T, H, W, C]."""
    game = min(episode.game for episode in dataset.episodes)
    batches = read_batches(dataset, window_starts(dataset, game, config), config)
    return torch.cat([windows.frames_BTHWC for windows in batches])


def static_tokens(tokens_NThw: Tensor, frames_NTHWC: Tensor, patch: int) -> dict[str, Any]:
    """The commonest token where a patch is bit for bit that of the frame before; its share there, and elsewhere.

    Returns:
        `token`; `unchanged`, the share of places that are; `share_of_unchanged` and `share_of_changed`, the token's in
        each, unless there are no such places.
    """
    same_NTHWC = frames_NTHWC[:, 1:] == frames_NTHWC[:, :-1]
    places = rearrange(same_NTHWC, "n t (h p) (w q) c -> n t h w (p q c)", p=patch, q=patch)
    unchanged, tokens = places.all(-1), tokens_NThw[:, 1:]
    token = int((tokens[unchanged] if unchanged.any() else tokens.flatten()).bincount().argmax())
    shares = {"share_of_unchanged": unchanged, "share_of_changed": ~unchanged}
    found = {name: float((tokens[where] == token).float().mean()) for name, where in shares.items() if where.any()}
    return {"token": token, "unchanged": float(unchanged.float().mean()), **found}


def replacements(vectors_KC: Tensor) -> tuple[Tensor, Tensor]:
    """For each code the nearest other one, and the furthest, by the distances that TDCE measures; int64 [K] each."""
    distances_KK = torch.cdist(vectors_KC, vectors_KC)
    furthest_K = distances_KK.argmax(1)
    return distances_KK.fill_diagonal_(torch.inf).argmin(1), furthest_K


def in_colour(tokens_Thw: Tensor, static: int, tokenizer: Tokenizer) -> NDArray[np.uint8]:
    """Tokens as colours, one for each that occurs, enlarged to the frames' size: uint8 [T, H, W, C]."""
    kinds, places = tokens_Thw.unique(return_inverse=True)
    order = np.random.default_rng(0).permutation(len(kinds))  # so that neighbouring numbers look different
    colours = (np.asarray(COLOURS(order / max(1, len(kinds) - 1)))[:, :3] * 255).astype(np.uint8)
    colours[(kinds == static).numpy()] = STATIC
    patch = tokenizer.config.patch_size
    return colours[places.numpy()].repeat(patch, axis=1).repeat(patch, axis=2)


def draw_uncertainty(output: Path, checkpoint: Path, test: Path, config: EvaluationConfig) -> None:
    """Fig. 6: a rollout with the recorded actions, and how unsure the model is of each token."""
    steps, primes = config.predicted_frames, config.prime_frames
    play(output, checkpoint, test, RolloutConfig(prime_frames=primes, steps=steps, precision=config.precision))


def draw_actions(output: Path, checkpoint: Path, test: Path, config: EvaluationConfig) -> None:
    """Figs. 10, 12 and 19: every action, held, from the same frames."""
    model, dataset = load_as(GenieReduxG, checkpoint), ReplayDataset(test)
    game = min(episode.game for episode in dataset.episodes)
    windows = next(read_batches(dataset, window_starts(dataset, game, config)[:1], config))
    primes = config.prime_frames
    rows = [StripRow(label="played", frames=windows.frames_BTHWC[0, primes - 1 :].numpy())]
    for action, name in enumerate(dataset.metadata.action_names):
        actions_BT = windows.actions_BT.clone()
        actions_BT[:, primes - 1 :] = action
        generator = seeded_generator("cpu", config.seed, "actions")
        with torch.no_grad():
            predicted_BTHWC = model.rollout(
                windows.frames_BTHWC[:, :primes], actions_BT, decoding=config.decoding, generator=[generator]
            )
        frames_THWC = torch.cat([windows.frames_BTHWC[0, primes - 1 : primes], predicted_BTHWC[0]])
        rows.append(StripRow(label=name, frames=frames_THWC.numpy()))
    _write(output, "actions.png", labelled_strip(rows, title=f"{game}: each action, held from the first frame on"))


def draw_horizon(output: Path, checkpoint: Path, test: Path, config: EvaluationConfig) -> None:
    """Fig. 16: PSNR and ΔPSNR at each predicted frame, with 1, 2 and 4 given frames."""
    longest = load_as(WorldModel, checkpoint).config.dynamics.max_frames
    asked = {given: replace(config, prime_frames=given, film_strips=0, ceiling=False) for given in GIVEN}
    for one in asked.values():
        one.require_horizon(longest, str(checkpoint))
    rows = {given: score("model", checkpoint, test, one, RayConfig()).scores["all"] for given, one in asked.items()}
    figure = blank_figure(9, 3.6)
    for axes, (key, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for given, row in rows.items():
            values = row["curves"][key]
            axes.plot(range(1, len(values) + 1), values, "o-", markersize=3, label=f"{given} given")
        axes.set(xlabel="predicted frame", ylabel=title)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    found = {str(given): {key: row[key] for key in (*CURVES, "windows", "curves")} for given, row in rows.items()}
    _write(output, "horizon.json", json.dumps(found, indent=1).encode())
    write_atomically(output / "horizon.png", figure.savefig)


def draw_behaviour(output: Path, checkpoint: Path, test: Path, config: EvaluationConfig) -> None:
    """Fig. 13: the longest episodes of an explorer's play, with the uncertainty that it is rewarded for; and a clip."""
    model, dataset = load_as(GenieReduxG, checkpoint), ReplayDataset(test)
    longest = sorted(dataset.episodes, key=lambda episode: (-episode.length, episode.episode_id))[:EPISODES]
    rows, clips = list[StripRow](), dict[str, NDArray[np.uint8]]()
    shown = evenly_spaced(longest[0].length + 1, CLIP_FRAMES)
    for number, episode in enumerate(longest, 1):
        frames_NHWC, actions_N = dataset.read_frames_and_actions(episode)
        steps = evenly_spaced(len(frames_NHWC), FRAMES)
        told = [f"step {step}\n{reward_at(model, frames_NHWC, actions_N, step)}" for step in steps]
        name = f"episode {number}"
        rows.append(StripRow(label=name, frames=frames_NHWC[steps], notes=told))
        clips[f"{name}, {episode.length} steps"] = frames_NHWC[
            np.minimum(shown, episode.length)
        ]  # its end stands still
    title = f"{longest[0].game}: the longest of {len(dataset.episodes)} episodes; below, the reward for the frame"
    _write(output, "behaviour.png", labelled_strip(rows, title=title))
    captions = [f"step {step}" for step in shown]
    _write(output, "behaviour.gif", labelled_clip(clips, captions, frame_ms=GIF_FRAME_MS))


def reward_at(model: GenieReduxG, frames_NHWC: NDArray[np.uint8], actions_N: NDArray[np.integer], step: int) -> str:
    """What an explorer gets for the frame of a step of an episode; a dash in the first steps, which have no past."""
    if step < PAST:
        return "–"
    clip_BTHWC = torch.from_numpy(frames_NHWC[None, step - PAST : step - PAST + PRIME_FRAMES])
    actions_BT = torch.from_numpy(actions_N[None, step - PAST : step].astype(np.int64))
    return f"{float(top_k_mean(model.uncertainty(clip_BTHWC, actions_BT), RewardConfig().top_k_fraction)):.2f}"


def _write(output: Path, name: str, content: bytes) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / name, lambda path: path.write_bytes(content))


DRAWERS: Mapping[str, tuple[Callable[[Path, Path, Path, EvaluationConfig], None], str]] = {
    "tokens": (draw_tokens, "tokens.png"),
    "uncertainty": (draw_uncertainty, "film_strip.png"),
    "actions": (draw_actions, "actions.png"),
    "horizon": (draw_horizon, "horizon.png"),
    "behaviour": (draw_behaviour, "behaviour.png"),
}
"""Kind → how it is drawn, and the file that shows it."""
