"""Which action was it? Asked of an inverse-dynamics classifier about generated frames.

A small network learns from real play which action lies between two frames. Asked about frames that a world model
generated, it says how often these show the action that the model was given (MineWorld, Guo et al., 2025,
arXiv 2504.08388, Sec. 4, which asks a network trained on Minecraft; ours is trained on the play at hand, in minutes).

Not every action can be told from two frames: a player that runs into a wall stands still, and many actions in mid-air
or during a death do nothing. The accuracy on real frames is therefore the ceiling, and the share of the most frequent
action is the floor.

Axes: B windows, T frames (T − 1 actions between them), N pairs of frames, A actions, H W C pixels, K input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from genie_ray.evaluating.config import EvaluationConfig, InverseDynamicsConfig
from genie_ray.evaluating.windows import Windows
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import ReplayMix
from genie_ray.replay.loading.windows import WindowLoader, iter_windows
from genie_ray.storage.paths import Location

GetLogits = Callable[[Tensor], Tensor]  # pairs of frames uint8 [N, 2, H, W, C] → logits [N, A]
PAIRS_AT_ONCE = 512


class PairClassifier(nn.Module):
    """Three strided convolutions over two frames and their difference, then one hidden layer."""

    def __init__(self, config: InverseDynamicsConfig, frame_size: int, num_actions: int) -> None:
        super().__init__()
        width, side = config.width, -(-frame_size // 8)
        layers: list[nn.Module] = []
        for inputs, outputs in ((9, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(2 * width * side**2, config.hidden), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(config.hidden, num_actions))

    def forward(self, pairs_N2HWC: Tensor) -> Tensor:
        """uint8 [N, 2, H, W, C] → logits [N, A]."""
        pixels_N2CHW = rearrange(pairs_N2HWC, "n p h w c -> n p c h w").float() / 255 - 0.5
        before_NCHW, after_NCHW = pixels_N2CHW.unbind(1)
        return self.network(torch.cat([before_NCHW, after_NCHW, after_NCHW - before_NCHW], dim=1))


@dataclass(frozen=True)
class ActionAccuracy:
    """How often the action between two frames was recognised; shares in [0, 1]."""

    confusion_AA: Tensor  # int64 counts: row the action taken, column the one recognised
    per_frame: list[float]  # for the frame after each action, 1..T − 1

    @property
    def overall(self) -> float:
        """The share of all actions that was recognised."""
        return float(self.confusion_AA.trace() / self.confusion_AA.sum())

    @property
    def per_action(self) -> list[float | None]:
        """The share of each action's occurrences that was recognised; None for one that was not taken."""
        rows = zip(self.confusion_AA.diagonal().tolist(), self.confusion_AA.sum(1).tolist(), strict=True)
        return [right / taken if taken else None for right, taken in rows]

    @property
    def chance(self) -> float:
        """The share of the action taken most often: what always naming it would score."""
        return float(self.confusion_AA.sum(1).max() / self.confusion_AA.sum())


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier and what it is worth on real frames of held-out episodes."""

    network: PairClassifier
    real: ActionAccuracy

    def worth(self, action_names: Sequence[str]) -> dict[str, Any]:
        """The accuracy on real frames as plain JSON."""
        per_action = dict(zip(action_names, self.real.per_action, strict=True))
        return {"accuracy": self.real.overall, "chance": self.real.chance, "per_action": per_action}


def train_classifier(
    replay: ReplayDataset | ReplayMix,
    num_actions: int,
    *,
    seed: int,
    config: InverseDynamicsConfig | None = None,
    device: torch.device | str = "cpu",
) -> TrainedClassifier:
    """Learns from the training episodes, and is tried on pairs of frames of the held-out ones.

    Args:
        replay: real play of the games that will be asked about, by a policy that tries every action.
        seed: of the initial weights and the order of the pairs.

    Raises:
        ValueError: too few pairs of frames for a batch.
    """
    config = config or InverseDynamicsConfig()
    pairs = WindowLoader(replay, split="train", length=2, stride=1, batch_size=config.batch_size, seed=seed)
    batch = next(pairs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PairClassifier(config, batch["frames_BTHWC"].shape[2], num_actions)
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.updates, pct_start=0.1, cycle_momentum=False
    )
    for _ in range(config.updates):
        logits_NA = network(batch["frames_BTHWC"].to(device))
        loss = F.cross_entropy(logits_NA, batch["actions_BT"][:, 0].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        batch = next(pairs)
    pairs.close()
    network.eval()
    confusion_AA = torch.zeros(num_actions, num_actions, dtype=torch.int64)
    for held_out in iter_windows(
        replay, "validation", 2, stride=1, batch_size=PAIRS_AT_ONCE, limit=config.validation_pairs
    ):
        frames_BTHWC, actions_BT = held_out["frames_BTHWC"], held_out["actions_BT"][:, :1]
        answer = action_accuracy(network, frames_BTHWC, actions_BT, num_actions, device=device)
        confusion_AA += answer.confusion_AA
    right = float(confusion_AA.trace() / confusion_AA.sum())
    return TrainedClassifier(network, ActionAccuracy(confusion_AA, [right]))


@torch.no_grad()
def recognise(classifier: GetLogits, frames_BTHWC: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
    """The action that the classifier sees between each two consecutive frames, int64 [B, T − 1].

    Args:
        classifier: for example a `PairClassifier`, in evaluation mode and on `device`.
        frames_BTHWC: uint8.
    """
    pairs_N2HWC = rearrange(
        torch.stack([frames_BTHWC[:, :-1], frames_BTHWC[:, 1:]], dim=2), "b t p h w c -> (b t) p h w c"
    )
    answers = [classifier(part.to(device)).argmax(dim=1).cpu() for part in pairs_N2HWC.split(PAIRS_AT_ONCE)]
    return torch.cat(answers).view(len(frames_BTHWC), -1)


def accuracy(answers_BT: Tensor, actions_BT: Tensor, num_actions: int) -> ActionAccuracy:
    """How often the recognised actions are those taken; both int64 [B, T]."""
    cells = (actions_BT * num_actions + answers_BT).flatten()
    confusion_AA = cells.bincount(minlength=num_actions**2).view(num_actions, num_actions)
    return ActionAccuracy(confusion_AA, (answers_BT == actions_BT).double().mean(0).tolist())


def action_accuracy(
    classifier: GetLogits,
    frames_BTHWC: Tensor,
    actions_BT: Tensor,
    num_actions: int,
    *,
    device: torch.device | str = "cpu",
) -> ActionAccuracy:
    """How often the classifier recognises, in each two consecutive frames, the action between them.

    For a world model the frames are the last given frame and the predicted ones. Asked about the true frames of the
    same windows, it gives the ceiling. Arguments as in `recognise`; actions int64 [B, T − 1].
    """
    return accuracy(recognise(classifier, frames_BTHWC, device=device), actions_BT, num_actions)


def learn_actions(
    train: Sequence[Location], num_actions: int, config: EvaluationConfig, threads: int
) -> TrainedClassifier:
    """`train_classifier` on replay datasets, in the calling process."""
    torch.set_num_threads(threads)
    replay = ReplayMix([ReplayDataset(path) for path in train], [1.0] * len(train))
    return train_classifier(replay, num_actions, seed=config.seed, config=config.inverse_dynamics)


def recognition(
    classifier: TrainedClassifier, windows: Windows, predicted_BTHWC: Tensor, config: EvaluationConfig
) -> dict[str, Tensor]:
    """The actions that led to the predicted frames, and those that a classifier sees in them, [B, T] each."""
    last_given = config.prime_frames - 1
    frames_BTHWC = torch.cat([windows.frames_BTHWC[:, last_given : last_given + 1], predicted_BTHWC], dim=1)
    return {
        "recognised": recognise(classifier.network, frames_BTHWC),
        "taken": windows.actions_BT[:, last_given:],
    }
