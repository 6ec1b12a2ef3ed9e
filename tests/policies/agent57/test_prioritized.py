"""The prioritised replay: what its rows hold, which sequences there are, eviction, priorities, and its state."""

import copy

import numpy as np
import pytest
from ray.rllib.core.columns import Columns

from policies.agent57.config import Agent57Learning
from policies.agent57.env_runner import Agent57Play
from policies.agent57.module import LAST_ACTION, LAST_INTRINSIC, LAST_REWARD, MEMORY
from policies.agent57.replay import BURNED, INTRINSIC_REWARDS, NUMBER, WEIGHT, PrioritizedSequences

LENGTH, BURN_IN, PERIOD = 6, 2, 3


def learning(**changes: float) -> Agent57Learning:
    given = {
        "sequence_length": LENGTH,
        "burn_in": BURN_IN,
        "period": PERIOD,
        "replay_capacity": 100,
        "learning_starts": 1,
        "batch_size": 64,
        **changes,
    }
    return Agent57Learning(**given)  # type: ignore[arg-type]


def piece(name: str, first: int, steps: int, *, done: bool = False, terminated: bool = False) -> Agent57Play:
    """Steps whose columns show their number; frame t is t, action t is t % 5, and so on."""
    numbers = np.arange(first, first + steps)
    frames = np.broadcast_to(
        np.arange(first, first + steps + 1, dtype=np.uint8)[:, None, None, None], (steps + 1, 1, 1, 1)
    )
    return Agent57Play(
        episode=name,
        first=first,
        frames=frames,
        actions=(numbers % 5).astype(np.int8),
        log_probs=-numbers.astype(np.float32),
        game_rewards=numbers.astype(np.float32) + 0.5,
        rewards=numbers.astype(np.float32) + 0.25,
        infos=[{}] * (steps + 1),
        terminated=terminated,
        truncated=done and not terminated,
        arm=len(name) % 3,
        memory=numbers.astype(np.float16)[:, None],
        errors=np.full(steps, np.nan, np.float32),
    )


def filled(*plays: Agent57Play, **changes: float) -> PrioritizedSequences:
    replay = PrioritizedSequences(learning(**changes), seed=0)
    for play in plays:
        replay.add([play])
    return replay


def test_rows_hold_the_steps_that_they_should() -> None:
    replay = filled(piece("a", 0, 4), piece("a", 4, 7), piece("a", 11, 2, done=True, terminated=True))
    batch = replay.sample()
    starts = set()
    for row in range(64):
        burn = BURN_IN if batch[BURNED][row] else 0
        mask = batch[Columns.LOSS_MASK][row]
        start, steps = int(-batch[Columns.ACTION_LOGP][row][0]), int(mask.sum())
        starts.add(start)
        assert burn == (BURN_IN if start else 0)
        assert mask.tolist() == [t < steps for t in range(LENGTH)]
        numbers = np.arange(start, start + steps)
        np.testing.assert_array_equal(batch[Columns.REWARDS][row][:steps], numbers + 0.5)
        np.testing.assert_array_equal(batch[INTRINSIC_REWARDS][row][:steps], numbers + 0.25)
        np.testing.assert_array_equal(batch[Columns.ACTIONS][row][:steps], numbers % 5)
        np.testing.assert_array_equal(batch[Columns.TERMINATEDS][row][:steps], numbers == 12)
        assert batch[MEMORY][row] == start - burn
        shown = np.arange(start - burn, start + steps + 1)
        place = slice(BURN_IN - burn, BURN_IN + steps + 1)
        np.testing.assert_array_equal(batch[Columns.OBS][row][place].ravel(), shown)
        before = shown - 1
        np.testing.assert_array_equal(batch[LAST_ACTION][row][place], np.where(before < 0, -1, before % 5))
        np.testing.assert_array_equal(batch[LAST_REWARD][row][place], np.where(before < 0, 0, before + 0.5))
        np.testing.assert_array_equal(batch[LAST_INTRINSIC][row][place], np.where(before < 0, 0, before + 0.25))
    assert starts == {0, 3, 6, 9}  # of 13 steps; one from 12 on would hold nothing new


def test_a_sequence_waits_until_it_is_complete() -> None:
    replay = filled(piece("a", 0, 5))
    assert len(replay) == 0
    replay.add([piece("a", 5, 1)])
    assert len(replay) == 1
    replay.add([piece("b", 0, 2, done=True)])  # shorter than a sequence
    assert len(replay) == 2


def test_the_oldest_goes_and_an_unfinished_one_goes_on() -> None:
    replay = filled(piece("a", 0, 10), piece("b", 0, 10), replay_capacity=15)
    assert replay.steps == 10
    replay.add([piece("a", 10, 10)])
    batch = replay.sample()
    assert replay.steps == 10
    assert batch[BURNED].all()  # its step 10 is not the episode's first, and what came before it is unknown
    np.testing.assert_array_equal(-batch[Columns.ACTION_LOGP][:, 0], 13)


def test_burnt_in_frames_of_an_evicted_part_are_not_taken_for_an_episodes_first() -> None:
    replay = filled(piece("a", 0, 10), piece("b", 0, 13), replay_capacity=18, burn_in=PERIOD)
    replay.add([piece("a", 10, 13)])  # of the sequences from 13 and 16 on, the first is burnt in from 10 on
    batch = replay.sample()
    np.testing.assert_array_equal(-batch[Columns.ACTION_LOGP][:, 0], 16)
    np.testing.assert_array_equal(batch[LAST_ACTION][:, 0], 12 % 5)


def test_sequences_are_drawn_by_priority() -> None:
    replay = filled(piece("a", 0, 12), batch_size=4000, importance_exponent=0.5)
    numbers = np.unique(replay.sample()[NUMBER])
    assert len(numbers) == 3
    replay.update_priorities(np.append(numbers, 99), np.array([1.0, 2.0, 4.0, 8.0]))  # 99 was evicted
    batch = replay.sample()
    shares = np.bincount(batch[NUMBER], minlength=3) / 4000
    expected = np.array([1.0, 2, 4]) ** 0.9
    assert shares == pytest.approx(expected / expected.sum(), abs=0.03)
    weights = [batch[WEIGHT][batch[NUMBER] == number][0] for number in numbers]
    assert weights == pytest.approx((expected / expected[0]) ** -0.5, rel=1e-4)
    replay.add([piece("a", 12, 3)])
    drawn = np.bincount(replay.sample()[NUMBER], minlength=4)
    assert abs(drawn[3] - drawn[2]) < 200  # a new one has the highest priority so far


def test_state_brings_back_the_same_draws() -> None:
    replay = filled(piece("a", 0, 12), piece("b", 0, 9, done=True))
    again = PrioritizedSequences(learning(), seed=1)
    again.set_state(copy.deepcopy(replay.get_state()))
    for made in (replay, again):
        made.add([piece("a", 12, 6)])
        made.update_priorities(np.array([0, 1]), np.array([3.0, 0.1]))
    first, second = replay.sample(), again.sample()
    assert first.keys() == second.keys()
    for key, values in first.items():
        np.testing.assert_array_equal(values, second[key])
