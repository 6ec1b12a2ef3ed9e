"""From the results of all games and seeds to tables and a verdict; pure arithmetic.

Every arm is compared with one arm, seed by seed: the difference of scores, the ratio of counts. Intervals are 95 %
percentile bootstraps over seeds. Over so few seeds they are too narrow: of three seeds that agree in sign by chance
alone, which one in four do, the interval never holds 0. The verdict therefore asks for five seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.claim.plan import AT, Plan
from genie_ray.base.results import Row, markdown

FEWEST_SEEDS = 3
"""For an interval."""
FEWEST_FOR_VERDICT = 5
SAMPLES = 10_000
SCORES = {f"PSNR t={AT}": 2, "PSNR": 2, "ΔPSNR": 2, "NLL gap": 3}
"""Digits of each score."""
CLAIMED = (f"PSNR t={AT}", "ΔPSNR")
"""What the verdict is made of, over all test windows."""
PARTS = {"all": "All test windows", "unreached": "Windows that begin where no random play was"}
COUNTS = ("cells", "places", "levels")


def measures(scores: Mapping[str, Any] | None) -> dict[str, float | None]:
    """The compared scores of a row of an evaluation; all None for a part without windows."""
    if scores is None:
        return dict.fromkeys(SCORES)
    found = (scores["curves"]["psnr"][AT - 1], scores["psnr"], scores.get("delta_psnr"), scores.get("nll_gap"))
    return dict(zip(SCORES, found, strict=True))


def seed_interval(values: Sequence[float]) -> list[float] | None:
    """95 % bootstrap interval of the mean over seeds; None for fewer than three."""
    if len(values) < FEWEST_SEEDS:
        return None
    picks = np.random.default_rng(0).integers(len(values), size=(SAMPLES, len(values)))
    return [float(bound) for bound in np.quantile(np.asarray(values)[picks].mean(1), [0.025, 0.975])]


def differences(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> dict[int, float]:
    """Seed → difference, in the seeds in which both are known."""
    return {
        seed: value - other
        for seed, value in sorted(ours.items())
        if value is not None and (other := theirs.get(seed)) is not None
    }


def ratios(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> dict[int, float]:
    """Seed → ratio, in the seeds in which both are known."""
    return {
        seed: value / other for seed, value in sorted(ours.items()) if value is not None and (other := theirs.get(seed))
    }


def compared(mean: str, changes: Mapping[int, float], digits: int, *, sign: str, even: float) -> str:
    """A cell of a table: the mean, and in brackets each seed's change, in how many it is above `even`, the interval."""
    if not changes:
        return mean
    each, values = ", ".join(f"{change:{sign}.{digits}f}" for change in changes.values()), list(changes.values())
    parts = [each, f"above in {sum(value > even for value in values)} of {len(values)}"]
    if (interval := seed_interval(values)) is not None:
        parts.append(f"[{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]")
    return f"{mean} ({'; '.join(parts)})"


def by_seed(rows: Sequence[Row], arm: str, *keys: str) -> dict[int, float | None]:
    """Seed → a figure of an arm, in the seeds that have the arm; None if an older result does not have it."""
    found: dict[int, float | None] = {}
    for row in rows:
        if arm in row["arms"]:
            value: Any = row["arms"][arm]
            for key in keys:
                value = value.get(key)
            found[row["seed"]] = value
    return found


def mean_of(values: Mapping[int, float | None], digits: int, sign: str = "") -> str:
    """The mean over the seeds in which it is known; empty if none."""
    known = [value for value in values.values() if value is not None]
    return f"{np.mean(known):{sign},.{digits}f}" if known else ""


def sign_of(title: str) -> str:
    """How a score's mean is signed."""
    return "+" if title.startswith("Δ") else ""


def score_table(rows: Sequence[Row], arms: Sequence[str], reference: str, part: str) -> str:
    """Markdown: the scores of one game's arms on one part of the test windows."""
    lines = []
    for arm in arms:
        line = {"play fine-tuned on": arm}
        for title, digits in SCORES.items():
            values, others = (by_seed(rows, name, part, title) for name in (arm, reference))
            changes = {} if arm == reference else differences(values, others)
            line[title] = compared(mean_of(values, digits, sign_of(title)), changes, digits, sign="+", even=0.0)
        lines.append(line)
    for name in rows[0]["references"]:
        found = {row["seed"]: row["references"][name][part] for row in rows}
        scores = {
            title: mean_of({seed: one[title] for seed, one in found.items()}, digits, sign_of(title))
            for title, digits in SCORES.items()
        }
        lines.append({"play fine-tuned on": f"*{name}*", **scores})
    return markdown(lines)


def play_table(rows: Sequence[Row], arms: Sequence[str], reference: str) -> str:
    """Markdown: what each arm's play shows at equal steps."""
    lines = []
    for arm in arms:
        player = next(row["arms"][arm]["played_by"] for row in rows if arm in row["arms"])
        line = {"play": arm, "played by": player, "steps": mean_of(by_seed(rows, arm, "steps"), 0)}
        for title in COUNTS:
            values, others = (by_seed(rows, name, title) for name in (arm, reference))
            changes = {} if arm == reference else ratios(values, others)
            line[title] = compared(mean_of(values, 0), changes, 2, sign="", even=1.0)
        lines.append(line)
    return markdown(lines)


def depth_table(rows: Sequence[Row]) -> str:
    """Markdown: whether each seed's test agents are visibly better than chance."""

    def figure(value: float | None, form: str = ".1f") -> str:
        return "" if value is None else f"{value:{form}}"

    lines = []
    for row in rows:
        found = row["depth"]
        interval = "" if found["gain_interval"] is None else "{:+.1f} to {:+.1f}".format(*found["gain_interval"])
        lines.append(
            {
                "seed": row["seed"],
                "test windows": row["windows"],
                "of these unreached": row["unreached_windows"],
                "whole episodes": found["episodes"],
                "mean return": figure(found["return"]),
                "of random play": figure(found["return_by_chance"]),
                "95 % interval of the gain": interval,
                "deep": {True: "yes", False: "no", None: "unknown"}[found["deep"]],
                "levels finished": figure(found["finished"], ".0%"),
                "by random play": figure(found["finished_by_chance"], ".0%"),
            }
        )
    return markdown(lines)


def finding(rows: Sequence[Row], claim: str, reference: str) -> str:
    """What one game's seeds say of the claim: `few`, `more`, `less` or `even`."""
    intervals = []
    for title in CLAIMED:
        values = list(differences(*(by_seed(rows, name, "all", title) for name in (claim, reference))).values())
        if len(values) < FEWEST_FOR_VERDICT:
            return "few"
        intervals.append(seed_interval(values) or [0.0, 0.0])
    if all(low > 0 for low, _ in intervals):
        return "more"
    return "less" if all(high < 0 for _, high in intervals) else "even"


def gains(rows: Sequence[Row], claim: str, reference: str) -> str:
    """The gains in the measures of the claim with their intervals, in words."""
    parts = []
    for title in CLAIMED:
        values = list(differences(*(by_seed(rows, name, "all", title) for name in (claim, reference))).values())
        low, high = seed_interval(values) or (float("nan"), float("nan"))
        parts.append(f"{title} {np.mean(values):+.2f} dB [{low:+.2f}, {high:+.2f}] over {len(values)} seeds")
    return ", ".join(parts)


def verdict(rows: Mapping[str, Sequence[Row]], claim: str, reference: str) -> str:
    """One sentence on whether the claimed arm teaches more than its reference, game by game."""
    found: dict[str, list[str]] = {"more": [], "less": [], "even": [], "few": []}
    for game, of_game in rows.items():
        kind = finding(of_game, claim, reference)
        found[kind].append(game if kind == "few" else f"{game} ({gains(of_game, claim, reference)})")
    words = {
        "more": f"`{claim}` taught the world model more than `{reference}` on",
        "less": "less on",
        "even": "neither above nor below in both measures at once, beyond the seeds' spread, on",
        "few": f"with fewer than {FEWEST_FOR_VERDICT} seeds nothing can be said of",
    }
    parts = [f"{words[kind]} {', '.join(games)}" for kind, games in found.items() if games]
    if not found["more"]:
        parts.insert(0, f"It was not shown that `{claim}` teaches the world model more than `{reference}`")
    if shallow := [f"{game} (seed {row['seed']})" for game, each in rows.items() for row in each if not deep(row)]:
        parts.append(f"test play that was not shown to be better than random play: {', '.join(shallow)}")
    return "; ".join(parts) + f". Measures: {' and '.join(CLAIMED)} over all test windows."


def deep(row: Row) -> bool:
    """Whether the test agents were visibly better than chance."""
    return row["depth"]["deep"] is True


def document(rows: Mapping[str, Sequence[Row]], plan: Plan, digest: str) -> str:
    """results.md."""
    first, reference = plan.comparisons[0].base, plan.compared_with
    lines = [
        "# Does exploring teach the world model more than chance?",
        "",
        verdict(rows, plan.claim, reference),
        "",
        f"**Fixed beforehand** (SHA-256 of the settings' file {digest[:12]}): {plan.fixed.strip()} Claim: "
        f"`{plan.claim}` against `{reference}`, by {' and '.join(CLAIMED)} over all test windows; a game shows it if "
        f"both 95 % intervals over at least {FEWEST_FOR_VERDICT} seeds lie above 0. Every arm: "
        f"{first.collection.finetune_steps:,} recorded steps, {first.tune_decoder.iterations} iterations of the "
        f"decoder and {first.finetune.iterations} of the dynamics, {first.finetune.batch_size} × "
        f"{first.finetune.window} frames each, from one base model a seed.",
        "",
        f"Each cell: the mean over seeds; in brackets each seed's difference from `{reference}` (of counts the ratio), "
        "in how many seeds it is above, and the 95 % bootstrap interval over seeds, from three seeds on. "
        "Such an interval is too narrow for so few seeds.",
        "",
        "Play that is *held* keeps each drawn action; *oracle* is play of the test agents. Unreached windows begin "
        "where no random play was. Agents are *deep* if their mean return is above that of chance with 95 %.",
    ]
    for game, of_game in rows.items():
        arms = [arm for arm in plan.arms if any(arm in row["arms"] for row in of_game)]
        lines += ["", f"## {game}", ""]
        for part, title in PARTS.items():
            lines += [f"{title}:", "", score_table(of_game, arms, reference, part)]
        lines += ["What the play shows:", "", play_table(of_game, arms, reference)]
        lines += ["Are the test agents better than chance?", "", depth_table(of_game)]
    return "\n".join(lines)
