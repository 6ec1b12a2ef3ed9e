"""What a sweep measures of play: what it shows, how new it is to the world model, and how much that learns from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from genie_ray.evaluating.evaluation import score
from genie_ray.evaluating.networks import NETWORKS
from genie_ray.replay.coverage import seen
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.sweeping.config import TrialConfig
from genie_ray.training.finetuning import finetuning_steps

SCORES = ("psnr", "delta_psnr", "delta_psnr_mean")


def measure(play: Path, world_model: Path, run: TrialConfig) -> dict[str, Any]:
    """Distinct cells and places of play, and the world model's PSNR and ΔPSNR on it, in total and per game.

    The totals of `coverage` and `places` are sums over games, that of `psnr` is over all games' windows. `places` is
    None if a game does not tell them.
    """
    dataset = ReplayDataset(play)
    shown = {
        game: seen((dataset.read(ref) for ref in dataset.episodes if ref.game == game), run.training_steps)
        for game in run.games
    }
    scores = _scores(world_model, play, run)
    places = [found.places for found in shown.values()]
    return {
        "coverage": sum(found.cells for found in shown.values()),
        "places": None if None in places else sum(count or 0 for count in places),
        **{name: scores["all"][name] for name in SCORES},
        "games": {
            game: {
                "steps": found.steps,
                "coverage": found.cells,
                "places": found.places,
                **{name: scores[game][name] for name in SCORES},
            }
            for game, found in shown.items()
        },
    }


def measure_gain(directory: Path, play: Path, world_model: Path, test: Path, run: TrialConfig) -> dict[str, float]:
    """Fine-tunes the world model on play, decoder first, and scores it on test play; `gain` is in dB of PSNR.

    Args:
        directory: of the trainings; one that was interrupted continues.
    """
    steps = finetuning_steps(
        run.recipe,
        play,
        run.ray,
        base=world_model,
        decoder=directory / "decoder",
        finetuned=directory / "finetuned",
    )
    for step in steps:
        if not step.artefact.exists():
            step.run()
    before, after = (_scores(model, test, run)["all"] for model in (world_model, directory / "finetuned" / "best"))
    return {
        "test_psnr": after["psnr"],
        "gain": after["psnr"] - before["psnr"],
        "delta_psnr_gain": after["delta_psnr"] - before["delta_psnr"],
    }


def _scores(world_model: Path, play: Path, run: TrialConfig) -> dict[str, Any]:
    unused: dict[str, Any] = dict.fromkeys((*NETWORKS, "published_figures"))
    protocol = dataclasses.replace(run.evaluation, film_strips=0, ceiling=False, **unused)
    return score("world model", world_model, play, protocol, run.ray).scores
