"""Stages in lanes, on a real Ray: what runs beside what, what is said, and how it ends."""

from functools import partial
from pathlib import Path

import pytest

from genie_ray.base.errors import IncompleteError
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.resources import Role
from genie_ray.base.session import RayConfig
from genie_ray.stages import Stage, run_stages
from tests.genie_ray.meeting import die, meet, need, refuse, wait_long


def test_lanes_run_beside_each_other_and_what_follows_needs_all(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    stages = [
        Stage("first", (a,), partial(meet, a, b), part="one", lane="left"),
        Stage("third", (c,), partial(need, a, made=c), part="one", lane="left"),
        Stage("second", (b,), partial(meet, b, a), part="one", lane="right"),
        Stage("last", (d,), partial(need, b, c, made=d), part="two", lane="left"),
    ]
    run_stages(stages, tmp_path, at_once=True)
    said = capsys.readouterr().out
    assert "first │ [waiting] for b\n" in said
    assert "second │ [waiting] for a\n" in said
    assert "── last\n" in said
    log = [(line["stage"], line["event"]) for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert sorted(log) == sorted((stage.name, event) for stage in stages for event in ("start", "end"))
    assert log[-2:] == [("last", "start"), ("last", "end")]
    run_stages(stages, tmp_path, at_once=True)  # nothing is left to do
    assert not capsys.readouterr().out


def test_a_lane_that_fails_stops_the_others_and_says_why(ray_session: None, tmp_path: Path) -> None:
    begun, stopped, never = (tmp_path / name for name in ("begun", "stopped", "never"))
    stages = [
        Stage("long", (begun,), partial(wait_long, begun, stopped), part="one", lane="left"),
        Stage("full", (never,), partial(refuse, begun), part="one", lane="right"),
        Stage("after", (never,), never.touch),
    ]
    with pytest.raises(OSError, match="No space left") as raised:
        run_stages(stages, tmp_path, at_once=True)
    assert raised.value.errno == 28
    assert stopped.exists()
    assert not never.exists()


def test_the_death_of_a_lane_is_told(ray_session: None, tmp_path: Path) -> None:
    begun, stopped, never = (tmp_path / name for name in ("begun", "stopped", "never"))
    stages = [
        Stage("long", (begun,), partial(wait_long, begun, stopped), part="one", lane="left"),
        Stage("killed", (never,), partial(die, begun), part="one", lane="right"),
    ]
    with pytest.raises(IncompleteError, match="a process that ran stages died"):
        run_stages(stages, tmp_path, at_once=True)
    assert stopped.exists()


def test_a_gpu_for_each_learner_must_be_found_by_ray() -> None:
    with pytest.raises(ValueError, match="stages_at_once = True with use_gpu = True: needs learner_apart = True"):
        RayConfig(stages_at_once=True, use_gpu=True)


def test_what_has_no_room_beside_another_runs_after_it(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The session has six CPUs: four and four of processes that wait for each other would wait for ever."""
    first, second = tmp_path / "first", tmp_path / "second"
    stages = [
        Stage(path.name, (path,), path.touch, part="one", lane=path.name, roles=lambda: [Role(name="workers", count=4)])
        for path in (first, second)
    ]
    run_stages(stages, tmp_path, at_once=True)
    said = capsys.readouterr().out
    assert "running stages at once needs 8 CPUs (workers 8); the cluster has 6: they run one after another\n" in said
    assert said.endswith("── first\n── second\n")
