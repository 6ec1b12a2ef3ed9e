"""Every test of the world model starts from the same random state, on one thread (faster for models this small)."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
