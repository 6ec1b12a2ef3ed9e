"""Stages of a run, and running them: one after another, or in lanes beside each other.

A lane is a Ray task that runs its stages in order, on the caller's node. What they print comes to the caller's console,
each line after the name of its stage.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import IO, Any, cast

from genie_ray.base.errors import IncompleteError, cause_of
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import console
from genie_ray.base.resources import Role, lacking, node_resources
from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.replay.writer import read_metadata
from genie_ray.storage.paths import StoredPath

POLL_S = 0.5
GOODBYE_S = 30.0
"""For lanes that are ended early to stop what they started."""

Tell = Callable[[dict[str, Any]], None]
"""Takes a line for the run's metrics.jsonl."""


@dataclass(frozen=True)
class Stage:
    """One step of the loop; it is done when all its artefacts exist."""

    name: str
    artefacts: tuple[StoredPath, ...]
    run: Callable[[], object]
    part: str = ""
    """A part of the run needs all parts before it."""
    lane: str = ""
    """Stages of one part don't need each other if their lanes differ."""
    roles: Callable[[], Sequence[Role]] = tuple
    """Processes that wait for each other, so that lanes run at once only where there is room for those of all."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do; a dataset that lacks games is not done."""
        return all(
            path.is_file() and not (path.name == METADATA_FILE and read_metadata(path.parent).missing)
            for path in self.artefacts
        )


def run_stages(stages: Sequence[Stage], directory: StoredPath, *, at_once: bool) -> None:
    """Runs what is not done. Needs a running Ray, if lanes run at once.

    Args:
        directory: of the run; its metrics.jsonl tells when each stage began and ended.
        at_once: lanes run beside each other; otherwise all stages run in the order given.

    Raises:
        Exception: what a stage raised. Lanes beside it are stopped; each goes on from what it saved, the next time.
        IncompleteError: a lane's process died.
    """

    def tell(entry: dict[str, Any]) -> None:
        _log(directory, entry)

    for _, part in groupby((stage for stage in stages if not stage.done), lambda stage: stage.part):
        pending = list(part)
        lanes = [[stage for stage in pending if stage.lane == name] for name in dict.fromkeys(s.lane for s in pending)]
        if at_once and len(lanes) > 1 and _has_room(lanes):
            _run_lanes(lanes, tell)
        else:
            for stage in pending:
                run_stage(stage, tell)


def run_stage(stage: Stage, tell: Tell) -> None:
    """Runs a stage, and tells when it began and ended."""
    console.print(f"── {stage.name}")
    started = time.monotonic()
    tell({"stage": stage.name, "event": "start", "time": time.time()})
    stage.run()
    assert stage.done, f"stage {stage.name} left no {stage.artefacts}"
    tell({"stage": stage.name, "event": "end", "time": time.time(), "seconds": time.monotonic() - started})


def _has_room(lanes: Sequence[Sequence[Stage]]) -> bool:
    """Whether the cluster has what the largest stages of all lanes need together; says so if not."""
    roles = [role for lane in lanes for role in max((stage.roles() for stage in lane), key=_cpus)]
    missing = lacking("running stages at once", roles, node_resources())
    if missing:
        console.print(f"{missing}: they run one after another", soft_wrap=True, markup=False)
    return not missing


def _cpus(roles: Sequence[Role]) -> float:
    return sum(role.count * role.cpus for role in roles)


def _run_lanes(lanes: Iterable[Sequence[Stage]], tell: Tell) -> None:
    """Runs lanes beside each other; returns when all have ended, or raises what the first to fail raised."""
    import ray
    from ray.exceptions import OutOfMemoryError, WorkerCrashedError
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Its process ends with it, so that what RLlib and PyTorch keep is given back.
    task = ray.remote(max_calls=1)(_run_lane).options(num_cpus=0, max_retries=0, scheduling_strategy=here)
    said = Queue(actor_options={"num_cpus": 0})
    running = [task.remote(lane, said) for lane in lanes]
    try:
        while running:
            ended, running = ray.wait(running, timeout=POLL_S)
            _repeat(said, tell)
            for lane in ended:
                try:
                    ray.get(lane)
                except (WorkerCrashedError, OutOfMemoryError) as error:
                    raise IncompleteError(
                        "a process that ran stages died, killed or out of memory; the same command goes on from what "
                        "was saved"
                    ) from error
                except Exception as error:
                    raise cause_of(error) from error
    finally:
        for lane in running:
            ray.cancel(lane)  # as Ctrl-C would
        _, stuck = ray.wait(running, num_returns=len(running), timeout=GOODBYE_S) if running else ([], [])
        for lane in stuck:
            ray.cancel(lane, force=True)
        _repeat(said, tell)
        said.shutdown()


def _repeat(said: Any, tell: Tell) -> None:
    """Prints and tells what lanes have said since."""
    for what in said.get_nowait_batch(said.qsize()):
        if isinstance(what, str):
            console.print(what, soft_wrap=True, markup=False)
        else:
            tell(what)


def _run_lane(lane: Sequence[Stage], said: Any) -> None:
    """The task of a lane."""
    # By which Ray cancels it; where a shell started the command in the background, signals of this kind are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stage in lane:
        console.file = cast(IO[str], _Lines(stage.name, said.put))
        run_stage(stage, said.put)


class _Lines:
    """A text file whose lines are handed on, each after a name."""

    def __init__(self, name: str, hand_on: Callable[[str], object]) -> None:
        self._name, self._hand_on, self._rest = name, hand_on, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._hand_on(f"{self._name} │ {line}")
        return len(text)

    def flush(self) -> None:
        pass


def _log(directory: StoredPath, entry: dict[str, Any]) -> None:
    file = directory / "metrics.jsonl"
    before = file.read_text() if file.is_file() else ""
    whole = before[: before.rfind("\n") + 1]  # a disk that was full may have cut off the last line
    write_atomically(file, lambda path: path.write_text(f"{whole}{json.dumps(entry)}\n"))
