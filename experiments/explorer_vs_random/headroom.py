"""Can fixed ways of playing see more than random play, and would the reward show it to an explorer?

Plays each game of explorer_vs_random at random, at random with every action held for some steps, and at random with one
action taken half of the time. Counts distinct cells, and computes the published reward of the same play with a frozen
world model. If the widest way of playing is hardly wider than random play, no explorer can be; if it is wider but not
rewarded more, the reward does not lead there; if both hold and an explorer did not find it, learning is at fault.

The reward is computed for several shares of the tokens (eq. 4). It is given in standard deviations of a step's reward
under random play, above the mean of random play: a measure of what a learner can distinguish.

Prints a Markdown table, with all figures relative to random play of the same seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import from_numpy
from torchmetrics.functional import spearman_corrcoef

from genie_ray.base.progress import console
from genie_ray.base.settings import build
from genie_ray.config import RunConfig
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.games.actions import action_names
from genie_ray.replay.coverage import cells
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import entropies
from genie_ray.rewards.windows import join, unfold
from world_model.checkpoint import load_as
from world_model.genie import GenieReduxG
from world_model.uncertainty import top_k_mean

FRAGMENT = 25  # steps
JUDGED_EVERY = 6  # fragments
BATCH = 64  # windows


@dataclass(frozen=True, kw_only=True)
class Way:
    """A fixed way of playing."""

    name: str
    held: float = 1.0  # steps, on average
    favourite: int | None = None  # taken half of the time

    def actions(self, count: int, number: int, rng: np.random.Generator) -> np.ndarray:
        """int64 [count], below `number`."""
        weights = np.full(number, 1 / number)
        if self.favourite is not None:
            weights = np.full(number, 0.5 / (number - 1))
            weights[self.favourite] = 0.5
        drawn, anew = rng.choice(number, count, p=weights), rng.random(count) < 1 / self.held
        anew[0] = True
        return drawn[np.maximum.accumulate(np.where(anew, np.arange(count), 0))]


def ways(names: Sequence[str]) -> list[Way]:
    """The ways to compare; the first one is random play."""
    held = [Way(name=f"by chance, held {steps} steps", held=steps) for steps in (5, 10)]
    leaning = [Way(name=f"half {name}, held 5 steps", favourite=index, held=5) for index, name in enumerate(names)]
    return [Way(name="by chance"), *held, *leaning]


def play(game: str, config: EnvConfig, way: Way, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Frames uint8 [steps + 1, H, W, C] and actions int64 [steps] of play, and the steps after which it was reset."""
    env = make_game(game, config)
    actions = way.actions(steps, int(env.action_space.n), np.random.default_rng(seed))
    frames, ends = [env.reset()[0]], []
    for step, action in enumerate(actions):
        frame, _, terminated, truncated, _ = env.step(int(action))
        if terminated or truncated:
            frame, _ = env.reset()
            ends.append(step + 1)
        frames.append(frame)
    env.close()
    return np.stack(frames), actions, ends


def rewards_of(
    model: GenieReduxG, shares: Sequence[float], frames: np.ndarray, actions: np.ndarray, ends: Sequence[int]
) -> np.ndarray:
    """Rewards of the windows of every `JUDGED_EVERY`th fragment that lies within an episode; [shares, windows]."""
    starts = range(0, len(actions) - FRAGMENT + 1, JUDGED_EVERY * FRAGMENT)
    windows = join(
        [
            unfold(frames[start : start + FRAGMENT + 1], actions[start : start + FRAGMENT])
            for start in starts
            if not any(start < end <= start + FRAGMENT for end in ends)
        ]
    )
    config = RewardConfig(precision="bf16")
    batches = (windows[begin : begin + BATCH] for begin in range(0, len(windows), BATCH))
    with torch.no_grad():
        entropy_MN = torch.cat([entropies(model, batch, config).float() for batch in batches])
    return np.stack([top_k_mean(entropy_MN, share).numpy() for share in shares])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="--out of explorer_vs_random's run.py, with the world models")
    parser.add_argument("--seeds", type=int, nargs="+", help="some of the YAML file's; default: all")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "config.yaml", help="its YAML file")
    parser.add_argument("--games", nargs="+", help="some of the YAML file's; default: all")
    parser.add_argument("--top-k", type=float, nargs="+", default=[0.05, 0.25, 1.0], help="shares of tokens to average")
    arguments = parser.parse_args()
    described = yaml.safe_load(arguments.config.read_text())
    config, steps = build(RunConfig, described["base"]), described["base"]["collection"]["finetune_steps"]
    seeds, shares = arguments.seeds or described["seeds"], arguments.top_k
    compared = ways(action_names(config.env.action_set))
    columns = ["game", "way of playing", "cells, times random", "each seed's"]
    columns += [f"reward, top {share:.0%}: σ above random, each seed's" for share in shares]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    remarks = []
    for game in arguments.games or config.games:
        wide, paid = np.zeros((len(seeds), len(compared))), np.zeros((len(shares), len(seeds), len(compared)))
        for row, seed in enumerate(seeds):
            model = load_as(GenieReduxG, arguments.results / f"seed-{seed}" / "dynamics" / "best")
            for column, way in enumerate(compared):
                frames, actions, ends = play(game, config.env, way, steps, seed)
                wide[row, column] = len(np.unique(cells(frames)))
                rewards = rewards_of(model, shares, frames, actions, ends)
                if column == 0:  # random play
                    means, spreads = rewards.mean(1), rewards.std(1)
                paid[:, row, column] = (rewards.mean(1) - means) / spreads
                console.print(
                    f"{game}: seed {seed}, {way.name}: {wide[row, column]:.0f} cells, {len(ends)} episodes ended"
                )
        times = wide / wide[:, :1]
        for column in np.argsort(-times.mean(0)):
            each = ", ".join(f"{ratio:.2f}" for ratio in times[:, column])
            above = [", ".join(f"{value:+.2f}" for value in of_share[:, column]) for of_share in paid]
            lines.append(
                f"| {game} | {compared[column].name} | {times[:, column].mean():.2f} | {each} | {' | '.join(above)} |"
            )
        for share, of_share in zip(shares, paid, strict=True):
            ranks = [
                float(spearman_corrcoef(from_numpy(a), from_numpy(b))) for a, b in zip(wide, of_share, strict=True)
            ]
            each = ", ".join(f"{rank:+.2f}" for rank in ranks)
            remarks.append(f"* {game}, top {share:.0%}: rank correlation of reward and cells, each seed's: {each}")
    print("\n".join([*lines, "", *remarks]))


if __name__ == "__main__":
    main()
