"""The tables of an evaluation as text, for the page and the terminal: scores, long horizons, familiar test windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from genie_ray.base.progress import console

COLUMNS = {
    "psnr": "PSNR (dB)",
    "psnr_mean": "mean of per-frame PSNR (dB)",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "delta_psnr": "ΔPSNR (dB)",
    "delta_psnr_mean": "mean of per-frame ΔPSNR (dB)",
    "probe_codes": "actions predicted from codes",
    "probe_vectors": "from encoder vectors",
    "probe_chance": "by chance",
    "fid": "FID",
    "fvd": "FVD",
}
CONTROL_COLUMNS = {
    "nll_gap": "NLL gap (nats per changed token)",
    "nll_changed": "NLL (nats per changed token)",
    "action_accuracy": "true action likeliest",
    "action_chance": "by chance",
    "action_rank": "its mean rank",
    "recognised": "action recognised in the frames",
    "recognised_chance": "by chance, always the commonest",
    "controllable.windows": "controllable windows",
    "controllable.delta_psnr": "their ΔPSNR (dB)",
    "controllable.delta_psnr_mean": "their mean of per-frame ΔPSNR (dB)",
}
CONTROL_NOTE = (
    "NLL gap: how many more nats the tokens that changed cost under the other actions than under the true one. "
    "Recognised: by a classifier that learned from real play which action lies between two frames. Controllable: the "
    "emulator itself "
    'shows, after random actions, a picture more than 0.5 dB from the true one. The ΔPSNR of "tokenizer alone" is '
    "the emulator's, coded: what a perfect model would score."
)
SLICE_COLUMNS = {"psnr": "PSNR of frames {} (dB)", "ssim": "SSIM of frames {}"}
FAMILIAR_COLUMNS = {
    "seen_share": "windows met in training",
    "unseen.windows": "others",
    "unseen.psnr": "their PSNR (dB)",
    "unseen.psnr_mean": "their mean of per-frame PSNR (dB)",
    "unseen.ssim": "their SSIM",
    "unseen.lpips": "their LPIPS",
    "unseen.delta_psnr": "their ΔPSNR (dB)",
    "unseen.delta_psnr_mean": "their mean of per-frame ΔPSNR (dB)",
    "unseen.fid": "their FID",
    "unseen.fvd": "their FVD",
    "psnr_rare": "PSNR in the rarest cells (dB)",
    "rare_frames": "frames there",
}
HORIZON_NOTE = "Drift: the PSNR of the last frames minus that of the first ones; what it loses by going on."
FAMILIAR_NOTE = (
    "Windows met in training: all their frames stand there in the same order, bit for bit. Rarest cells: the tenth of "
    "the test frames' coarse pictures (docs/results.md) that training shows least, and all as rare as these."
)
MOST_COLUMNS = 4
"""Of scores in a terminal's table, before models become its columns."""

COUNTS = {"fid": ("fid_frames", "frames"), "fvd": ("fvd_windows", "windows")}
WHOLE = ("windows", "rare_frames")  # counts


@dataclass(frozen=True)
class ScoreTable:
    """A table of one game, or of all games."""

    columns: Mapping[str, str]  # key → title; rows have these keys, and `label`
    rows: list[dict[str, str]]
    note: str = ""


def print_scores(evaluation: Mapping[str, Any]) -> None:
    """Prints the scores on every game, and over all of them, as tables."""
    for game in games_of(evaluation):
        for number, part in enumerate(score_tables(evaluation, game)):
            console.print(_terminal_table(part, title=title_of(game) if number == 0 else None))
            if part.note:
                console.print(part.note, soft_wrap=True)
    for note in notes(evaluation):
        console.print(note, soft_wrap=True)


def _terminal_table(part: ScoreTable, title: str | None) -> Table:
    """A row for each model; a terminal has no room for many columns, so beyond a few there is one for each model."""
    table = Table(title=title, title_justify="left")
    lines = [["model", *part.columns.values()], *(list(row.values()) for row in part.rows)]
    if len(part.columns) > max(MOST_COLUMNS, len(part.rows)):
        lines = [list(line) for line in zip(*lines, strict=True)]
    for number, head in enumerate(lines[0]):
        table.add_column(head, justify="right" if number else "left")
    for line in lines[1:]:
        table.add_row(*line)
    return table


def score_tables(evaluation: Mapping[str, Any], game: str) -> list[ScoreTable]:
    """The tables of one game (or "all"): the scores; the horizon if it is long; what training data already show."""
    parts = [(columns(evaluation), ""), (_shown(CONTROL_COLUMNS, evaluation), CONTROL_NOTE)]
    parts.append((_horizon_columns(evaluation), HORIZON_NOTE))
    parts.append((_shown(FAMILIAR_COLUMNS, evaluation), FAMILIAR_NOTE))
    return [ScoreTable(shown, score_rows(evaluation, game, shown), note) for shown, note in parts if shown]


def score_rows(
    evaluation: Mapping[str, Any], game: str, shown: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """The rows of one game's table as text, by column (default: `columns`).

    A paper's figures are below the last game, in the table of scores alone.
    """
    rows = [{"label": label} | games[game] for label, games in evaluation["models"].items()]
    if shown is None or "psnr" in shown:
        rows += evaluation.get("published", []) if game == games_of(evaluation)[-1] else []
    return [{"label": row["label"]} | {key: _cell(row, key) for key in (shown or columns(evaluation))} for row in rows]


def columns(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The scores' columns and their titles; those of the action probe only if a GenieRedux was scored, and so on."""
    return _shown(COLUMNS, evaluation)


def notes(evaluation: Mapping[str, Any]) -> list[str]:
    """What a reader must know of the scores: where FID comes from or why there is none, what the brackets are."""
    weights = evaluation["protocol"]["inception_weights"]
    rows = [row for games in evaluation["models"].values() for row in games.values()]
    if not weights:
        fid = "FID is empty: no Inception weights given: evaluation.inception_weights=<TorchScript file>"
    else:
        fid = f"FID: features of {Path(weights).name}; of few frames it reads too high"
        if any(row.get("fid") is None for row in rows):
            fid += "; empty where there are fewer than two frames or a feature is not finite"
    found = [fid]
    if any(_value(row, "psnr_interval") for row in rows):
        found.append("In brackets: 95 % intervals over test episodes (bootstrap); a single episode has none")
    if any(row.get("seen_share") == 1 for row in rows):
        found.append("Where training data hold all windows, there are no others to score")
    if reasons := sorted({row["no_ceiling"] for row in rows if "no_ceiling" in row}):
        found.append(f"No ceiling of ΔPSNR: {'; '.join(reasons)}")
    if classifier := evaluation.get("inverse_dynamics"):
        real, chance = classifier["accuracy"], classifier["chance"]
        found.append(f"On real frames, the classifier recognises {real:.2f} of the actions (by chance {chance:.2f})")
    return found


def games_of(evaluation: Mapping[str, Any]) -> list[str]:
    """The games, and "all" if there are several."""
    games = list(next(iter(evaluation["models"].values())))
    return games if len(games) > 2 else [game for game in games if game != "all"]


def title_of(game: str) -> str:
    """A game's name on the page; of "all", in words."""
    return "all games" if game == "all" else game


def _horizon_columns(evaluation: Mapping[str, Any]) -> dict[str, str]:
    rows = next(iter(evaluation["models"].values()))
    slices = next(iter(rows.values())).get("slices", {})
    found = {
        f"slices.{name}.{key}": title.format(name.replace("-", "–"))
        for name in slices
        for key, title in SLICE_COLUMNS.items()
    }
    return found | {"drift": "drift (dB)"} if found else {}


def _shown(titles: Mapping[str, str], evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The columns that some model has."""
    rows = [row for games in evaluation["models"].values() for row in games.values()]
    return {key: title for key, title in titles.items() if any(_has(row, key) for row in rows)}


def _has(row: Mapping[str, Any], key: str) -> bool:
    part, _, rest = key.partition(".")
    return part in row and (not rest or (row[part] is not None and _has(row[part], rest)))


def _value(row: Mapping[str, Any], key: str) -> Any:
    """The value at a key with dots for parts of parts; None if there is none."""
    part, _, rest = key.partition(".")
    value = row.get(part)
    return _value(value, rest) if rest and value is not None else value


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A value as text, with its interval or the number of frames that it is of."""
    value, name = _value(row, key), key.rpartition(".")[2]
    if value is None:
        return "–"
    if name == "seen_share":
        return f"{100 * value:.0f} %"
    if name in WHOLE:
        return str(value)
    form = f"{'+' if name.startswith(('delta', 'drift', 'nll_gap')) else ''}.{3 if name in ('ssim', 'lpips') else 2}f"
    text = f"{value:{form}}"
    if (interval := _value(row, f"{key}_interval")) is not None:
        low, high = interval
        text += f" [{low:.2f}, {high:.2f}]"
    if name in COUNTS and (count := _value(row, key.removesuffix(name) + COUNTS[name][0])) is not None:
        text += f" ({count} {COUNTS[name][1]})"
    return text
