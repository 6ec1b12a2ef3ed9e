"""Algorithms whose first worker dies before it has told its spaces.

Ray asks a worker again that it has restarted, so a kill seldom has this effect: here RLlib's error is raised by hand.
"""

from typing import Any

import pytest

from policies.play.starting import STARTS, start_algorithm


class Config:
    """Builds after some failures."""

    def __init__(self, failures: int, *, elsewhere: bool = False) -> None:
        self.failures, self.elsewhere, self.builds = failures, elsewhere, 0

    def build_algo(self) -> str:
        self.builds += 1

        def get_spaces() -> Any:  # as RLlib's `EnvRunnerGroup.get_spaces` ends, if no worker answers
            return [][0]

        if self.builds <= self.failures:
            if self.elsewhere:
                raise IndexError("of something else")
            get_spaces()
        return "an algorithm"


@pytest.mark.parametrize("failures", [0, 1, STARTS - 1])
def test_workers_that_die_while_they_start_are_started_again(failures: int) -> None:
    config: Any = Config(failures)
    assert start_algorithm(config) == "an algorithm"
    assert config.builds == failures + 1


def test_they_are_given_up_in_one_line() -> None:
    config: Any = Config(STARTS)
    with pytest.raises(RuntimeError, match=r"^the rollout workers died 3 times while they started$"):
        start_algorithm(config)
    assert config.builds == STARTS


def test_other_errors_are_not_hidden() -> None:
    config: Any = Config(1, elsewhere=True)
    with pytest.raises(IndexError, match="of something else"):
        start_algorithm(config)
    assert config.builds == 1
