"""ONNX graphs of the shipped model: a player that knows only player.json shows what PyTorch shows."""

import copy
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_world import guided_model, unguided_model
from torch import nn

from genie_ray import cli
from genie_ray.envs.world_model_games import INTERACTIVE
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.sharing import onnx_export
from genie_ray.sharing.onnx_export import NEEDS_PACKAGES, export_onnx
from genie_ray.web.serving import SHIPPED
from world_model import checkpoint
from world_model.genie import GenieReduxG

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def onnxruntime() -> Any:
    pytest.importorskip("onnxscript", reason="needs onnxscript (extra: onnx)")
    pytest.importorskip("onnx", reason="needs onnx (extra: onnx)")
    torch.set_num_threads(1)
    return pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra: onnx)")


class Player:
    """Plays by `how` of player.json, in NumPy."""

    def __init__(self, directory: Path, runtime: Any) -> None:
        self.about = json.loads((directory / "player.json").read_text())
        self.sessions = {
            name: runtime.InferenceSession(directory / graph["file"], providers=["CPUExecutionProvider"])
            for name, graph in self.about["graphs"].items()
        }

    def run(self, graph: str, **inputs: Any) -> np.ndarray:
        return self.sessions[graph].run(None, inputs)[0]

    def play(self, given: np.ndarray, actions: list[int]) -> np.ndarray:
        """Frames after the given ones; an action more than given frames for each."""
        about, steps = self.about, self.about["decoding_steps"]
        clip = np.full((1, about["frames"], *given.shape[1:]), 77, np.uint8)  # anything
        clip[0, : len(given)] = given
        tokens = self.run("encode", frames=clip)
        taken = np.zeros((1, about["frames"] - 1), np.int64)
        taken[0, : len(actions)] = actions
        shown = []
        for frame in range(len(given), len(actions) + 1):
            flat = np.full(math.prod(about["grid"]), about["mask_token"])
            for step in range(1, steps + 1):
                tokens[0, frame] = flat.reshape(about["grid"])
                logits = self.run("dynamics", tokens=tokens, actions=taken, frame=np.array([frame]))[0]
                logp = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
                masked, best = flat == about["mask_token"], logits.argmax(axis=1)
                sure = np.where(masked, (logp - logits.max(1, keepdims=True))[np.arange(len(flat)), best], np.inf)
                flat = np.where(masked, best, flat)
                flat[np.argsort(sure)[: math.floor(math.cos(math.pi / 2 * step / steps) * len(flat))]] = about[
                    "mask_token"
                ]
            tokens[0, frame] = flat.reshape(about["grid"])
            shown.append(self.run("decode", tokens=tokens, frame=np.array([frame]))[0])
        return np.stack(shown)


def test_the_shipped_model_is_played_as_in_pytorch(onnxruntime: Any, tmp_path: Path) -> None:
    document = export_onnx(SHIPPED / "model", tmp_path / "onnx")
    assert max(graph["apart"] for graph in document["graphs"].values()) <= 1e-4
    for graph in document["graphs"].values():
        content = (tmp_path / "onnx" / graph["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == graph["sha256"]
    model, play = checkpoint.load_as(GenieReduxG, SHIPPED / "model"), ReplayDataset(SHIPPED / "play")
    player = Player(tmp_path / "onnx", onnxruntime)
    for ref in [ref for ref in play.episodes if ref.length >= 10][:2]:
        episode = play.read(ref)
        actions = torch.from_numpy(episode.actions[:9].astype(np.int64))
        expected = model.rollout(torch.from_numpy(episode.frames[None, :2]), actions[None], decoding=INTERACTIVE)[0]
        shown = player.play(episode.frames[:2], actions.tolist())
        np.testing.assert_allclose(255 * shown, expected, atol=0.51)
        assert np.abs(shown - episode.frames[2:10] / 255).mean() < 0.1  # it is the game
        other = player.play(episode.frames[:2], [*actions[:4].tolist(), *[(int(a) + 1) % 7 for a in actions[4:]]])
        np.testing.assert_array_equal(other[:3], shown[:3])
        assert not np.allclose(other[3:], shown[3:])


def test_a_graph_that_differs_from_pytorch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if the exporter had changed a weight."""
    torch.manual_seed(0)
    checkpoint.save(guided_model(), tmp_path / "model", provenance={})
    export = torch.onnx.export

    def wrong(module: nn.Module, *arguments: Any, **options: Any) -> Any:
        other = copy.deepcopy(module)
        for name, weight in other.named_parameters():
            if "to_logits" in name:
                weight.add_(0.01)
        return export(other, *arguments, **options)

    monkeypatch.setattr(onnx_export.torch.onnx, "export", wrong)
    monkeypatch.setattr(
        sys, "argv", ["genie-ray", "checkpoint", "onnx", str(tmp_path / "model"), str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "error: dynamics.onnx differs from PyTorch by" in capsys.readouterr().err
    assert not list(tmp_path.glob("*out*"))


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(unguided_model(), tmp_path / "latent", provenance={})
    with pytest.raises(ValueError, match="holds GenieRedux, needed: GenieReduxG"):
        export_onnx(tmp_path / "latent", tmp_path / "out")
    with pytest.raises(ValueError, match="is there already: give a new directory"):
        export_onnx(SHIPPED / "model", tmp_path / "latent")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match="^" + NEEDS_PACKAGES.replace("[", r"\[")):
        export_onnx(SHIPPED / "model", tmp_path / "out")
