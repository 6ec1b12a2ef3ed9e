"""A learner on a CPU that it shares with emulators and a reward model."""

from typing import Any

import torch

from policies.memory import keep_freed_memory


def prepare_learner(learner: Any) -> None:
    """Makes an RLlib TorchLearner on a CPU keep freed memory and use `config.learner_threads` threads, if not 0."""
    if learner._device.type == "cpu":
        keep_freed_memory()
        if threads := getattr(learner.config, "learner_threads", 0):
            torch.set_num_threads(threads)
