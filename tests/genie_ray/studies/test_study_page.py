"""A study answered in a real chromium, from disk and from the server, and the server's manners."""

import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from genie_ray import cli
from genie_ray.studies.kit import read_key
from genie_ray.studies.serving import make_app
from tests.genie_ray.tiny_world import guided_model, tiny_dataset
from tests.genie_ray.web.live import running
from world_model import checkpoint

pytestmark = pytest.mark.slow
FPS = 60.0  # a clip of four frames and its pause take little time


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quality study and an action study of a tiny model, six samples each."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("studies")
    checkpoint.save(guided_model(), root / "model", provenance={})
    data = tiny_dataset(root / "data", [30, 10, 15])
    for kind, truth in (("quality", 2), ("action", 0)):
        command = ["study", "make", kind, root / kind, "--data", data.root, "--model", f"tiny={root / 'model'}"]
        command += ["--samples", 6, "--truth", truth, "--frames", 2, "--fps", FPS, "--seed", 3]
        with pytest.MonkeyPatch.context() as patch:
            assert run(patch, *command) == 0
    assert read_key(root / "action")["config"]["seed"] == 3
    return root


def run(patch: pytest.MonkeyPatch, *arguments: Any) -> int:
    """The exit code of a `genie-ray` command."""
    patch.setattr(sys, "argv", ["genie-ray", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


@pytest.fixture
def server(studies: Path) -> Iterator[str]:
    with running(make_app(studies / "quality")) as address:
        yield f"http://{address}"


def begin(chromium: Any, address: str, rater: str, width: int = 1000) -> Any:
    page = chromium.new_page(viewport={"width": width, "height": 600})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    page.fill("#rater", rater)
    page.click("#start")
    return page


def answer(page: Any, value: str) -> None:
    """Clicks an answer, once the clips have been played."""
    page.click(f"button[data-answer='{value}']:enabled", timeout=10_000)


def results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    capsys.readouterr()
    assert run(monkeypatch, "study", "results", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_an_action_study_is_answered_from_disk(
    chromium: Any, studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rater who knows the key answers rightly, but once; goes back, reloads, and downloads the answers."""
    study, samples = studies / "action", read_key(studies / "action")["samples"]
    page = begin(chromium, (study / "kit" / "index.html").as_uri(), "Anna, B", width=380)
    for number in range(6):
        page.wait_for_selector("#answers button:enabled")
        assert page.evaluate("document.documentElement.scrollWidth") == 380  # nothing sticks out on a phone
        assert page.evaluate("scrollY") == 0  # the clips are in sight
        sample = samples[page.evaluate("order[state.at].name")]
        assert page.inner_text("#question .named").split()[-1] == sample["action"]
        assert page.inner_text("#progress") == f"{number + 1} of 6"
        right = "left" if sample["left"]["action"] == sample["action"] else "right"
        if number == 2:  # a slip of the finger, taken back
            page.keyboard.press("ArrowDown")
            page.click("#back")
            assert page.get_attribute("button.given", "data-answer") == "neither"
            page.wait_for_function("image !== null")
        if number == 3:
            page.reload()
        answer(page, right if number else "neither")
    with page.expect_download() as download:
        page.click("#download")
    assert "download" in page.inner_text("#kept")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert page.errors == []
    page.close()
    found = results(monkeypatch, capsys, study, path)
    assert found["raters"] == {"Anna, B": 6}
    (row, _) = found["rows"]
    assert [row[name]["value"] for name in ("named", "other", "neither")] == pytest.approx([5 / 6, 0, 1 / 6])


def test_both_clips_are_shown_pixel_for_pixel(chromium: Any, studies: Path) -> None:
    page = begin(chromium, (studies / "quality" / "kit" / "index.html").as_uri() + "?", "x")
    page.wait_for_selector("#answers button:enabled")
    name = page.evaluate("order[state.at].name")
    film = np.asarray(Image.open(studies / "quality" / "kit" / "clips" / f"{name}.png").convert("RGB"))
    page.evaluate("STUDY.fps = 0.001; began = performance.now() - 1000 * 4.5 / STUDY.fps")
    page.wait_for_timeout(100)
    for side, pixels in (("left", film[48:, :16]), ("right", film[48:, 16:])):
        box = page.locator(f"#{side}").bounding_box()
        shot = page.screenshot(clip=box)
        with Image.open(io.BytesIO(shot)) as picture:
            shown = np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.NEAREST)).astype(int)
        assert np.abs(shown - pixels).mean() < 2
    page.close()


def test_raters_see_orders_of_their_own_and_the_server_keeps_their_answers(
    chromium: Any, studies: Path, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, orders = read_key(studies / "quality")["samples"], []
    for rater in ("one", "two"):
        page = begin(chromium, server, rater)
        orders.append(page.evaluate("order.map(sample => sample.name)"))
        for number in range(6):
            sample = samples[orders[-1][number]]
            answer(page, "5" if sample["left"] == sample["right"] else "2")
            if rater == "two" and number == 4:  # stays away; of the two truths it has seen one at least
                page.wait_for_timeout(300)
                break
        else:
            page.wait_for_function(
                "document.getElementById('kept').textContent.startsWith('Your answers have been kept')"
            )
        assert page.errors == []
        page.close()
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    found = results(monkeypatch, capsys, studies / "quality")
    assert found["raters"] == {"one": 6, "two": 5}
    assert found["alpha"] == 1
    assert [row["mean"]["value"] for row in found["rows"]] == [2, 5]
    assert found["rows"][0]["share"] == {"value": 0.25, "low": 0.25, "high": 0.25}


def test_the_server_shows_no_key_and_keeps_no_nonsense(server: str, studies: Path) -> None:
    def post(body: bytes, query: str = "?session=abcd", **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"{server}/answers{query}", body, headers, method="POST")
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    for path in ("/key.json", "/../key.json", "/%2e%2e/key.json", "/answers/abcd.csv"):
        with pytest.raises(urllib.error.HTTPError, match=r"40[45]"):
            urllib.request.urlopen(server + path)
    key = read_key(studies / "quality")
    header, name = b"study,rater,sample,answer,seconds\n", next(iter(key["samples"]))
    good = header + f"{key['study']},x,{name},3,1.0\n".encode()
    folder = studies / "quality" / "answers"
    before = sorted(folder.glob("*"))
    for body, options, code in (
        (b"\xff", {}, 400),
        (header, {}, 400),
        (good.replace(b",3,", b",9,"), {}, 400),
        (good + good.splitlines()[1].replace(b",x,", b",y,") + b"\n", {}, 400),
        (good, {"query": "?session=../../x"}, 400),
        (good, {"query": ""}, 400),
        (good, {"Origin": "http://elsewhere.example"}, 403),
        (header + b" " * 1_000_001, {}, 413),
    ):
        assert post(body, **options)[0] == code
    assert sorted(folder.glob("*")) == before
    assert post(good, Origin=server) == (200, "kept")
    assert (folder / "abcd.csv").read_bytes() == good
    (folder / "abcd.csv").unlink()


def test_results_without_study_or_answers_are_refused(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged").mkdir()
    key = (studies / "action" / "key.json").read_text()
    (tmp_path / "damaged" / "key.json").write_text(key.replace('"left"', '"right"', 1))
    for arguments, message in (
        ([tmp_path], "has no key.json: give the directory that `genie-ray study make` wrote"),
        ([studies / "action"], "error: no answers: give CSV files that the page made"),
        ([studies / "action", tmp_path / "none.csv"], "none.csv: no such file"),
        ([tmp_path / "damaged"], "key.json is damaged: it was changed after it was written"),
    ):
        assert run(monkeypatch, "study", "results", *arguments) == 2
        assert message in capsys.readouterr().err


def test_models_need_labels_of_their_own(
    studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = studies / "model"
    for given, message in (
        ([str(model)], f"--model '{model}': expected LABEL=CHECKPOINT"),
        ([f"a={model}", f"a={model}"], f"--model 'a={model}': the label a is given twice"),
    ):
        options = [part for one in given for part in ("--model", one)]
        assert run(monkeypatch, "study", "make", "quality", tmp_path / "out", "--data", studies / "data", *options) == 2
        assert capsys.readouterr().err == f"error: {message}\n"
