"""Checkpoints on a stand-in hub, with the real client."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from hub_server import TOKEN, Hub

from genie_ray import cli
from genie_ray.sharing.hub import NEEDS_CLIENT, pull, push
from genie_ray.training.card import model_card
from tests.genie_ray.tiny_world import guided_model
from world_model import checkpoint

REPO = "someone/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running stand-in, which the client is pointed at."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs huggingface_hub (extra: hub)")
    hub = Hub()
    server = uvicorn.Server(uvicorn.Config(hub.app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    address = f"http://{host}:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)  # HF_ENDPOINT
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks git LFS, as any hub does
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", host)
    yield hub
    server.should_exit = True
    thread.join(30)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = guided_model()
    checkpoint.save(model, tmp_path / "model", provenance={"steps": 3}, card=model_card(model, {"steps": 3}))
    (tmp_path / "model" / "optimizer.pt").write_bytes(b"not to be shared")
    return tmp_path / "model"


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_what_is_pushed_comes_back_and_its_commits_can_be_named(hub: Hub, model: Path, tmp_path: Path) -> None:
    address = push(model, REPO, private=True)
    assert REPO in hub.private
    first = address.rsplit("/", 1)[-1]
    assert pull(REPO, tmp_path / "new" / "pulled") == first
    shared = {name: content for name, content in contents(model).items() if name != "optimizer.pt"}
    assert contents(tmp_path / "new" / "pulled") == shared
    assert hub.uploads == 1

    changed = guided_model()
    checkpoint.save(changed, model, provenance={"steps": 4})
    second = push(model, REPO).rsplit("/", 1)[-1]
    assert pull(REPO, tmp_path / "second") == second
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "second")) == checkpoint.weights_hash(changed)
    pull(REPO, tmp_path / "first", revision=first)
    assert contents(tmp_path / "first") == shared
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".pulling")]


def test_a_damaged_download_is_refused_and_leaves_nothing(hub: Hub, model: Path, tmp_path: Path) -> None:
    push(model, REPO)
    weights = (model / "model.safetensors").read_bytes()
    config = (model / "config.json").read_bytes()
    swapped = bytearray(weights)
    swapped[-1] ^= 1
    for name, content, message in (
        ("model.safetensors", bytes(swapped), "model.safetensors is damaged: its hash is .*, the hub lists"),
        ("config.json", config.replace(b"3", b"4", 1), "config.json is damaged: its hash is"),
        ("model.safetensors", weights[:-100], ""),
        ("README.md", b"---\n---\nother", "README.md is damaged"),
    ):
        hub.damage = {name: content}
        with pytest.raises(ValueError, match=f"hub, {REPO}: .*{message}") as error:
            pull(REPO, tmp_path / "out")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / ".out.pulling").exists()


def test_a_checkpoint_that_was_damaged_before_it_came_to_the_hub_is_refused(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    """The hub's own hashes are right, the checkpoint's are not."""
    push(model, REPO)
    commit = hub.repos[REPO][-1]
    commit["tree"]["config.json"]["content"] = commit["tree"]["config.json"]["content"].replace(
        b'"steps": 3', b'"steps": 9'
    )
    with pytest.raises(ValueError, match=r"hub, someone/tiny: .*config.json is damaged: it was changed after"):
        pull(REPO, tmp_path / "out")
    del commit["tree"]["model.safetensors"]
    with pytest.raises(ValueError, match=r"there is no model.safetensors: not a checkpoint of GenieRay"):
        pull(REPO, tmp_path / "out")


def test_what_the_hub_refuses_is_told_in_one_line(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(model, REPO)

    def refused(message: str, function: Any, *arguments: Any, **options: Any) -> None:
        with pytest.raises(ValueError, match=message) as error:
            function(*arguments, **options)
        assert "\n" not in str(error.value)

    refused("hub, someone/other: .*404|hub, someone/other: .*not found", pull, "someone/other", tmp_path / "out")
    refused("hub, someone/tiny: .*404|hub, someone/tiny: .*not found", pull, REPO, tmp_path / "out", revision="v9")
    refused("hub, a/b/c: ", pull, "a/b/c", tmp_path / "out")
    refused("is there already: give a new directory", pull, REPO, model)
    refused("is not a checkpoint", push, tmp_path, REPO)
    (model / "model.safetensors").write_bytes(b"")
    refused("is damaged", push, model, REPO)
    assert len(hub.repos[REPO]) == 1
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    checkpoint.save(guided_model(), model, provenance={})
    refused("hub, someone/new: .*(401|nvalid)", push, model, "someone/new")


def test_the_commands(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["genie-ray", "checkpoint", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    code, out, _ = run("push", model, REPO)
    assert code == 0
    assert f"/{REPO}/commit/" in out
    code, out, err = run("pull", REPO, tmp_path / "out")
    assert (code, out.strip()) == (0, str(tmp_path / "out"))
    assert f"{REPO} at {hub.repos[REPO][-1]['sha']}" in err
    assert json.loads((tmp_path / "out" / "config.json").read_text())["provenance"] == {"steps": 3}
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = run("pull", REPO, tmp_path / "again")
    assert code == 2
    assert err == f"error: {NEEDS_CLIENT}\n"
