"""The intrinsic reward: kernels by hand, memories, lifelong novelty, and features that learn what actions control."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.agent57.bandit import SlidingWindowBandit
from policies.agent57.config import Agent57Novelty
from policies.agent57.ladders import betas, ngu_gammas
from policies.agent57.novelty import Curiosity, EpisodicMemory, NoveltyNets, RunningMean, episodic_reward, modulation

PUBLISHED = Agent57Novelty()
SMALL = Agent57Novelty(filters=((8, 4, 2),), features=8, lifelong_features=8, hidden=32)


@pytest.mark.parametrize(
    ("distances", "expected"),
    [
        (np.zeros(10), 0.316128),
        (np.ones(10), 30.535814),
        (np.r_[0.0, np.ones(9)], 0.998549),
        (np.full(10, 4.0), 59.428),
        (np.full(10, 0.008), 0.316128),
        (np.full(10, 0.009), 1.04771),
    ],
)
def test_episodic_reward_by_hand(distances: np.ndarray, expected: float) -> None:
    assert episodic_reward(distances, 1.0, PUBLISHED) == pytest.approx(expected, rel=1e-4)


def test_too_similar_frames_pay_nothing() -> None:
    strict = Agent57Novelty(max_similarity=3.0)
    assert episodic_reward(np.zeros(10), 1.0, strict) == 0
    assert episodic_reward(np.zeros(10), 1.0, PUBLISHED) > 0  # 8 is never reached with ten neighbours


def test_a_memory_pays_for_what_it_does_not_hold() -> None:
    memory = EpisodicMemory(Agent57Novelty(neighbours=2, features=3), RunningMean())
    rng = np.random.default_rng(0)
    first = [memory.reward(rng.normal(size=3).astype(np.float32)) for _ in range(2)]
    assert first == [0.0, 0.0]  # fewer frames than neighbours
    new = [memory.reward(rng.normal(size=3).astype(np.float32)) for _ in range(300)]  # beyond the first allocation
    stale = np.full(3, 0.1, np.float32)
    repeated = [memory.reward(stale) for _ in range(5)]
    assert repeated[-1] < 0.2 * np.median(new)


def test_a_memory_forgets_the_oldest_frames_at_its_limit() -> None:
    memory = EpisodicMemory(Agent57Novelty(neighbours=1, features=1, memory=3), RunningMean())
    for value in (0.0, 1.0, 2.0, 3.0):  # 0 is forgotten
        memory.reward(np.array([value], np.float32))
    assert memory.reward(np.array([0.0], np.float32)) > memory.reward(np.array([3.0], np.float32))


def test_features_of_any_size_pay_alike() -> None:
    """Features grow a thousandfold while they are learned; an episode keeps those of its beginning."""
    torch.manual_seed(0)
    frames = torch.randint(256, (40, 1, 16, 16, 3), dtype=torch.uint8)
    small = NoveltyNets((16, 16, 3), 3, replace(SMALL, lifelong=False))
    large = copy.deepcopy(small)
    large.embed[-1].weight.data *= 50  # type: ignore[operator, union-attr]
    large.embed[-1].bias.data *= 50  # type: ignore[operator, union-attr]
    for nets in (small, large):
        nets.losses(frames[:36, 0].unflatten(0, (6, 6)), torch.zeros(6, 5), torch.ones(6, 5, dtype=torch.bool))
    assert float(large.spread) == pytest.approx(2500 * float(small.spread), rel=1e-3)
    curiosity, paid = Curiosity(), []
    for index, frame in enumerate(frames.numpy()):
        rewards = [curiosity.step([name], [index == 0], frame, nets)[0] for name, nets in (("a", small), ("b", large))]
        paid.append(rewards)
    before, after = np.transpose(paid)[:, 12:]  # the first ones share a mean that is still young
    np.testing.assert_allclose(before, after, rtol=0.1)
    assert min(before) > 1


def test_lifelong_modulation() -> None:
    mean, std = torch.tensor(2.0), torch.tensor(0.5)
    alpha = modulation(torch.tensor([1.0, 2.0, 3.0, 4.0, 9.0]), mean, std).clamp(1, 5)
    assert alpha.tolist() == [1, 1, 3, 5, 5]
    assert modulation(torch.tensor([3.0]), torch.tensor(0.0), torch.tensor(0.0)).tolist() == [1]


def test_familiar_frames_lose_their_lifelong_novelty() -> None:
    torch.manual_seed(0)
    nets = NoveltyNets((16, 16, 3), 3, SMALL)
    optimizer = torch.optim.Adam(nets.predictor.parameters(), lr=1e-3)
    familiar = torch.zeros(8, 6, 16, 16, 3, dtype=torch.uint8)
    familiar[:, :, :4, :4] = torch.randint(256, (8, 6, 4, 4, 3), dtype=torch.uint8)
    new = 255 - familiar[:, 0]
    mask = torch.ones(8, 5, dtype=torch.bool)
    for _ in range(80):
        optimizer.zero_grad()
        nets.losses(familiar, torch.zeros(8, 5), mask)["lifelong"].backward()
        optimizer.step()
    assert nets.lifelong(new).mean() > 4.5
    assert nets.lifelong(familiar[:, 0]).mean() < 2.5


def test_new_scenes_of_a_familiar_kind_are_told_early() -> None:
    """The predictor's error falls a hundredfold at first; the spread that it is compared with must follow."""
    torch.manual_seed(0)
    nets = NoveltyNets((16, 16, 3), 3, SMALL)
    optimizer = torch.optim.Adam(nets.predictor.parameters(), lr=5e-4, eps=1e-8)

    def scenes(columns: torch.Tensor) -> torch.Tensor:
        """Each a bar at a place, on one background."""
        frames = torch.zeros(*columns.shape, 16, 16, 3, dtype=torch.uint8)
        places = torch.arange(16) - columns[..., None]
        frames[..., 8:12, :, 0] = (255 * (places.abs() < 2)).to(torch.uint8)[..., None, :]
        return frames

    mask = torch.ones(8, 5, dtype=torch.bool)
    for _ in range(150):
        optimizer.zero_grad()
        nets.losses(scenes(torch.randint(2, 8, (8, 6))), torch.zeros(8, 5), mask)["lifelong"].backward()
        optimizer.step()
    assert nets.lifelong(scenes(torch.arange(2, 8))).mean() < 1.7
    assert nets.lifelong(scenes(torch.arange(11, 14))).mean() > 3


def test_features_learn_what_the_actions_control() -> None:
    torch.manual_seed(0)
    nets = NoveltyNets((16, 16, 1), 2, SMALL)
    optimizer = torch.optim.Adam([*nets.embed.parameters(), *nets.inverse.parameters()], lr=2e-3)

    def play(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A dot that actions move left or right, beside noise that they do not move."""
        actions = torch.randint(2, (rows, 5))
        columns = 8 + torch.cat([torch.zeros(rows, 1, dtype=torch.long), (2 * actions - 1).cumsum(1)], dim=1)
        frames = torch.zeros(rows, 6, 16, 16, 1, dtype=torch.uint8)
        frames[:, :, 8:] = torch.randint(256, (rows, 6, 8, 16, 1), dtype=torch.uint8)
        frames[torch.arange(rows)[:, None], torch.arange(6), 4, columns] = 255
        return frames, actions

    for _ in range(250):
        optimizer.zero_grad()
        loss = nets.losses(*play(32), torch.ones(32, 5, dtype=torch.bool))["inverse_dynamics"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 < np.log(2)


def test_four_arms_solve_a_corridor_that_greed_alone_never_does() -> None:
    """Without networks: position and furthest position as state, reward 1 at the far end of a corridor of 12."""
    solved = [corridor(arms, seed) for arms in (1, 4) for seed in range(2)]
    assert solved == [False] * 2 + [True] * 2


def corridor(arms: int, seed: int, *, length: int = 12, limit: int = 30, episodes: int = 800) -> bool:
    """Whether arm 0, greedy, reaches the end after training: bandit, kernel, split and ladders together."""
    rng = np.random.default_rng(seed)
    settings = Agent57Novelty(neighbours=3, features=1)
    weights = betas(arms, 0.3)
    gammas = ngu_gammas(arms, 0.99, 0.97)
    bandit = SlidingWindowBandit(arms, window=40, epsilon=0.5, bonus=1.0, scaled=True)
    q = np.zeros((2, arms, length, length, 2))  # extrinsic and intrinsic, by position, furthest, action
    mean, scale = RunningMean(), RunningMean()

    def move(position: int, furthest: int, action: int) -> tuple[int, int]:
        position = min(max(position + 2 * action - 1, 0), length - 1)
        return position, max(furthest, position)

    for _ in range(episodes):
        arm, memory, state, total = bandit.choose(rng), EpisodicMemory(settings, mean), (0, 0), 0.0
        memory.reward(np.zeros(1, np.float32))
        for _ in range(limit):
            values = q[0, arm][state] + weights[arm] * q[1, arm][state]
            # On a tie the first one, as a network that knows nothing also has its favourite.
            action = int(rng.integers(2)) if rng.random() < 0.1 else int(np.argmax(values))
            after = move(*state, action)
            end = after[0] == length - 1
            novelty = memory.reward(np.array([after[0]], np.float32))
            scale.add(novelty)
            rewards = (float(end), novelty / max(scale.value, 1e-6))
            for j in range(arms):  # all arms learn from all play
                shared = int(np.argmax(q[0, j][after] + weights[j] * q[1, j][after]))
                for stream in (0, 1):
                    target = rewards[stream] + (0 if end else gammas[j] * q[stream, j][after][shared])
                    q[stream, j][state][action] += 0.2 * (target - q[stream, j][state][action])
            state, total = after, total + float(end)
            if end:
                break
        bandit.add(arm, total)
    state = (0, 0)
    for _ in range(limit):
        if q[0, 0][state][0] == q[0, 0][state][1]:
            return False
        state = move(*state, int(np.argmax(q[0, 0][state])))
        if state[0] == length - 1:
            return True
    return False
