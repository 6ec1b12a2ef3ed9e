"""What Grafana shows: figures that stages log, and names under which this Ray reports."""

import json
import re
import time
import urllib.request
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import MetricsLog
from genie_ray.base.progress import publish

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "clusters" / "grafana.json"


def names() -> set[str]:
    """All metrics of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = {name for panel in panels for each in panel["targets"] for name in re.findall(r"ray_\w+", each["expr"])}
    assert len(found) > 15
    return found


def test_every_figure_of_ours_is_logged_by_some_stage() -> None:
    rooms = ("genie_ray", "policies", "world_model")
    code = "".join(path.read_text() for room in rooms for path in ROOT.glob(f"{room}/**/*.py"))
    for name in names():
        if name.startswith("ray_genie_ray_"):
            key = name.removeprefix("ray_genie_ray_").removeprefix("validation_")
            assert f'"{key}"' in code, name


@pytest.mark.slow
def test_figures_reach_the_metrics_endpoint_under_these_names(ray_session: None, tmp_path: Path) -> None:
    import ray

    publish("train dynamics", {"progress": 0.25})
    log = MetricsLog(tmp_path / "demo" / "dynamics", from_iteration=0)
    log.write(1, {"loss": 1.5, "action share/0": 0.75})
    log.close()
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    wanted = {name for name in names() if name.startswith(("ray_node", "ray_object_store")) and "gpu" not in name}
    end = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        values = {line.split("{")[0]: line for line in lines if not line.startswith("#")}
        if {"ray_genie_ray_loss", *wanted} <= set(values):
            break
        assert time.monotonic() < end, wanted - set(values)
        time.sleep(1)
    for name, run, value in (
        ("progress", "train dynamics", "0.25"),
        ("loss", "demo/dynamics", "1.5"),
        ("action_share_0", "demo/dynamics", "0.75"),
    ):
        found = [line for line in lines if line.startswith(f"ray_genie_ray_{name}{{") and f'run="{run}"' in line]
        assert [line.split()[-1] for line in found] == [value]
