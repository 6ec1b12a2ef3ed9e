"""Can fixed ways of playing see more than random play, and would the reward tell an explorer so?

Plays each game of explorer_vs_random by chance, by chance with every action held for some steps, and by chance with one
action taken half of the time. Counts distinct cells, and asks a frozen world model for the published reward of the same
play. Where the widest way of playing is hardly wider than chance, no explorer can be; where it is wider but is not paid
more, the reward does not lead there; where it is both and an explorer did not find it, learning is at fault.

Prints a Markdown table, all figures relative to random play of the same seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from torch import from_numpy
from torchmetrics.functional import spearman_corrcoef

from genie_ray.config import RunConfig, build
from genie_ray.envs.actions import action_names
from genie_ray.envs.retro import EnvConfig, make_game
from genie_ray.progress import console
from genie_ray.replay.coverage import cells
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.windows import join, unfold
from world_model.checkpoint import load_as
from world_model.genie import GenieReduxG

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
    """Those that are compared; the first one is random play."""
    held = [Way(name=f"by chance, held {steps} steps", held=steps) for steps in (5, 10)]
    leaning = [Way(name=f"half {name}, held 5 steps", favourite=index, held=5) for index, name in enumerate(names)]
    return [Way(name="by chance"), *held, *leaning]


def play(game: str, config: EnvConfig, way: Way, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Frames uint8 [steps + 1, H, W, C] and actions int64 [steps] of play, and the steps after which it began anew."""
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


def mean_reward(judge: UncertaintyJudge, frames: np.ndarray, actions: np.ndarray, ends: Sequence[int]) -> float:
    """Of the windows of every `JUDGED_EVERY`th fragment, where it is within an episode."""
    starts = range(0, len(actions) - FRAGMENT + 1, JUDGED_EVERY * FRAGMENT)
    windows = join(
        [
            unfold(frames[start : start + FRAGMENT + 1], actions[start : start + FRAGMENT])
            for start in starts
            if not any(start < end <= start + FRAGMENT for end in ends)
        ]
    )
    rewards = [judge.judge(windows[begin : begin + BATCH]).rewards_M for begin in range(0, len(windows), BATCH)]
    return float(np.concatenate(rewards).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, help="--out of explorer_vs_random's run.py: its world models judge")
    parser.add_argument("--seeds", type=int, nargs="+", help="some of the YAML file's; all of them if not given")
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "config.yaml", help="its YAML file")
    arguments = parser.parse_args()
    described = yaml.safe_load(arguments.config.read_text())
    config, steps = build(RunConfig, described["base"]), described["base"]["collection"]["finetune_steps"]
    seeds = arguments.seeds or described["seeds"]
    compared = ways(action_names(config.env.action_set))
    lines = [
        "| game | way of playing | cells, times random | each seed's | reward, times random |",
        "|---|---|---|---|---|",
    ]
    remarks = []
    for game in config.games:
        wide, paid = (np.zeros((len(seeds), len(compared))) for _ in range(2))
        for row, seed in enumerate(seeds):
            model = load_as(GenieReduxG, arguments.results / f"seed-{seed}" / "dynamics" / "best")
            judge = UncertaintyJudge(model, RewardConfig(precision="bf16"), f"seed {seed}")
            for column, way in enumerate(compared):
                frames, actions, ends = play(game, config.env, way, steps, seed)
                wide[row, column] = len(np.unique(cells(frames)))
                paid[row, column] = mean_reward(judge, frames, actions, ends)
                done = f"{wide[row, column]:.0f} cells, reward {paid[row, column]:.3f}, {len(ends)} episodes ended"
                console.print(f"{game}: seed {seed}, {way.name}: {done}")
        times, reward = wide / wide[:, :1], paid / paid[:, :1]
        for column in np.argsort(-times.mean(0)):
            each = ", ".join(f"{ratio:.2f}" for ratio in times[:, column])
            name, cells_of, reward_of = compared[column].name, times[:, column].mean(), reward[:, column].mean()
            lines.append(f"| {game} | {name} | {cells_of:.2f} | {each} | {reward_of:.2f} |")
        ranks = [float(spearman_corrcoef(from_numpy(wide[row]), from_numpy(paid[row]))) for row in range(len(wide))]
        remarks.append(
            f"{game}: rank correlation of reward and cells over ways of playing {statistics.fmean(ranks):+.2f}"
        )
    print("\n".join([*lines, "", *remarks]))


if __name__ == "__main__":
    main()
