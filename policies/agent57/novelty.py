"""The intrinsic reward of Never Give Up (Badia et al. 2020a, 2002.06038): episodic times lifelong novelty.

Axis letters: B batch, T steps, S = T + 1 frames, H W C frame, F features, M remembered frames, A actions.
"""

import copy
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from policies.agent57.config import Agent57Novelty
from policies.torso import scale_frames, strided_convolutions

FORGETTING_DISTANCES = 0.001
"""Of the running mean of distances, for each new one; ours: the published one never forgets."""
FORGETTING = 0.1
"""Of the statistics of lifelong errors and of features, for each batch; ours, too. Errors fall a hundredfold within
twenty updates, and features grow as fast; a spread of errors that remembers its beginning makes all look familiar."""


class NoveltyNets(nn.Module):
    """The features that frames are compared by, and the error that tells how new a frame is altogether.

    Features are controllable ones: an action must be told from those of the frames before and after it. Lifelong
    novelty is the error with which a network predicts a fixed random one (RND, Burda et al. 2018), in standard
    deviations.
    """

    def __init__(self, frame_shape: tuple[int, int, int], actions: int, settings: Agent57Novelty) -> None:
        super().__init__()
        self.settings = settings

        def features(count: int) -> nn.Sequential:
            layers, width = strided_convolutions(frame_shape, settings.filters)
            return nn.Sequential(*layers, nn.Linear(width, count))

        self.embed = features(settings.features)
        self.inverse = nn.Sequential(
            nn.Linear(2 * settings.features, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, actions)
        )
        self.spread: Tensor  # mean squared distance between the features of learned frames; 0 before there are any
        self.error_mean: Tensor
        self.error_variance: Tensor
        self.seen: Tensor
        self.register_buffer("spread", torch.zeros(()))
        if settings.lifelong:
            self.predictor, self.fixed = features(settings.lifelong_features), features(settings.lifelong_features)
            self.fixed.requires_grad_(False)
            self.register_buffer("error_mean", torch.zeros(()))
            self.register_buffer("error_variance", torch.zeros(()))
            self.register_buffer("seen", torch.zeros(()))

    def lifelong(self, frames_BHWC: Tensor) -> Tensor:
        """min(max(α, 1), L) [B], with α = 1 + (error − mean) / standard deviation; 1 without lifelong novelty."""
        if not self.settings.lifelong:
            return torch.ones(len(frames_BHWC))
        alpha_B = modulation(self._errors(scale_frames(frames_BHWC)), self.error_mean, self.error_variance.sqrt())
        return alpha_B.clamp(1.0, self.settings.max_lifelong)

    def losses(self, frames_BSHWC: Tensor, actions_BT: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the actions, nats, and error of prediction; updates the statistics of that error."""
        shape = frames_BSHWC.shape[:2]
        pixels = scale_frames(frames_BSHWC.flatten(0, 1))
        features_BSF = self.embed(pixels).unflatten(0, shape)
        logits_BTA = self.inverse(torch.cat([features_BSF[:, :-1], features_BSF[:, 1:]], dim=-1))
        entropies_BT = nn.functional.cross_entropy(
            rearrange(logits_BTA, "b t a -> b a t"), actions_BT.long(), reduction="none"
        )
        losses = {"inverse_dynamics": _mean(entropies_BT, mask_BT)}
        self._note_features(features_BSF[:, 1:][mask_BT].detach())
        if self.settings.lifelong:
            errors_BT = self._errors(pixels).unflatten(0, shape)[:, 1:]
            losses["lifelong"] = _mean(errors_BT, mask_BT)
            self._note(errors_BT.detach()[mask_BT])
        return losses

    def _errors(self, pixels_BCHW: Tensor) -> Tensor:
        """Mean squared error of the prediction [B]."""
        return (self.predictor(pixels_BCHW) - self.fixed(pixels_BCHW)).square().mean(-1)

    @torch.no_grad()
    def _note_features(self, features_NF: Tensor) -> None:
        if len(features_NF) > 1:
            found = 2 * features_NF.var(dim=0, correction=0).sum()
            self.spread += (FORGETTING if self.spread > 0 else 1.0) * (found - self.spread)

    @torch.no_grad()
    def _note(self, errors: Tensor) -> None:
        if not len(errors):
            return
        self.seen += 1
        rate = torch.maximum(1 / self.seen, torch.tensor(FORGETTING))
        difference = errors.mean() - self.error_mean
        self.error_variance.mul_(1 - rate).add_(rate * (errors.var(correction=0) + (1 - rate) * difference**2))
        self.error_mean += rate * difference


def modulation(error: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """α = 1 + (error − mean) / standard deviation; 1 before there are any statistics."""
    return torch.where(std > 0, 1 + (error - mean) / std.clamp(min=1e-12), 1.0)


class RunningMean:
    """Mean of a stream, which forgets slowly."""

    def __init__(self) -> None:
        self.value, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += max(1 / self.count, FORGETTING_DISTANCES) * (value - self.value)


class EpisodicMemory:
    """The features of an episode's frames.

    Args:
        settings: of the reward.
        mean_distance: running mean of squared distances to near neighbours, shared by episodes.
        spread: in which squared distances are measured: the features of episodes that began at other times may be a
            thousand times as large.
    """

    def __init__(self, settings: Agent57Novelty, mean_distance: RunningMean, spread: float = 1.0) -> None:
        self._settings, self._mean, self._spread = settings, mean_distance, spread
        self._features_MF = np.zeros((0, settings.features), np.float32)
        self._count = 0

    def reward(self, features_F: np.ndarray) -> float:
        """The episodic reward of a frame, which is then remembered; 0 while there are too few frames to compare."""
        known_MF = self._features_MF[: min(self._count, self._settings.memory)]
        neighbours, reward = self._settings.neighbours, 0.0
        if len(known_MF) >= neighbours:
            distances_M = np.square(known_MF - features_F).sum(-1) / self._spread
            nearest = np.partition(distances_M, neighbours - 1)[:neighbours]
            self._mean.add(float(nearest.mean()))
            reward = episodic_reward(nearest, self._mean.value, self._settings)
        self._remember(features_F)
        return reward

    def _remember(self, features_F: np.ndarray) -> None:
        size, limit = len(self._features_MF), self._settings.memory
        if self._count >= size and size < limit:
            larger = min(max(2 * size, 256), limit)
            self._features_MF = np.concatenate(
                [self._features_MF, np.zeros((larger - size, self._settings.features), np.float32)]
            )
        self._features_MF[self._count % limit] = features_F
        self._count += 1


def episodic_reward(squared_distances: np.ndarray, mean_distance: float, settings: Agent57Novelty) -> float:
    """1 / (√ΣK + c), with kernels K = κ / (d + κ) of distances d = max(d² / mean − ξ, 0); 0 beyond a similarity."""
    scaled = squared_distances / mean_distance if mean_distance > 0 else np.zeros_like(squared_distances)
    kernels = settings.kernel / (np.maximum(scaled - settings.tolerance, 0) + settings.kernel)
    similarity = float(np.sqrt(kernels.sum())) + settings.pseudo_count
    return 0.0 if similarity > settings.max_similarity else 1 / similarity


class EpisodeNovelty:
    """The intrinsic reward along one episode.

    The features' network is the one from its beginning: were it exchanged, all remembered frames would look new.

    Args:
        embed: frames [B, C, H, W] → features [B, F].
        memory: empty.
    """

    def __init__(self, embed: Any, memory: EpisodicMemory) -> None:
        self.embed, self._memory = embed, memory
        self.rewards: list[float] = []  # of the frames after the first

    def begin(self, features_F: np.ndarray) -> None:
        """Remembers the first frame, which nothing led to."""
        self._memory.reward(features_F)

    def step(self, features_F: np.ndarray, lifelong: float) -> float:
        """The reward of the step that led to this frame."""
        self.rewards.append(self._memory.reward(features_F) * lifelong)
        return self.rewards[-1]


class Curiosity:
    """The intrinsic rewards of several episodes, step by step.

    One running mean of distances serves all of them, in units of the spread of each one's features; each has its own
    memory, and the features of its beginning.
    """

    def __init__(self) -> None:
        self.episodes: dict[str, EpisodeNovelty] = {}
        self._untrained, self._mean_distance = RunningMean(), RunningMean()  # the former without units

    @torch.no_grad()
    def step(self, names: list[str], begins: list[bool], frames: np.ndarray, nets: NoveltyNets) -> list[float]:
        """Takes the newest frame of each episode, uint8 [B, H, W, C]; returns the rewards of the steps that led there.

        Args:
            names: of the episodes.
            begins: whether the frame is its episode's first; its reward is 0.
        """
        frames_BHWC = torch.from_numpy(frames)
        lifelong = nets.lifelong(frames_BHWC).tolist()
        rewards = []
        for index, (name, begin) in enumerate(zip(names, begins, strict=True)):
            if begin:
                spread = float(nets.spread)
                mean = self._mean_distance if spread else self._untrained
                memory = EpisodicMemory(nets.settings, mean, spread or 1.0)
                self.episodes[name] = EpisodeNovelty(copy.deepcopy(nets.embed), memory)
            episode = self.episodes[name]
            features_F = episode.embed(scale_frames(frames_BHWC[index : index + 1]))[0].numpy()
            if begin:
                episode.begin(features_F)
            rewards.append(0.0 if begin else episode.step(features_F, lifelong[index]))
        return rewards


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)
