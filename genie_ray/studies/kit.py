"""Making a study: `kit/`, static files that people answer in a browser, and `key.json`, which tells what they saw.

A sample's two clips stand side by side in one PNG, a frame below the other, so that no pixel is lost, no file name
tells which clip is what, and both clips are always at the same frame.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import jinja2
import numpy as np

from genie_ray.base.files import parse_json_object, write_atomically
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage.paths import Location, StoredPath
from genie_ray.studies.clips import load_models, make_clips
from genie_ray.studies.config import ANSWERS, TRUTH, Kind, StudyConfig
from genie_ray.studies.plan import Clip, Sample, plan

KIT, KEY = "kit", "key.json"
PAGE, CLIPS = "index.html", "clips"


def make(
    output: Path, kind: Kind, models: Mapping[str, StoredPath], data: Location, config: StudyConfig
) -> dict[str, Any]:
    """Makes a study in a directory.

    Args:
        models: label → checkpoint.
        data: replay dataset, whose episodes the clips start from.

    Returns:
        The key.

    Raises:
        ValueError: there is a study already; or models, dataset and settings do not fit.
    """
    if (output / KEY).exists():
        raise ValueError(f"{output} has a study already, whose key its answers need: give another directory")
    if TRUTH in models:
        raise ValueError(f"a model is labelled {TRUTH!r}, which is the game itself: give another label")
    dataset = ReplayDataset(data)
    samples = plan(kind, dataset, list(models), config)
    clips = make_clips(samples, dataset, load_models(kind, models, dataset, config), config)
    key: dict[str, Any] = {
        "kind": kind,
        "models": {label: str(path) for label, path in models.items()},
        "dataset": dataset.content_hash(),
        "config": asdict(config),
        "samples": {sample.name: _told(sample) for sample in samples},
    }
    key = seal(key)
    _write_kit(output, key, samples, clips, config)
    write_atomically(output / KEY, lambda path: path.write_text(json.dumps(key, indent=1)))
    return key


def read_key(output: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        ValueError: there is none, or it is not as it was written.
    """
    if not (output / KEY).is_file():
        raise ValueError(f"{output} has no {KEY}: give the directory that `genie-ray study make` wrote")
    try:
        key = parse_json_object((output / KEY).read_bytes())
    except ValueError as error:
        raise ValueError(f"{output / KEY} is {error}") from error
    if key != seal(key):
        raise ValueError(f"{output / KEY} is damaged: it was changed after it was written")
    return key


def seal(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key with the study's name: its kind, and a hash of all that the key says."""
    rest = {name: value for name, value in key.items() if name != "study"}
    digest = hashlib.sha256(json.dumps(rest).encode()).hexdigest()
    return rest | {"study": f"{rest.get('kind')}-{digest[:12]}"}


def _told(sample: Sample) -> dict[str, Any]:
    """A sample's part of the key."""

    def side(clip: Clip) -> dict[str, Any]:
        return {"source": clip.source, "action": clip.action}

    episode, start = sample.left.window
    where = {"game": episode.game, "episode": episode.episode_id, "start": start}
    return where | {"action": sample.action, "left": side(sample.left), "right": side(sample.right)}


def _write_kit(
    output: Path, key: dict[str, Any], samples: list[Sample], clips: Mapping[Clip, Any], config: StudyConfig
) -> None:
    begun = output / f".{KIT}"  # a kit that is interrupted is never there
    for old in (begun, output / KIT):
        shutil.rmtree(old, ignore_errors=True)
    (begun / CLIPS).mkdir(parents=True)
    for sample in samples:
        both = np.concatenate([clips[sample.left], clips[sample.right]], axis=2)  # T H W C
        imageio.imwrite(begun / CLIPS / f"{sample.name}.png", both.reshape(-1, *both.shape[2:]))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("genie_ray.studies", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    study = {
        "study": key["study"],
        "kind": key["kind"],
        "answers": list(ANSWERS[key["kind"]].items()),
        "frames": config.window,
        "fps": config.fps,
        "clips": CLIPS,
        "samples": [{"name": sample.name, "action": sample.action} for sample in samples],
    }
    page = environment.get_template("study.html.jinja").render(study=study)
    (begun / PAGE).write_text(page)
    begun.rename(output / KIT)
