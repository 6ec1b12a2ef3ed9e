"""A page to play on without Python: a world model's ONNX graphs, run by onnxruntime-web in the browser.

A folder of static files: `index.html`; `page.json`, its actions and starts; `starts.bin`, the starts' frames; what
`checkpoint onnx` writes; and `onnxruntime/`. It has to be served, by any host of static files: browsers load no
WebAssembly from `file:` addresses.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from genie_ray.base.files import shortened
from genie_ray.envs.world_model_games import episodes_of
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.sharing.onnx_export import export_onnx
from genie_ray.storage.paths import Location
from genie_ray.web.pages import page
from genie_ray.web.session import PRIMES
from world_model import checkpoint
from world_model.genie import GenieReduxG

RUNTIME = "onnxruntime-web@1.30.0"  # MIT
RUNTIME_SHA512 = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""Of npm's package: what is published is what was tested."""
RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
CARD = "model.txt"  # the model's card, as any host shows it


def export_page(
    directory: Path,
    output: Path,
    data: Location,
    *,
    game: str | None = None,
    starts: int,
    runtime: Path | None = None,
) -> dict[str, Any]:
    """Writes a checkpoint's page to a new directory; returns what its `player.json` says.

    Args:
        directory: checkpoint of a GenieRedux-G.
        data: replay dataset whose frames play starts from; the page publishes those that it takes.
        game: of its episodes; None: any.
        starts: how many to choose from, spread evenly over the episodes.
        runtime: folder of onnxruntime-web's files; None: npm fetches them.

    Raises:
        ValueError: model and dataset do not fit, onnxruntime-web cannot be had, or as `export_onnx`.
    """
    if output.exists():
        raise ValueError(f"{output} is there already: give a new directory")
    config = checkpoint.read_config(GenieReduxG, directory)
    dataset, size = ReplayDataset(data), config.tokenizer.frame_size
    dataset.metadata.require_fit(frame_size=size, num_actions=config.dynamics.num_actions)
    places = _spread(dataset, game, starts)
    begun = output.with_name(f".{output.name}.page")
    shutil.rmtree(begun, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory() as fetched:
            files = _checked(runtime) if runtime else fetch_runtime(Path(fetched))
            document = export_onnx(directory, begun)
            (begun / "onnxruntime").mkdir()
            for file in files:
                shutil.copy(file, begun / "onnxruntime" / file.name)
        named, frames = [], []
        for ref, last in places:
            recorded = dataset.read(ref)
            frames.append(recorded.frames[last + 1 - PRIMES : last + 1])
            actions = [int(action) for action in recorded.actions[last + 1 - PRIMES : last]]
            named.append({"name": f"{ref.episode_id}, frame {last}", "actions": actions})
        (begun / "starts.bin").write_bytes(np.stack(frames).tobytes())
        card = directory / checkpoint.CARD_FILE
        if card.is_file():
            shutil.copy(card, begun / CARD)
        about = {
            "title": f"GenieRay: {', '.join(sorted({ref.game for ref, _ in places}))}",
            "actions": list(dataset.metadata.action_names),
            "frame_size": size,
            "primes": PRIMES,
            "starts": named,
            "card": card.is_file(),
        }
        (begun / "page.json").write_text(json.dumps(about, indent=1) + "\n")
        (begun / "index.html").write_text(page("standalone.html"))
        begun.rename(output)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return document


def _spread(dataset: ReplayDataset, game: str | None, count: int) -> list[tuple[EpisodeRef, int]]:
    """Episodes, and the frame of each that play begins with; the first is the page to play on's first one, too.

    Raises:
        ValueError: no episode is long enough.
    """
    found = [(ref, last) for ref in episodes_of(dataset, game) for last in range(PRIMES - 1, ref.length)]
    if not found:
        raise ValueError(f"{dataset.root} has no episode of {PRIMES} steps or more")
    return [found[index] for index in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)]


def _checked(folder: Path) -> list[Path]:
    """The runtime's files in a folder.

    Raises:
        ValueError: one is missing.
    """
    files = [folder / name for name in RUNTIME_FILES]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{folder} has no {file.name}: give the folder dist of npm's package {RUNTIME}")
    return files


def fetch_runtime(folder: Path) -> list[Path]:
    """The runtime's files, as npm brings them to a folder.

    Raises:
        ValueError: there is no npm, it fails, or it brings another package than the tested one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"the page needs npm's package {RUNTIME}, and there is no npm: give --onnxruntime, its folder dist"
        )
    command = [npm, "pack", RUNTIME, "--silent", "--pack-destination", str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    packed = next(folder.glob("*.tgz"), None)
    if ran.returncode or packed is None:
        said = " ".join((ran.stderr or ran.stdout).split()) or "nothing was brought"
        raise ValueError(f"npm pack {RUNTIME}: {shortened(said)}")
    if (found := hashlib.sha512(packed.read_bytes()).hexdigest()) != RUNTIME_SHA512:
        raise ValueError(f"npm brought another {RUNTIME}: its SHA-512 is {found[:12]}, expected {RUNTIME_SHA512[:12]}")
    with tarfile.open(packed) as archive:
        for name in RUNTIME_FILES:
            content = archive.extractfile(f"package/dist/{name}")
            assert content is not None  # as in the tested package
            (folder / name).write_bytes(content.read())
    return [folder / name for name in RUNTIME_FILES]
