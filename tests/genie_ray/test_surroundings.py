"""What surrounds a command: names with any letters, a disk that is full, a clock that jumps."""

import ast
import errno
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from ray.exceptions import RayTaskError

from genie_ray.base import progress
from genie_ray.base.errors import cause_of
from genie_ray.base.files import told_if_full, write_atomically
from genie_ray.base.metrics_log import MetricsLog, read_metrics
from genie_ray.base.settings import check_unchanged, keep_settings
from genie_ray.cli import main
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.writer import write_shard
from genie_ray.stages import Stage, run_stages
from tests.genie_ray.tiny_world import guided_model, tiny_dataset
from world_model import checkpoint

ROOT = Path(__file__).parents[2]
LETTERS = "Über Größe ✓ и 子"


def test_figures_of_a_run_whose_directory_has_any_letters_are_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's metrics are ASCII: such a name ended the training that logged under it."""
    from ray.util import metrics

    told: list[dict[str, str]] = []
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(metrics.Gauge, "set", lambda self, value, tags: told.append(tags))
    progress.publish(
        f"{LETTERS}/dynamics", {f"cells/{LETTERS}": 1.0}
    )  # the gauge itself is Ray's, with its description
    assert told == [{"run": "%C3%9Cber Gr%C3%B6%C3%9Fe %E2%9C%93 %D0%B8 %E5%AD%90/dynamics"}]
    assert progress._ascii("runs/demo, 100 %") == "runs/demo, 100 %"


def test_artefacts_in_a_directory_with_any_letters(tmp_path: Path) -> None:
    directory = tmp_path / LETTERS
    data = tiny_dataset(directory / "play")
    assert ReplayDataset(directory / "play").read(data.episodes[0]).frames.any()
    checkpoint.save(guided_model(), directory / "model", provenance={})
    assert checkpoint.read_description(directory / "model")["weights_sha256"]
    keep_settings(directory, {"name": LETTERS})
    check_unchanged(directory, {"name": LETTERS})
    MetricsLog(directory / "log", from_iteration=0).close()


@contextmanager
def disk_with(size: int) -> Iterator[None]:
    """No file can grow beyond a size: the write that would, fails half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def save_settings(directory: Path, number: int) -> None:
    keep_settings(directory, {"values": [number] * 5_000})


def save_model(directory: Path, number: int) -> None:
    checkpoint.save(guided_model(), directory / "model", provenance={"number": number})


def save_shard(directory: Path, number: int) -> None:
    data = ReplayDataset(directory / "play") if number else tiny_dataset(directory / "play")
    if number:
        write_shard(data.root, data.episodes[0].game, "00000", [data.read(data.episodes[0])])


@pytest.mark.parametrize("save", [save_settings, save_model, save_shard])
def test_what_was_there_outlives_a_write_that_fails(save: Callable[[Path, int], None], tmp_path: Path) -> None:
    save(tmp_path, 0)
    before = contents(tmp_path)
    with pytest.raises(Exception, match=r"File too large|too large"), disk_with(1_000):
        save(tmp_path, 1)
    assert contents(tmp_path) == before
    save(tmp_path, 1)  # with room again
    assert [path for path in tmp_path.rglob("*") if "tmp" in path.name or "saving" in path.name] == []


def test_a_log_is_not_lost_when_a_training_resumes_on_a_full_disk(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, from_iteration=0)
    for iteration in range(1, 101):
        log.write(iteration, {"loss": 0.5})
    log.close()
    with pytest.raises(OSError, match="File too large"), disk_with(1_000):
        MetricsLog(tmp_path, from_iteration=90)
    assert [line["iteration"] for line in read_metrics(tmp_path / "metrics.jsonl")] == list(range(1, 101))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def log_much(directory: Path) -> None:
    log = MetricsLog(directory, from_iteration=0)
    for iteration in range(1, 3_000):
        log.write(iteration, {"loss": 0.5})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's
@pytest.mark.parametrize(
    "write",
    [
        lambda place: checkpoint.save(guided_model(), place / "model", provenance={}),
        lambda place: torch.save(torch.zeros(50_000), place / "state.pt"),
        lambda place: write_atomically(place / "settings.json", lambda path: path.write_text("x" * 100_000)),
        lambda place: tiny_dataset(place / "play", lengths=(400,)),
        log_much,
    ],
)
def test_a_full_disk_is_told_in_one_line_with_the_directory(write: Callable[[Path], None], small_disk: Path) -> None:
    """Safetensors raises an error of its own, PyTorch a RuntimeError that names no reason, and others name no file."""
    place = small_disk / "run"
    place.mkdir()
    with pytest.raises(OSError, match="disk full") as error, told_if_full(place):
        write(place)
    assert str(place) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_error_that_was_raised_again_from_its_wrapper_is_its_own_cause(small_disk: Path) -> None:
    """A collection raises a full disk of its workers so. Looking for the cause went in a circle."""
    full = OSError(errno.ENOSPC, f"disk full, not written: {small_disk}/shard-00000.parquet")
    wrapper = RayTaskError("play", "", full)
    assert cause_of(wrapper) is full
    with pytest.raises(OSError, match=r"not written: .*parquet$"), told_if_full(small_disk):
        raise full from wrapper
    assert cause_of(full) is full
    assert cause_of(wrapper) is full


def test_other_errors_are_told_as_they_are_on_a_full_disk_too(small_disk: Path) -> None:
    with pytest.raises(ValueError, match="no such game"), told_if_full(small_disk / "run"):
        raise ValueError("no such game")
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "ballast").write_bytes(bytes(100_000))
    with pytest.raises(ValueError, match="no such game"), told_if_full(small_disk / "run"):
        raise ValueError("no such game")


def test_a_line_that_a_full_disk_cut_off_does_not_spoil_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"stage": "first", "event": "start"}\n{"stage": "first", "ev')
    made = tmp_path / "made"
    run_stages([Stage("play", (made,), made.touch)], tmp_path, at_once=False)
    assert [line["stage"] for line in read_metrics(tmp_path / "metrics.jsonl")] == ["first", "play", "play"]


def test_the_length_of_a_stage_does_not_follow_the_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = iter([2e9, 1e9])  # it is set back by thirty years
    monkeypatch.setattr("time.time", lambda: next(clock))
    made = tmp_path / "made"
    run_stages([Stage("play", (made,), made.touch)], tmp_path, at_once=False)
    begun, ended = read_metrics(tmp_path / "metrics.jsonl")
    assert (begun["time"], ended["time"]) == (2e9, 1e9)
    assert 0 <= ended["seconds"] < 60


def test_nothing_else_reads_the_clock_that_can_jump() -> None:
    """Durations and time limits are of a clock that only goes on: `time.monotonic` or `time.perf_counter`."""
    reads = [
        path.name
        for folder in ("genie_ray", "policies", "world_model")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.time", "time.time_ns", "datetime.now")
    ]
    # When a stage began and ended, or a figure was sent to MLflow, for people; and what tells the recordings of several
    # sessions apart.
    assert reads == ["mlflow_run.py", "stages.py", "stages.py", "recording.py"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux lets nobody create a directory in /proc")
def test_a_directory_that_cannot_be_written_to_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tiny_dataset(tmp_path / "play").root
    monkeypatch.setattr("sys.argv", ["genie-ray", "data", "convert", str(data), "/proc/out", "--to", "png"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"error: \[Errno \d+\] .*: '/proc/out", line)
