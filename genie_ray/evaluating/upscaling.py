"""Evaluating an upscaler: MSE and PSNR against bicubic interpolation on large frames, and enlarged film strips.

Protocol (paper, supplement): up to 50,000 pictures not used in training. Frames are scored as shown, in uint8.
Axes: N pictures, B batch, T frames, H W C pixels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from genie_ray.base.errors import cause_of
from genie_ray.base.files import write_atomically
from genie_ray.base.psnr import psnr
from genie_ray.base.resources import Role, require_room
from genie_ray.base.session import RayConfig
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.predictors import is_reference
from genie_ray.evaluating.windows import evenly_spaced
from genie_ray.replay.dataset import ReplayDataset, Split
from genie_ray.replay.loading.pictures import iter_pictures
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import Location, StoredPath, resolve
from genie_ray.storage.whole import local_copy
from genie_ray.training.tasks import require_upscaler_fit
from world_model.layers.patches import to_uint8
from world_model.upscaler import Upscaler, interpolate

SCORES_FILE, PICTURES_FILE, STRIPS_FILE = "upscaling.json", "upscaled_pictures.npz", "upscaled_strips.npz"
BICUBIC, UPSCALER = "bicubic", "upscaler"
FRAMES_SHOWN = 4  # of each film strip: a page has no room for more large frames side by side


def evaluate_upscaler(
    upscaler: StoredPath,
    dataset: Location,
    output: StoredPath,
    config: EvaluationConfig,
    ray_config: RayConfig,
    *,
    split: Split,
) -> dict[str, Any]:
    """Scores an upscaler in a Ray task (with a GPU, if the config says so) and enlarges the film strips in `output`.

    Writes `upscaling.json` (MSE of pixels in [0, 1] and PSNR in dB, per game and over all), `upscaled_pictures.npz`
    (examples: `frames`, `true` and one array for each method, uint8 [N, H, W, C]) and, if an evaluation of world models
    has written film strips, `upscaled_strips.npz` (see `upscale_strips`) to `output`.

    Args:
        upscaler: its checkpoint.
        split: the episodes to score on: all of a test dataset, or those held out from training on this dataset.

    Returns:
        The contents of upscaling.json.

    Raises:
        ValueError: a dataset without large frames, or a checkpoint that does not fit it.
    """
    import ray

    require_upscaler_fit(ReplayDataset(dataset), checkpoints.read_config(Upscaler, upscaler))
    gpus = int(ray_config.use_gpu)
    require_room("evaluating the upscaler", [Role(name="evaluation tasks", gpus=gpus)], ray_config)
    output.mkdir(parents=True, exist_ok=True)
    task = ray.remote(_evaluate).options(num_gpus=gpus)
    try:
        return ray.get(task.remote(upscaler.resolve(), resolve(dataset), output.resolve(), config, ray_config, split))
    except Exception as error:
        raise cause_of(error) from error


def upscale_run(run: StoredPath, upscaler: StoredPath) -> None:
    """Enlarges some frames of a run's film strips with any upscaler, for its report.

    Raises:
        ValueError: the run has no film strips yet or has its own upscaler, or the checkpoint is not an upscaler's.
    """
    directory = run / "evaluation"
    if not (directory / "film_strips.npz").exists():
        raise ValueError(f"{directory / 'film_strips.npz'} is missing: {run} has no evaluation of world models")
    if (directory / SCORES_FILE).exists():
        raise ValueError(f"{run} has its own upscaler, whose scores are in its report: leave out {upscaler}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    upscale_strips(checkpoints.load_as(Upscaler, upscaler, device), directory)


def upscale_strips(upscaler: Upscaler, directory: StoredPath) -> None:
    """Enlarges some frames of the film strips that an evaluation wrote to `directory`.

    Writes `upscaled_strips.npz`: `<label>/<game>` and `truth/<game>`, each uint8 [windows, T, H, W, C], and `frames`,
    the numbers (1, 2, …) of these predicted frames.
    """
    shown: dict[str, Any] = {"frames": np.zeros(0, np.int64)}  # if no film strips were kept
    given = json.loads((directory / "evaluation.json").read_text())["protocol"]["prime_frames"]
    with local_copy(directory / "film_strips.npz") as file, np.load(file) as strips:
        for key in strips.files:
            label, _, _ = key.rpartition("/")
            if is_reference(label):
                continue
            frames_NTHWC = strips[key][:, given if label == "truth" else 0 :]
            numbers = evenly_spaced(frames_NTHWC.shape[1], FRAMES_SHOWN)
            shown["frames"] = np.array(numbers) + 1
            shown[key] = upscale(upscaler, torch.from_numpy(frames_NTHWC[:, numbers])).numpy()
    write_atomically(directory / STRIPS_FILE, lambda path: np.savez_compressed(path, **shown))


def _evaluate(
    upscaler: StoredPath,
    path: StoredPath,
    output: StoredPath,
    config: EvaluationConfig,
    ray_config: RayConfig,
    split: Split,
) -> dict[str, Any]:
    """Runs in a Ray task."""
    torch.set_num_threads(ray_config.torch_threads(1))
    model = checkpoints.load_as(Upscaler, upscaler, "cuda" if torch.cuda.is_available() else "cpu")
    dataset = ReplayDataset(path)
    document = {
        "upscaler": checkpoints.read_description(upscaler)["weights_sha256"],
        "dataset": dataset.content_hash(),
        "split": split,
        "games": score(model, dataset, split, config),
    }
    pictures = _examples(model, dataset, split, config.film_strips)
    write_atomically(output / PICTURES_FILE, lambda file: np.savez_compressed(file, **pictures))
    if (output / "film_strips.npz").exists():
        upscale_strips(model, output)
    write_atomically(output / SCORES_FILE, lambda file: file.write_text(json.dumps(document, indent=1)))
    return document


def score(model: Upscaler, dataset: ReplayDataset, split: Split, config: EvaluationConfig) -> dict[str, Any]:
    """MSE and PSNR of both methods, per game and over all: game → {"pictures", method → {"mse", "psnr"}}."""
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: {BICUBIC: [], UPSCALER: []})
    for batch in iter_pictures(dataset, split, batch_size=config.batch_size, limit=config.pictures):
        for method, large_BHWC in _enlarge(model, batch["frames_BHWC"]).items():
            error_B = (large_BHWC.double() - batch["large_BHWC"].double()).square().mean(dim=(1, 2, 3)) / 255**2
            for game, error in zip(batch["games"], error_B.tolist(), strict=True):
                errors[game][method].append(error)
                errors["all"][method].append(error)
    rows: dict[str, Any] = {}
    for game, methods in errors.items():
        rows[game] = {"pictures": len(methods[UPSCALER])}
        for method, values in methods.items():
            mse = float(np.mean(values))
            rows[game][method] = {"mse": mse, "psnr": float(psnr(mse))}
    return rows


def _examples(model: Upscaler, dataset: ReplayDataset, split: Split, count: int) -> dict[str, Any]:
    """A few pictures with each method, spread over the split."""
    kept: dict[str, list[Tensor]] = defaultdict(list)
    for batch in iter_pictures(dataset, split, batch_size=1, limit=count):
        kept["frames"].append(batch["frames_BHWC"])
        kept["true"].append(batch["large_BHWC"])
        for method, large_BHWC in _enlarge(model, batch["frames_BHWC"]).items():
            kept[method].append(large_BHWC)
    return {key: torch.cat(frames).numpy() for key, frames in kept.items()}


def _enlarge(model: Upscaler, frames_BHWC: Tensor) -> dict[str, Tensor]:
    """uint8 large frames by method, on the CPU."""
    bicubic_BCHW = interpolate(frames_BHWC, model.config.scale)
    return {
        BICUBIC: to_uint8(rearrange(bicubic_BCHW, "b c h w -> b h w c")),
        UPSCALER: upscale(model, frames_BHWC),
    }


def upscale(model: Upscaler, frames: Tensor) -> Tensor:
    """uint8 frames [..., H, W, C] on the CPU → uint8 large frames on the CPU, whatever device the model is on."""
    return model.upscale(frames.to(next(model.parameters()).device)).cpu()
