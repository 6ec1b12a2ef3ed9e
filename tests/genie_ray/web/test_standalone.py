"""The page without Python, in headless Chromium: onnxruntime-web shows there what PyTorch shows here."""

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from genie_ray import cli
from genie_ray.envs.world_model_games import INTERACTIVE
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.sharing.onnx_graphs import Decode, Dynamics
from genie_ray.web import standalone
from genie_ray.web.shipped import SHIPPED
from genie_ray.web.standalone import RUNTIME, export_page
from tests.genie_ray.tiny_world import NAMES, SIZE, TINY, TOKENIZER, tiny_dataset
from tests.genie_ray.web.live import PHONE, Open, picture, running
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.rollout import Rollout

pytestmark = pytest.mark.slow
STARTS = 3


@pytest.fixture(scope="module")
def exporter() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"needs {name} (extra: onnx)")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def runtime(exporter: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """onnxruntime-web, as the command fetches it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm to fetch onnxruntime-web with")
    folder = tmp_path_factory.mktemp("runtime")
    try:
        standalone.fetch_runtime(folder)
    except ValueError as error:
        pytest.skip(f"onnxruntime-web cannot be fetched: {error}")
    return folder


def tiny_model(kind: str) -> GenieReduxG:
    """Random weights; in its last layer large enough that actions count, and no token is certain: that would be a tie.

    Args:
        kind: "clips" is as published ones are, and is played in whole clips.
    """
    torch.manual_seed(0)
    published = {"alignment": "shifted", "conditioning": "one_hot", "actions_at": "input"}
    dynamics = DynamicsConfig(head="codes", num_actions=len(NAMES), **(published if kind == "clips" else {}), **TINY)
    model = GenieReduxG(GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=dynamics)).eval()
    torch.nn.init.normal_(model.dynamics.to_logits.weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def made(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[GenieReduxG, Path, Path]]:
    """Makes a model's page once: the model, the page and the play that it starts from."""
    root, there = tmp_path_factory.mktemp("pages"), dict[str, tuple[GenieReduxG, Path, Path]]()

    def make(kind: str) -> tuple[GenieReduxG, Path, Path]:
        if kind not in there:
            directory, play = SHIPPED / "model", SHIPPED / "play"
            if kind != "shipped":
                directory, play = root / f"{kind}-model", tiny_dataset(root / f"{kind}-play").root
                checkpoint.save(tiny_model(kind), directory, provenance={}, card=f"# In {kind}\n")
            export_page(directory, root / kind, str(play), starts=STARTS, runtime=runtime)
            there[kind] = checkpoint.load_as(GenieReduxG, directory), root / kind, Path(str(play))
        return there[kind]

    return make


@pytest.fixture(scope="module")
def hosted(made: Any) -> Iterator[Callable[[str], str]]:
    """Pages on a host of static files, each in a folder of its own; its address."""
    app = Starlette()
    with running(app) as server:

        def host(kind: str) -> str:
            if not any(isinstance(route, Mount) and route.path == f"/{kind}" for route in app.routes):
                app.mount(f"/{kind}", StaticFiles(directory=made(kind)[1], html=True))
            return f"http://{server}/{kind}/"

        yield host


def opened(visit: Open, address: str, **options: Any) -> Any:
    page = visit(address, **options)
    page.wait_for_function("document.getElementById('live').textContent.startsWith('frame 0')")
    return page


def wait_for_step(page: Any, step: int) -> None:
    page.wait_for_function(f"document.getElementById('live').textContent.startsWith('frame {step} ')")


PLAY = """async actions => {
  await player.begin(framesOf(0), about.starts[0].actions);
  const shown = [];
  for (const action of actions) shown.push(Array.from((await player.act(action)).pixels));
  const frame = player.known;  // the next one, of which nothing is known
  player.tokens[frame] = new BigInt64Array(player.cells).fill(BigInt(player.about.mask_token));
  player.actions[frame - 1] = 0;
  const logits = Array.from(await player.logits(frame)), tokens = player.tokens.map(each => Array.from(each, Number));
  return {shown, frame, tokens, logits, actions: player.actions};
}"""


@pytest.mark.parametrize("kind", ["steps", "clips", pytest.param("shipped", marks=pytest.mark.long)])
def test_it_computes_what_pytorch_computes(visit: Open, hosted: Any, made: Any, kind: str) -> None:
    """Beyond the end of a clip: each frame within 1e-4 of the tokens' picture, and within rounding of a rollout's."""
    page = opened(visit, hosted(kind))
    model, _, play = made(kind)
    dataset = ReplayDataset(play)
    episode = dataset.read(dataset.episodes[0])
    longest, many = model.dynamics.config.max_frames, model.num_actions
    actions = np.random.default_rng(1).integers(many, size=longest + 2)
    found = page.evaluate(PLAY, actions.tolist())
    shown = np.array(found["shown"], np.float32).reshape(len(actions), *episode.frames.shape[1:])
    given = torch.from_numpy(episode.actions[:1].astype(np.int64))[None]
    rollout = Rollout(model, torch.from_numpy(episode.frames[None, :2]), given, decoding=INTERACTIVE)
    expected = [rollout.step(torch.tensor([action])).frames_BHWC[0].numpy() for action in actions]
    np.testing.assert_allclose(255 * shown, np.stack(expected), atol=0.51)
    tokens = torch.tensor(found["tokens"]).unflatten(1, model.tokenizer.config.grid)[None]
    taken, frame = torch.tensor(found["actions"])[None], torch.tensor([found["frame"]])
    assert tokens.shape[1] == longest
    assert found["frame"] < len(actions)  # the clip has slid
    taken = torch.nn.functional.pad(taken, (0, longest - 1 - taken.shape[1]))
    with torch.no_grad():
        logits = Dynamics(model)(tokens, taken, frame).flatten().numpy()
        known = tokens.where(tokens != model.dynamics.mask_token, 0)
        pixels = Decode(model)(known, frame - 1)[0].numpy()
    np.testing.assert_allclose(found["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(shown[-1], pixels, atol=1e-4)


def test_keys_and_buttons_move_the_picture(visit: Open, hosted: Any, made: Any) -> None:
    """Presses faster than the model are taken in turn; a rollout in PyTorch shows the same frame."""
    page = opened(visit, hosted("steps"), viewport=PHONE, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert "/model.txt" in page.locator("#card").evaluate("link => link.href")
    model, _, play = made("steps")
    dataset = ReplayDataset(play)
    episode = dataset.read(dataset.episodes[0])
    np.testing.assert_array_equal(picture(page, "#model"), episode.frames[1])
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    wait_for_step(page, 3)
    page.tap("[data-button=JUMP]")
    page.check("#unsure")
    page.tap("[data-button=RIGHT]")
    wait_for_step(page, 5)
    page.wait_for_timeout(500)
    wait_for_step(page, 5)  # no more
    given = torch.from_numpy(episode.actions[:1].astype(np.int64))[None]
    rollout = Rollout(model, torch.from_numpy(episode.frames[None, :2]), given, decoding=INTERACTIVE)
    taken = [NAMES.index(name) for name in ("LEFT", "LEFT", "UP", "JUMP", "RIGHT")]
    steps = [rollout.step(torch.tensor([action])) for action in taken]
    shown = picture(page, "#model").astype(int)
    assert np.abs(shown - steps[-1].frames_BHWC[0].numpy()).max() <= 1
    unsure = steps[-1].uncertainty_BN[0].mean()
    assert page.inner_text("#live").endswith(f"unsure {unsure:.2f}")
    assert picture(page, "#map").any()
    other = rollout.step(torch.tensor([NAMES.index("DOWN")])).frames_BHWC[0].numpy()
    page.keyboard.press("ArrowLeft")
    wait_for_step(page, 6)
    assert np.abs(picture(page, "#model").astype(int) - other).max() > 1  # another key, another picture


def test_another_start_and_the_same_again(visit: Open, hosted: Any, made: Any) -> None:
    page = opened(visit, hosted("steps"))
    _, folder, play = made("steps")
    about, dataset = json.loads((folder / "page.json").read_text()), ReplayDataset(play)
    assert len(about["starts"]) == STARTS
    ref = dataset.episodes[-1]
    assert about["starts"][-1]["name"] == f"{ref.episode_id}, frame {ref.length - 1}"
    page.locator("#starts button").last.click()
    page.wait_for_timeout(300)
    wait_for_step(page, 0)
    first = picture(page, "#model")
    np.testing.assert_array_equal(first, dataset.read(ref).frames[ref.length - 1])
    page.keyboard.press("ArrowRight")
    wait_for_step(page, 1)
    page.click("#restart")
    wait_for_step(page, 0)
    np.testing.assert_array_equal(picture(page, "#model"), first)


def test_what_makes_no_page_is_told_before_anything_is_exported(
    exporter: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(tiny_model("steps"), tmp_path / "model", provenance={})
    play = tiny_dataset(tmp_path / "play").root
    arguments = ["genie-ray", "checkpoint", "onnx", str(tmp_path / "model"), str(tmp_path / "out")]

    def told(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert not list(tmp_path.glob("*out*"))
        return capsys.readouterr().err

    assert "give --page DATA, too" in told("--game", "Hero")
    assert "has no ort.wasm.bundle.min.mjs" in told("--page", str(play), "--onnxruntime", str(tmp_path))
    assert "no episode of Pong" in told("--page", str(play), "--game", "Pong")
    other = tiny_dataset(tmp_path / "other", size=2 * SIZE).root
    assert f"the model takes ({SIZE}, {SIZE}, 3)" in told("--page", str(other))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert "there is no npm" in told("--page", str(play))
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho 'npm error: no such version' >&2\nexit 1\n")
    npm.chmod(0o755)
    assert f"npm pack {RUNTIME}: npm error: no such version" in told("--page", str(play))
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        for name in standalone.RUNTIME_FILES:
            archive.addfile(tarfile.TarInfo(f"package/dist/{name}"), io.BytesIO())
    npm.write_text(
        f'#!/bin/sh\nfor last in "$@"; do :; done\n{shutil.which("cp", path="/bin")} {tmp_path}/other.tgz $last\n'
    )
    assert f"npm brought another {RUNTIME}" in told("--page", str(play))
