"""What a command needs of the cluster, checked before anything starts: Ray itself would wait for it for ever."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genie_ray.base.progress import console
from genie_ray.base.session import RayConfig

POLL_S, TELL_EVERY_S = 1.0, 15.0
GRACE_S = 5.0
"""What the processes of the stage before may take to give back their resources."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """Processes that run at the same time, each on one node."""

    name: str  # in the plural, e.g. "train workers"
    count: int = 1
    cpus: float = 1
    gpus: float = 0

    @property
    def resources(self) -> dict[str, float]:
        """What one of them takes."""
        return {"CPU": self.cpus, "GPU": self.gpus}


def learner_role(ray_config: RayConfig) -> Role:
    """An agent's learner, if it has a process of its own."""
    return Role(name="learner", count=int(ray_config.learner_apart), gpus=int(ray_config.use_gpu))


def require_room(what: str, roles: Sequence[Role], ray_config: RayConfig) -> None:
    """Refuses what the cluster can never run, and tells what it cannot run yet. Needs a running Ray.

    Ray waits without a word, as long as it takes, for what others use now; so a line says so. With
    `ray.wait_for_nodes_s`, an autoscaler is asked for what is missing, and given that long.

    Args:
        what: needs it, e.g. "training".

    Raises:
        ValueError: one line that says what is needed, for whom, and what there is.
    """
    missing = lacking(what, roles, node_resources())
    if not missing:
        if _on_a_cluster(ray_config):
            console.print(f"{what}: {placement(roles)}", soft_wrap=True, markup=False)
    elif ray_config.wait_for_nodes_s:
        missing = _wait(what, roles, missing, ray_config.wait_for_nodes_s)
    if missing:
        raise ValueError(missing)
    if busy := _busy(what, roles):
        console.print(busy, soft_wrap=True, markup=False)


def lacking(what: str, roles: Sequence[Role], nodes: Sequence[Mapping[str, float]]) -> str:
    """What these nodes lack, in one line; empty if nothing."""
    there: Counter[str] = Counter()
    for node in nodes:
        there.update(dict(node))
    for resource in ("CPU", "GPU"):
        parts: Counter[str] = Counter()
        for role in roles:  # of one name there may be several
            parts[role.name] += role.count * role.resources[resource]  # type: ignore[assignment]
        if (wanted := sum(parts.values())) > there[resource] + 1e-6:
            listed = ", ".join(f"{name} {amount:g}" for name, amount in parts.items() if amount)
            return f"{what} needs {wanted:g} {resource}s ({listed}); the cluster has {there[resource]:g}"
    for role in roles:
        if role.count and not any(_fits(role, node) for node in nodes):
            most = (
                max((node.get("CPU", 0) for node in nodes), default=0),
                max((node.get("GPU", 0) for node in nodes), default=0),
            )
            return (
                f"{what}: each of the {role.name} needs {_amount(role)} on one node; the cluster's nodes have at most "
                f"{most[0]:g} CPUs and {most[1]:g} GPUs"
            )
    return ""


def placement(roles: Sequence[Role]) -> str:
    """Who will take what."""
    return "; ".join(f"{role.count} × {role.name} ({_amount(role)})" for role in roles if role.count)


def node_resources() -> list[dict[str, float]]:
    """The resources of each living node."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def free_resources() -> dict[str, float]:
    """What nobody uses now, on all nodes together."""
    import ray

    return ray.available_resources()


def _busy(what: str, roles: Sequence[Role]) -> str:
    """What is in use by others, in one line, if it still is when the grace is over; else empty."""
    end = time.monotonic() + GRACE_S
    while True:
        free = free_resources()
        lines = [
            f"{what} needs {wanted:g} {resource}s, of which {free.get(resource, 0):g} are free now: it begins when "
            "others give theirs back (`ray status` shows what is in use)"
            for resource in ("CPU", "GPU")
            if (wanted := sum(role.count * role.resources[resource] for role in roles)) > free.get(resource, 0) + 1e-6
        ]
        if not lines or time.monotonic() > end:
            return lines[0] if lines else ""
        time.sleep(POLL_S / 4)


def _wait(what: str, roles: Sequence[Role], missing: str, limit_s: float) -> str:
    """Asks an autoscaler for nodes; returns what is missing in the end."""
    from ray.autoscaler.sdk import request_resources

    bundles = [{k: v for k, v in role.resources.items() if v} for role in roles for _ in range(role.count)]
    request_resources(bundles=[bundle for bundle in bundles if bundle])
    begin, told = time.monotonic(), 0.0
    try:
        while missing and (waited := time.monotonic() - begin) < limit_s:
            if waited >= told:
                told = waited + TELL_EVERY_S
                console.print(
                    f"{missing}; waiting for nodes, {waited:.0f} of {limit_s:g} s", soft_wrap=True, markup=False
                )
            time.sleep(POLL_S)
            missing = lacking(what, roles, node_resources())
    finally:
        request_resources(bundles=[])  # what stays asked for, an autoscaler never gives back
    return f"{missing}, after {limit_s:g} s of waiting (ray.wait_for_nodes_s)" if missing else ""


def _fits(role: Role, node: Mapping[str, float]) -> bool:
    return all(node.get(resource, 0) + 1e-6 >= amount for resource, amount in role.resources.items())


def _amount(role: Role) -> str:
    return f"{role.cpus:g} CPU" + (f", {role.gpus:g} GPU" if role.gpus else "")


def _on_a_cluster(ray_config: RayConfig) -> bool:
    import os

    return bool(ray_config.address or os.environ.get("RAY_ADDRESS"))
