"""The commands of a round, explore → collect → fine-tune, on a tiny real game; and what must hold after it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from genie_ray.base.metrics_log import read_metrics
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.windows import unfold
from tests.genie_ray.tiny_world import SIZE
from world_model import checkpoint
from world_model.genie import GenieReduxG

GAME = "Kangaroo-Atari2600-v0"
EPOCHS, ENVS, FRAGMENT = 20, 2, 32
COLLECTED, PER_SHARD, ITERATIONS = 2_400, 100, 200
SETTINGS = [
    f"env.frame_size={SIZE}",
    f"tokenizer.frame_size={SIZE}",
    "env.max_episode_steps=100",
    "ray.threads_per_worker=1",
]
EXPLORING = [
    f"exploration.epochs={EPOCHS}",
    "exploration.checkpoint_every=2",
    f"exploration.ppo.num_envs={ENVS}",
    f"exploration.ppo.fragment_length={FRAGMENT}",
    "exploration.ppo.hold=1",  # so that every step has its reward, and can be asked for it again
    "exploration.ppo.minibatch_size=32",
    "exploration.ppo.filters=[[4, 4, 2], [8, 3, 1]]",
    "exploration.ppo.hidden=16",
    "reward.precision=fp32",
]
TRAINING = [
    f"finetune.{setting}"
    for setting in (
        f"iterations={ITERATIONS}",
        "batch_size=8",
        "window=6",
        "learning_rate=3e-5",
        "final_learning_rate=3e-5",
        "warmup_iterations=0",
        "log_every=20",
        f"validate_every={ITERATIONS}",
        "validation_windows=4",
        "checkpoint_every=20",
        "precision=fp32",
    )
]
TOLERANCE = 1e-4  # of a reward; batches of other sizes are summed in another order


class Round:
    """One round in a directory of its own.

    Args:
        directory: where it writes.
        judge: the world model that it begins with.
        seed: its play's.
    """

    def __init__(self, directory: Path, judge: Path, seed: int) -> None:
        self.agents, self.played, self.finetuned = (directory / name for name in ("agents", "played", "finetuned"))
        self.judge, self._seed = judge, seed
        self.play = self.agents / GAME / "play"
        self.model = self.finetuned / "last"

    def commands(self) -> dict[str, list[str]]:
        """Of each stage, what follows `genie-ray`, without the cluster's address."""
        return {
            "explore": [
                *("explore", str(self.agents), "--world-model", str(self.judge), "--game", GAME),
                *(*SETTINGS, *EXPLORING, f"seed={self._seed}"),
            ],
            "collect": self.collecting(self.played),
            "train": self.training(self.finetuned),
        }

    def collecting(self, output: Path) -> list[str]:
        """The command that plays the explorer's policy."""
        where = ["--policy", str(self.agents), "--game", GAME, "--steps", str(COLLECTED), "--seed", str(self._seed)]
        return ["collect", str(output), *where, *SETTINGS, f"collection.steps_per_shard={PER_SHARD}"]

    def training(self, output: Path) -> list[str]:
        """The command that fine-tunes the judge."""
        data = ["--data", str(self.play), "--data", str(self.played)]
        return ["train", "dynamics", str(output), *data, "--init", str(self.judge), *SETTINGS, *TRAINING]

    def wrong(self) -> list[str]:
        """What does not hold after the round."""
        found = [f"{data}: {fault}" for data in (self.play, self.played) for fault in verify(data)]
        lines = [line for line in read_metrics(self.agents / GAME / "metrics.jsonl") if "entropy" in line]
        if [line["iteration"] for line in lines] != list(range(1, EPOCHS + 1)):
            found.append(f"{self.agents}: its log does not have each of {EPOCHS} epochs once")
        played = np.diff([0, *[int(line["env_steps"]) for line in lines]])
        if not all(ENVS * FRAGMENT <= steps < 2 * ENVS * FRAGMENT for steps in played):
            # More than a fragment: if an emulator dies in it, another is played, and what had ended before stays.
            found.append(f"{self.agents}: epochs of {played.tolist()} steps")
        for data, wanted in ((self.play, int(played.sum())), (self.played, COLLECTED)):
            steps = sum(episode.length for episode in ReplayDataset(data).episodes)
            if steps != wanted:
                found.append(f"{data}: {steps} steps, not {wanted}")
            names = Counter(episode.episode_id for episode in ReplayDataset(data).episodes)
            found += [f"{data}: episode {name} is there {count} times" for name, count in names.items() if count > 1]
        rewards, wrong = self.asked_again()
        if wrong or not rewards:
            found.append(f"{self.play}: {wrong} of {rewards} rewards are not the judge's")
        lines = [line for line in read_metrics(self.finetuned / "metrics.jsonl") if "loss" in line]
        if [line["iteration"] for line in lines] != list(range(20, ITERATIONS + 1, 20)):
            found.append(f"{self.finetuned}: its log does not have each of {ITERATIONS} iterations once")
        return found

    def asked_again(self) -> tuple[int, int]:
        """How many recorded rewards were compared with the judge's, and how many differ."""
        judge = UncertaintyJudge(
            checkpoint.load_as(GenieReduxG, self.judge).eval(), RewardConfig(precision="fp32"), "again"
        )
        compared = wrong = 0
        for ref in ReplayDataset(self.play).episodes:
            episode = ReplayDataset(self.play).read(ref)
            windows = unfold(episode.frames, episode.actions.astype(np.int64))
            if not len(windows):
                continue
            with torch.no_grad():
                again_M = judge.judge(windows).rewards_M
            assert episode.reward_uncertainty is not None
            given_M = episode.reward_uncertainty[-len(again_M) :]
            there_M = np.isfinite(given_M)
            compared += int(there_M.sum())
            wrong += int((np.abs(given_M - again_M)[there_M] > TOLERANCE).sum())
        return compared, wrong
