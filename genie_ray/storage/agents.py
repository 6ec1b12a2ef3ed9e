"""Policies (`policies.saved`), wherever they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from genie_ray.storage.paths import StoredPath
from genie_ray.storage.whole import read_copy
from policies import saved
from policies.saved import POLICY_FILE

if TYPE_CHECKING:
    from ray.rllib.core.rl_module.rl_module import RLModule


def load_policy(directory: StoredPath, **exploration: Any) -> RLModule:
    """See `policies.saved.load_policy`."""
    with read_copy(directory) as local:
        return saved.load_policy(local, **exploration)


def read_policy(directory: StoredPath) -> dict[str, Any]:
    """See `policies.saved.read_policy`."""
    with read_copy(directory, POLICY_FILE) as local:
        return saved.read_policy(local)
