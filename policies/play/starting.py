"""Starting an algorithm whose runners may die before they have begun."""

import logging
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

logger = logging.getLogger(__name__)
STARTS = 3


def start_algorithm(config: "AlgorithmConfig") -> Any:
    """`config.build_algo()`, again if the first remote runner dies before it has told its spaces.

    Raises:
        RuntimeError: it dies each time.
    """
    deaths = 0
    while True:
        try:
            return config.build_algo()
        except IndexError as error:  # RLlib takes the first of no answers
            if traceback.extract_tb(error.__traceback__)[-1].name != "get_spaces":
                raise
            deaths += 1
            if deaths == STARTS:
                raise RuntimeError(f"the rollout workers died {STARTS} times while they started") from error
            logger.warning("a rollout worker died while it started; all are started again")
