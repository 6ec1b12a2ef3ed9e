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
from torch import nn

from genie_ray import cli
from genie_ray.envs.world_model_games import INTERACTIVE
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.sharing import onnx_export
from genie_ray.sharing.onnx_export import NEEDS_PACKAGES, export_onnx
from genie_ray.web.shipped import SHIPPED
from tests.genie_ray.tiny_world import FRAMES, SIZE, TINY, TOKENIZER, guided_model, unguided_model
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.rollout import Rollout

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
        for name, graph in self.about["graphs"].items():
            assert hashlib.sha256((directory / f"{name}.onnx").read_bytes()).hexdigest() == graph["sha256"]

    def run(self, graph: str, **inputs: Any) -> list[np.ndarray]:
        return self.sessions[graph].run(None, inputs)

    def step(self, graph: str, frame: int, *, keep: bool, **inputs: Any) -> np.ndarray:
        """Of one frame, with the past; `keep`: it becomes past."""
        past = self.past[graph]
        found, new, keys, values = self.run(graph, frame=np.array([frame]), **inputs, **past)
        if keep:
            past["inputs"] = np.concatenate([past["inputs"][:, 1:], new], axis=1)
            past["keys"][:, :, :, frame], past["values"][:, :, :, frame] = keys[:, :, :, 0], values[:, :, :, 0]
        return found[0]

    def begin(self, given: np.ndarray, actions: list[int]) -> None:
        """A clip from frames, and the actions between them."""
        about, count = self.about, len(given)
        clip = np.full((1, about["frames"], *given.shape[1:]), 77, np.uint8)  # anything
        clip[0, :count] = given
        self.tokens = self.run("encode", frames=clip)[0]
        self.taken = np.zeros((1, about["frames"] - 1), np.int64)
        self.taken[0, : count - 1] = actions
        self.known, self.frames = count, list(given)
        if about["in_steps"]:
            self.past = {
                graph: {name: np.zeros(shapes[name], np.float32) for name in ("inputs", "keys", "values")}
                for graph in ("dynamics", "decode")
                for shapes in [about["graphs"][graph]["inputs"]]
            }
            for frame in range(count):
                self.logits(frame, keep=True)
                self.pixels(frame)

    def logits(self, frame: int, *, keep: bool = False) -> np.ndarray:
        if not self.about["in_steps"]:
            return self.run("dynamics", tokens=self.tokens, actions=self.taken, frame=np.array([frame]))[0][0]
        tokens, action = self.tokens[:, frame : frame + 1], self.taken[0, max(0, frame - 1)][None]
        return self.step("dynamics", frame, keep=keep, tokens=tokens, action=action)

    def pixels(self, frame: int) -> np.ndarray:
        if not self.about["in_steps"]:
            return self.run("decode", tokens=self.tokens, frame=np.array([frame]))[0][0]
        return self.step("decode", frame, keep=True, tokens=self.tokens[:, frame : frame + 1])

    def act(self, action: int) -> np.ndarray:
        """The next frame, in [0, 1]."""
        about, steps = self.about, self.about["decoding_steps"]
        if self.known == about["frames"]:
            kept = about["frames"] // 2
            self.begin(np.stack(self.frames[-kept:]), list(self.taken[0, about["frames"] - kept :]))
        frame, mask = self.known, about["mask_token"]
        self.taken[0, frame - 1] = action
        flat = np.full(math.prod(about["grid"]), mask)
        for step in range(1, steps + 1):
            self.tokens[0, frame] = flat.reshape(about["grid"])
            logits = self.logits(frame)
            masked, best = flat == mask, logits.argmax(axis=1)
            log_prob = -np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))  # of the likeliest
            flat = np.where(masked, best, flat)
            again = math.floor(math.cos(math.pi / 2 * step / steps) * len(flat))
            flat[np.argsort(np.where(masked, log_prob, np.inf))[:again]] = mask
        self.tokens[0, frame] = flat.reshape(about["grid"])
        if about["in_steps"]:
            self.logits(frame, keep=True)
        shown = self.pixels(frame)
        self.frames.append((255 * shown).round().astype(np.uint8))
        self.known += 1
        return shown


def played(player: Player, given: np.ndarray, actions: np.ndarray) -> np.ndarray:
    player.begin(given, list(actions[: len(given) - 1]))
    return np.stack([player.act(int(action)) for action in actions[len(given) - 1 :]])


def test_the_shipped_model_is_played_as_in_pytorch(onnxruntime: Any, tmp_path: Path) -> None:
    """Beyond the end of a clip, which has 16 frames."""
    document = export_onnx(SHIPPED / "model", tmp_path / "onnx")
    assert document["in_steps"]
    assert max(graph["apart"] for graph in document["graphs"].values()) <= 1e-4
    model, play = checkpoint.load_as(GenieReduxG, SHIPPED / "model"), ReplayDataset(SHIPPED / "play")
    player = Player(tmp_path / "onnx", onnxruntime)
    for ref in [ref for ref in play.episodes if ref.length >= 22][:2]:
        episode = play.read(ref)
        actions = episode.actions[:20].astype(np.int64)
        prime = torch.from_numpy(episode.frames[None, :2])
        rollout = Rollout(model, prime, torch.from_numpy(actions[None, :1]), decoding=INTERACTIVE)
        expected = [rollout.step(torch.tensor([action])).frames_BHWC[0].numpy() for action in actions[1:]]
        shown = played(player, episode.frames[:2], actions)
        np.testing.assert_allclose(255 * shown, np.stack(expected), atol=0.51)
        assert np.abs(shown[:8] - episode.frames[2:10] / 255).mean() < 0.1  # it is the game
        changed = np.concatenate([actions[:4], (actions[4:10] + 1) % 7])
        other = played(player, episode.frames[:2], changed)
        np.testing.assert_array_equal(other[:3], shown[:3])
        assert not np.allclose(other[3:], shown[3:9])


def test_a_shifted_model_is_played_in_whole_clips(onnxruntime: Any, tmp_path: Path) -> None:
    """As published ones are: one-hot actions, once at the input, each beside the frame that it is taken on."""
    torch.manual_seed(0)
    dynamics = DynamicsConfig(
        alignment="shifted", conditioning="one_hot", actions_at="input", head="codes", num_actions=5, **TINY
    )
    model = GenieReduxG(GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=dynamics)).eval()
    nn.init.normal_(model.dynamics.to_logits.weight, std=3)
    checkpoint.save(model, tmp_path / "model", provenance={})
    assert not export_onnx(tmp_path / "model", tmp_path / "onnx")["in_steps"]
    player, rng = Player(tmp_path / "onnx", onnxruntime), np.random.default_rng(0)
    given, actions = rng.integers(256, size=(2, SIZE, SIZE, 3), dtype=np.uint8), rng.integers(5, size=FRAMES - 1)
    expected = model.rollout(torch.from_numpy(given[None]), torch.from_numpy(actions[None]), decoding=INTERACTIVE)
    np.testing.assert_allclose(255 * played(player, given, actions), expected[0], atol=0.51)


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
