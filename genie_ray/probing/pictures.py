"""Pictures for confirming or correcting labels: a film strip and a clip of each action, and a page of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np

from genie_ray.base.figures import StripRow, heat_maps, labelled_clip, labelled_strip
from genie_ray.base.files import STYLE, write_atomically
from genie_ray.probing.play import FRAME_SKIP, NOOP, Context, Rollout
from genie_ray.probing.propose import Proposal

STRIP_STEPS = (0, 1, 2, 3, 5, 8, 12, 18, 26, 35)  # from the step before the action first shows
CLIP_STRIDE = 2  # steps
STEP_SECONDS = FRAME_SKIP / 60
INDEX = "index.html"
RESULT = "probe.json"  # per game


def write_pictures(directory: Path, game: str, contexts: Sequence[Context], proposals: Sequence[Proposal]) -> None:
    """Writes `<ACTION>.png` and `<ACTION>.gif`: action and no-op, in the context that shows the label best."""
    for proposal in proposals:
        context, onset = _clearest(contexts, proposal)
        held, noop = context[proposal.action], context[NOOP]
        title = f"{game}: {proposal.action} → {proposal.label}"
        _write(directory / f"{proposal.action}.png", _strip(held, noop, onset, title))
        _write(directory / f"{proposal.action}.gif", _clip(held, noop, proposal))


def write_index(out: Path) -> Path:
    """Writes a page of all the games probed into a directory, from their result files."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("genie_ray.probing", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    results = [json.loads(path.read_text()) for path in sorted(out.glob(f"*/{RESULT}"))]
    page = environment.get_template("probe.html.jinja").render(style=STYLE.read_text(), results=results)
    _write(out / INDEX, page.encode())
    return out / INDEX


def _clearest(contexts: Sequence[Context], proposal: Proposal) -> tuple[Context, int]:
    """Of the contexts that vote for the label, the one with the most changed pixels; and the action's onset step."""
    candidates = [
        (guess.area, -index) for index, guess in enumerate(proposal.guesses) if guess.label == proposal.label
    ] or [(guess.area, -index) for index, guess in enumerate(proposal.guesses)]
    index = -max(candidates)[1]
    return contexts[index], proposal.guesses[index].onset or 0


def _strip(held: Rollout, noop: Rollout, onset: int, title: str) -> bytes:
    last = min(len(held.frames), len(noop.frames)) - 1
    begin = max(0, onset - 1)
    steps = sorted({min(begin + step, last) for step in STRIP_STEPS})
    ours, theirs = held.frames[steps], noop.frames[steps]
    difference = np.abs(ours.astype(np.float32) - theirs).max(axis=-1) / 255
    return labelled_strip(
        [
            StripRow(label=NOOP, frames=theirs),
            StripRow(label=held.action, frames=ours),
            StripRow(label="difference", frames=heat_maps(difference, 1.0, max(ours.shape[1:3]))),
        ],
        title=title,
        heads=[f"{step * STEP_SECONDS:.2f} s" for step in steps],
        heat=("difference of a colour channel", 1.0),
    )


def _clip(held: Rollout, noop: Rollout, proposal: Proposal) -> bytes:
    length = min(len(held.frames), len(noop.frames))
    captions = [f"{proposal.label}, {step * STEP_SECONDS:.1f} s" for step in range(0, length, CLIP_STRIDE)]
    panels = {
        NOOP: noop.frames[:length:CLIP_STRIDE],
        held.action: held.frames[:length:CLIP_STRIDE],
    }
    return labelled_clip(panels, captions, frame_ms=round(1000 * CLIP_STRIDE * STEP_SECONDS))


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
