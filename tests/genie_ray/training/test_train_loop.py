"""The training loop's pure parts against hand-computed numbers."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from genie_ray.training.batches import Pieces
from genie_ray.training.best import Best
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.loop import build_optimizer, learning_rate
from genie_ray.training.parallel import Averages
from genie_ray.training.tasks import TASKS, Task

CONFIG = TrainingConfig(
    iterations=110, warmup_iterations=10, warmup_factor=0.5, learning_rate=1.0, final_learning_rate=0.2
)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [(0, 0.5), (5, 0.75), (10, 1.0), (60, 0.6), (35, 0.6 + 0.4 * math.cos(math.pi / 4)), (110, 0.2), (500, 0.2)],
)
def test_learning_rate_warms_up_falls_as_a_cosine_and_stays(iteration: int, rate: float) -> None:
    assert learning_rate(iteration, CONFIG) == pytest.approx(rate)


def test_learning_rate_never_rises_after_warm_up() -> None:
    rates = [learning_rate(iteration, CONFIG) for iteration in range(10, 300)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("step_factor", [0.5, 0.3])
def test_step_schedule_is_pytorchs(step_factor: float) -> None:
    config = TrainingConfig(
        iterations=100, warmup_iterations=0, schedule="step", step_iterations=7, step_factor=step_factor
    )
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=config.learning_rate)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=step_factor)
    for iteration in range(100):
        assert learning_rate(iteration, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_steps_are_counted_from_the_end_of_the_warm_up() -> None:
    config = dataclasses.replace(CONFIG, schedule="step", step_iterations=20)
    assert [learning_rate(iteration, config) for iteration in (5, 10, 29, 30, 49, 50)] == [0.75, 1, 1, 0.5, 0.5, 0.25]


def test_averages_weigh_what_batches_hold() -> None:
    averages = Averages()
    averages.add({"loss": torch.tensor(1.0)}, weight=3)
    averages.add({"loss": torch.tensor(5.0)}, weight=1)
    assert averages.reduce() == {"loss": 2.0}


def test_averaged_psnr_is_that_of_the_pooled_error() -> None:
    """MSE 0.01 and 0.03: pooled 0.02, where the mean of the two PSNRs would be another number."""
    averages = Averages()
    for error in (0.01, 0.03):
        averages.add({"psnr": torch.tensor(-10 * math.log10(error)), "reconstruction_mse": torch.tensor(error)}, 1)
    assert averages.reduce()["psnr"] == pytest.approx(-10 * math.log10(0.02), abs=1e-5)


def test_weight_decay_spares_vectors_and_frozen_weights_are_left_out() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2), torch.nn.Linear(2, 2))
    model[2].requires_grad_(False)
    decayed, spared = build_optimizer(model, CONFIG).param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 3)]
    assert [tuple(p.shape) for p in spared["params"]] == [(2,), (2,), (2,)]
    assert decayed["weight_decay"] == CONFIG.weight_decay
    assert spared["weight_decay"] == 0


def task(kind: str) -> Task:
    return TASKS[kind](TrainingJob(kind=kind, output=Path("out"), dataset=Path("data"), config=CONFIG))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("tokenizer", "reconstruction_mse"),
        ("decoder", "reconstruction_mse"),
        ("dynamics", "prediction_mse"),
        ("genie_redux", "prediction_mse"),
        ("upscaler", "loss"),
    ],
)
def test_the_best_is_chosen_by_what_a_model_is_for(kind: str, name: str) -> None:
    """The second validation has the lower loss, the first the lower error."""
    first, second = ({"loss": loss, name: 0.1 / loss} for loss in (0.5, 0.4))
    first, second = ({**each, "loss": loss} for each, loss in ((first, 0.5), (second, 0.4)))
    best = Best()
    assert best.take(task(kind), first)
    assert best.take(task(kind), second) == (name == "loss")
    assert best == Best(name, min(first[name], second[name]))


def test_without_a_prediction_the_loss_counts() -> None:
    assert task("dynamics").score({"loss": 0.5, "accuracy": 1.0}) == ("loss", 0.5)


def test_a_resumed_training_keeps_its_rule() -> None:
    old = Best.from_state({"best": 0.4})  # as saved when the loss was the only rule
    assert not old.take(task("dynamics"), {"loss": 0.5, "prediction_mse": 0.01})
    assert old.take(task("dynamics"), {"loss": 0.3, "prediction_mse": 0.02})
    assert Best.from_state(old.state_dict()) == old == Best("loss", 0.3)
    assert Best.from_state(Best().state_dict()) == Best()  # saved before the first validation


class SlowLoader:
    """Batches that take a while."""

    episodes = 1

    def __iter__(self) -> Iterator[dict[str, int]]:
        while True:
            time.sleep(0.03)
            yield {"number": 1}

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass

    def weigh(self, weights: Sequence[float]) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_wait_for_batches_is_counted_and_what_is_done_with_them_is_not() -> None:
    pieces = Pieces(lambda number: SlowLoader(), count=2, rank=0, world_size=1)
    for _ in pieces:
        time.sleep(0.2)
    assert 0.06 <= pieces.take_wait() < 0.2
    assert pieces.take_wait() == 0
