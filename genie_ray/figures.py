"""Pictures for the report, each as text that an HTML page holds: curves as SVG, film strips as PNG, clips as GIF.

Axes: T frames, H W C pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import imageio.v3 as imageio
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860"]),
}
Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""label → x, y."""

GIF_FRAME_MS = 250
GAP = 2  # pixels between the frames of a strip


def curves(data: Curves, *, x: str, y: str, title: str) -> str:
    """Curves in one plot, as SVG."""
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    axes: Axes = figure.add_subplot()
    for label, (xs, ys) in data.items():
        axes.plot(xs, ys, label=label, marker="o" if len(xs) < 15 else None, markersize=3, linewidth=1.3)
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.grid(alpha=0.25)
    if len(data) > 1:
        axes.legend(fontsize=7, frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def film_strip(rows: Sequence[NDArray[np.uint8]]) -> str:
    """Rows of frames [T, H, W, C], one above the other, as a PNG data URI."""
    return _data_uri(
        "png", imageio.imwrite("<bytes>", np.concatenate([_spread(row) for row in rows]), extension=".png")
    )


def clip(columns: Sequence[NDArray[np.uint8]]) -> str:
    """Clips [T, H, W, C] that play side by side, as a GIF data URI."""
    frames = [_spread(frame) for frame in np.stack(columns, axis=1)]
    return _data_uri("gif", imageio.imwrite("<bytes>", frames, extension=".gif", duration=GIF_FRAME_MS, loop=0))


def _spread(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [N, H, W, C] side by side with gaps, [H + gap, N·(W + gap), C]."""
    padded = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
