"""Figures: curves as SVG, film strips as PNG, clips as GIF. Those for reports are strings to embed in HTML.

Axes: T frames, H W C pixels, h w the grid of a frame's tokens.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import imageio.v3 as imageio
import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
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
HEAT = matplotlib.colormaps["inferno"].with_extremes(bad="white")
"""Colours of heat maps; white where there is no value."""


def blank_figure(width: float, height: float) -> Figure:
    """An empty figure in this style, for image files; size in inches."""
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


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
    """Rows of frames [T, H, W, C], stacked, as a PNG data URI."""
    return _data_uri(
        "png", imageio.imwrite("<bytes>", np.concatenate([_spread(row) for row in rows]), extension=".png")
    )


def clip(columns: Sequence[NDArray[np.uint8]]) -> str:
    """Clips [T, H, W, C] that play side by side, as a GIF data URI."""
    return _data_uri("gif", _gif([_spread(frame) for frame in np.stack(columns, axis=1)], GIF_FRAME_MS))


@dataclass(frozen=True, kw_only=True)
class StripRow:
    """A row of a labelled film strip."""

    label: str
    frames: NDArray[np.uint8]  # [T, H, W, C]
    notes: Sequence[str] = ()  # T, below the frames


def labelled_strip(
    rows: Sequence[StripRow], *, title: str, heads: Sequence[str] = (), heat: tuple[str, float] | None = None
) -> bytes:
    """Labelled film strips, as PNG. Rows after the first may be shorter.

    Args:
        heads: T captions above the first row's frames.
        heat: for heat maps in the last row: what their colours measure, and the value of the brightest one.
    """
    columns, inch = len(rows[0].frames), 1.2
    height, width = rows[0].frames.shape[1:3]
    size = (inch * columns + 1.6, (inch * height / width + 0.35) * len(rows) + 0.6)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    figure.suptitle(title, fontweight="bold")
    for index, (axes, row) in enumerate(zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True)):
        missing = columns - len(row.frames)
        padded = np.pad(row.frames, ((0, missing), (0, 0), (0, 0), (0, 0)), constant_values=255)
        axes.imshow(_spread(padded), interpolation="nearest")
        width = row.frames.shape[2]
        centres = np.arange(columns) * (width + GAP) + (width - 1) / 2
        axes.set_xticks(centres[: len(row.notes)], row.notes)
        axes.set_yticks([])
        axes.set_ylabel(row.label, fontsize=11)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if heads and not index:
            above = axes.secondary_xaxis("top")
            above.set_xticks(centres, heads)
            above.tick_params(length=0)
            above.spines[:].set_visible(False)
    if heat is not None:
        label, top = heat
        colours = ScalarMappable(Normalize(0, top), HEAT)
        figure.colorbar(colours, cax=axes.inset_axes((1.005, 0, 0.012, 1)), label=label, ticks=[0, top])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


def labelled_clip(panels: Mapping[str, NDArray[np.uint8]], captions: Sequence[str], *, frame_ms: int) -> bytes:
    """Clips [T, H, W, C] that play side by side, each under its name, with a caption for each frame, as GIF."""
    side, gap, margin = 256, 8, 28  # pixels
    width, height = len(panels) * (side + gap) + gap, side + 2 * margin
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    images = []
    for index, (label, frames) in enumerate(panels.items()):
        left = (gap + index * (side + gap)) / width
        axes = figure.add_axes((left, margin / height, side / width, side / height))
        axes.set_axis_off()
        axes.set_title(label, fontsize=11, pad=5)
        images.append((axes.imshow(frames[0], interpolation="nearest"), frames))
    text = figure.text(0.5, margin / 2 / height, "", ha="center", va="center", fontsize=9)
    pictures = []
    for index, caption in enumerate(captions):
        text.set_text(caption)
        for image, frames in images:
            image.set_data(frames[index])
        canvas.draw()
        pictures.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return _gif(pictures, frame_ms)


def heat_maps(values_Thw: NDArray[np.float32], top: float, size: int) -> NDArray[np.uint8]:
    """Values in [0, top] as colours, enlarged to `size` pixels: uint8 [T, H, W, C]; NaN becomes white."""
    pixels = HEAT(np.ma.masked_invalid(values_Thw) / top, bytes=True)[..., :3]
    height, width = values_Thw.shape[1:]
    return pixels.repeat(size // height, axis=1).repeat(size // width, axis=2)


def _spread(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames [N, H, W, C] side by side with gaps, [H + gap, N·(W + gap), C]."""
    padded = np.pad(frames, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)


def _gif(frames: Sequence[NDArray[np.uint8]], frame_ms: int) -> bytes:
    return imageio.imwrite("<bytes>", frames, extension=".gif", duration=frame_ms, loop=0)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
