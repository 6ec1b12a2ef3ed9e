"""What a cluster can never run is refused in one line, by every command that needs it."""

import time
from typing import Any

import pytest

from genie_ray.base import resources
from genie_ray.base.resources import Role, lacking, placement, require_room
from genie_ray.base.session import RayConfig

NODES: list[dict[str, float]] = [{"CPU": 4, "GPU": 1, "memory": 9.0}, {"CPU": 4}]


def test_what_fits_is_not_refused() -> None:
    roles = [Role(name="train workers", count=2, cpus=3), Role(name="judges", count=1, cpus=2, gpus=1)]
    assert lacking("training", roles, NODES) == ""
    assert placement(roles) == "2 × train workers (3 CPU); 1 × judges (2 CPU, 1 GPU)"


def test_too_much_in_total() -> None:
    roles = [Role(name="train workers", count=8), Role(name="judges", count=1, cpus=0.5)]
    assert lacking("training", roles, NODES) == (
        "training needs 8.5 CPUs (train workers 8, judges 0.5); the cluster has 8"
    )
    assert "needs 2 GPUs (train workers 2); the cluster has 1" in lacking(
        "training", [Role(name="train workers", count=2, gpus=1)], NODES
    )


def test_too_much_for_one_node() -> None:
    assert lacking("training", [Role(name="train workers", cpus=6)], NODES) == (
        "training: each of the train workers needs 6 CPU on one node; "
        "the cluster's nodes have at most 4 CPUs and 1 GPUs"
    )
    assert "needs 1 CPUs" in lacking("training", [Role(name="train workers")], [])


def test_it_is_refused_on_a_real_cluster(ray_session: None) -> None:
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"^training needs 1 GPUs \(train workers 1\); the cluster has 0$"):
        require_room("training", [Role(name="train workers", gpus=1)], RayConfig())
    assert time.monotonic() - begin < 5


def test_what_others_hold_is_told(ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import ray

    @ray.remote(num_cpus=2)
    class Other:
        def ready(self) -> None:
            """It holds its CPUs from now on."""

    total = int(ray.cluster_resources()["CPU"])
    role = Role(name="train workers", count=total - 1)
    monkeypatch.setattr(resources, "GRACE_S", 0.0)
    other = Other.remote()
    ray.get(other.ready.remote())
    require_room("training", [role], RayConfig())
    told = capsys.readouterr().out
    assert told.startswith(f"training needs {total - 1} CPUs, of which {total - 2} are free now: it begins when")
    assert told.count("\n") == 1
    ray.kill(other)  # as a stage's processes end: within the grace, nothing is said
    monkeypatch.setattr(resources, "GRACE_S", 60.0)
    require_room("training", [role], RayConfig())
    assert capsys.readouterr().out == ""


def test_an_autoscaler_is_asked_and_given_time(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[Any] = []
    nodes = [[{"CPU": 1.0}], [{"CPU": 1.0}], [{"CPU": 1.0}, {"CPU": 4.0}]]
    monkeypatch.setattr("ray.autoscaler.sdk.request_resources", lambda bundles: asked.append(bundles))
    monkeypatch.setattr(resources, "node_resources", lambda: nodes.pop(0) if len(nodes) > 1 else nodes[0])
    monkeypatch.setattr(resources, "free_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(resources, "POLL_S", 0.01)
    require_room("training", [Role(name="train workers", count=2, cpus=2)], RayConfig(wait_for_nodes_s=60))
    assert asked == [[{"CPU": 2}, {"CPU": 2}], []]  # the request does not stay behind
    assert "waiting for nodes, 0 of 60 s" in capsys.readouterr().out
    nodes[:] = [[]]
    with pytest.raises(ValueError, match=r"the cluster has 0, after 0.05 s of waiting \(ray.wait_for_nodes_s\)"):
        require_room("training", [Role(name="train workers")], RayConfig(wait_for_nodes_s=0.05))
    assert asked[2:] == [[{"CPU": 1}], []]
