"""Directories that are whole or not there, on a disk and on an in-memory fsspec file system, which has no renaming."""

import os
import re
import uuid
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import MetricsLog, read_metrics
from genie_ray.playing.agents import is_trained, latest
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import RemotePath, StoredPath, entries, found, resolve
from genie_ray.storage.whole import copy_file, local_copy, remove, whole_directory

LAST = "last.json"


@pytest.fixture(params=["disk", "remote"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> StoredPath:
    return tmp_path / "run" if request.param == "disk" else remote_place()


def remote_place() -> RemotePath:
    place = resolve(f"fsspec+memory://{uuid.uuid4().hex}/run")
    assert isinstance(place, RemotePath)
    return place


def fill(directory: Path, text: str) -> None:
    (directory / "deep" / "er").mkdir(parents=True)
    for name in ("a", "deep/er/b", LAST, "z"):
        (directory / name).write_text(f"{text} {name}")


def break_off(path: StoredPath) -> None:
    with whole_directory(path, last=LAST) as directory:
        fill(directory, "broken")
        raise RuntimeError("full")


def read(path: StoredPath) -> dict[str, str]:
    with local_copy(path) as copy:
        return {str(file.relative_to(copy)): file.read_text() for file in copy.rglob("*") if file.is_file()}


def test_a_directory_replaces_the_one_before_and_an_error_leaves_it(place: StoredPath) -> None:
    for text in ("old", "new"):
        with whole_directory(place / "state", last=LAST) as directory:
            fill(directory, text)
        names = ("a", "deep/er/b", LAST, "z")
        assert read(place / "state") == {name: f"{text} {name}" for name in names}
    with pytest.raises(RuntimeError, match="full"):
        break_off(place / "state")
    assert read(place / "state")["a"] == "new a"
    remove(place / "state")
    remove(place / "state")
    assert not (place / "state").exists()


def test_what_was_uploaded_in_part_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection breaks at each of the files in turn, once there was nothing before and once there was."""
    upload = RemotePath.upload
    for before in (False, True):
        for broken in range(4):
            place, uploaded = remote_place() / "state-000001", list[str]()
            if before:
                with whole_directory(place, last=LAST) as directory:
                    fill(directory, "old")

            def upload_until(self: RemotePath, source: Path, broken: int = broken, seen: list[str] = uploaded) -> None:
                if len(seen) == broken:
                    raise OSError("connection lost")
                seen.append(self.name)
                upload(self, source)

            with monkeypatch.context() as patch:
                patch.setattr(RemotePath, "upload", upload_until)
                with pytest.raises(OSError, match="lost"), whole_directory(place, last=LAST) as directory:
                    fill(directory, "new")
            assert len(uploaded) == broken
            assert not (place / LAST).exists()


def test_the_latest_state_is_the_latest_whole_one(place: StoredPath) -> None:
    for number in (5, 20, 100_000):
        with whole_directory(place / f"state-{number:06d}", last="companions.pkl") as directory:
            (directory / "companions.pkl").write_text("")
    (place / "state-100001").mkdir(parents=True, exist_ok=True)
    (place / "state-100001" / "algorithm_state.pkl").write_text("")
    assert latest(place, "state") == place / "state-100000"
    assert latest(place, "best") is None
    assert not is_trained(place)


def test_a_copy_has_the_files_that_were_asked_for(place: StoredPath) -> None:
    with whole_directory(place, last=LAST) as directory:
        fill(directory, "a")
    with local_copy(place, "a", "nothing") as copy:
        assert (copy / "a").read_text() == "a a"
        if isinstance(place, RemotePath):
            assert [file.name for file in copy.iterdir()] == ["a"]
    with local_copy(place / "a") as file:
        assert file.read_text() == "a a"
    if isinstance(place, RemotePath):
        assert not file.exists()
    copy_file(place / "a", place / "c")
    assert found(place, "[ac]") == [place / "a", place / "c"]
    assert entries(place) == [place / name for name in ("a", "c", "deep", LAST, "z")]
    assert entries(place / "nowhere") == []


def test_a_log_goes_on_where_the_last_one_was_saved(place: StoredPath) -> None:
    log = MetricsLog(place, from_iteration=0)
    for iteration in (1, 2, 3):
        log.write(iteration, {"loss": 1.0 / iteration})
    log.flush()
    log.write(4, {"loss": 0.0})  # a kill loses this line where nothing can be appended
    assert [line["iteration"] for line in read_metrics(place / "metrics.jsonl")][:3] == [1, 2, 3]
    log = MetricsLog(place, from_iteration=2)
    log.write(3, {"loss": 5.0})
    log.close()
    assert [(line["iteration"], line["loss"]) for line in read_metrics(place / "metrics.jsonl")] == [
        (1, 1.0), (2, 0.5), (3, 5.0)
    ]  # fmt: skip
    assert len(found(place / "tensorboard", "events.*")) == 2


def test_a_remote_path_is_not_taken_for_a_file_on_this_disk() -> None:
    path = resolve("s3://name:secret@bucket/data?region=eu-central-1")
    with pytest.raises(TypeError):
        os.fspath(path)  # type: ignore[call-overload]
    assert "secret" not in f"{path!s} {path!r}"


def test_what_is_wrong_with_a_checkpoint_names_where_it_is_stored() -> None:
    place = remote_place()
    with pytest.raises(ValueError, match=rf"^{re.escape(str(place))} is not a checkpoint: it has no config.json"):
        checkpoints.read_description(place)
    place.mkdir(parents=True, exist_ok=True)
    (place / "config.json").write_text("{")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(place))}/config.json is not a JSON file"):
        checkpoints.read_description(place)
