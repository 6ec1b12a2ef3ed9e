"""Browsing datasets: a real server, asked for everything that its page asks for."""

import dataclasses
import io
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from PIL import Image

from genie_ray.replay.coverage import cells
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.writer import write_metadata, write_shard
from genie_ray.rewards.config import RewardConfig
from genie_ray.web import serving
from genie_ray.web.browsing.app import make_app
from genie_ray.web.browsing.data import BrowsedDataset, Unsure
from genie_ray.web.session import PlaySession
from tests.genie_ray.tiny_world import GAMES, NAMES, SIZE, guided_model, tiny_dataset
from tests.genie_ray.web.live import running
from world_model import checkpoint
from world_model.genie import GenieReduxG

EXACT = RewardConfig(precision="fp32")
REWARDS, GIVEN = [0.0, 1.5, float("nan"), -2.0], [float("nan"), 0.25, 0.5, 0.125]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    """Hero: an episode of 12 steps. Kangaroo: of 20 steps, and 60 more of 4, with rewards and places."""
    root = tmp_path_factory.mktemp("browsed")
    whole = tiny_dataset(root, [12, 20])
    short = whole.read(whole.episodes[0])
    episodes = [
        dataclasses.replace(
            short,
            episode_id=f"{GAMES[1]}/walker/0/{index:06d}",
            game=GAMES[1],
            frames=short.frames[index % 3 : index % 3 + 5],
            actions=short.actions[:4],
            reward_env=np.array(REWARDS, np.float32),
            reward_uncertainty=np.array(GIVEN, np.float32),
            terminated=True,
            truncated=False,
            infos=[{"x": 16 * (step + index)} for step in range(5)],
        )
        for index in range(60)
    ]
    write_shard(root, GAMES[1], "walked", episodes)
    counts = {**whole.metadata.counts, GAMES[1]: dataclasses.replace(whole.metadata.counts[GAMES[1]])}
    counts[GAMES[1]] = dataclasses.replace(counts[GAMES[1]], episodes=61, actions=20 + 60 * 4)
    write_metadata(root, dataclasses.replace(whole.metadata, counts=counts))
    return ReplayDataset(root)


@pytest.fixture(scope="module")
def model() -> GenieReduxG:
    torch.manual_seed(0)
    return guided_model()


@pytest.fixture(scope="module")
def server(dataset: ReplayDataset, model: GenieReduxG) -> Iterator[str]:
    with running(browse_app(dataset, model)) as address:
        yield address


def browse_app(dataset: ReplayDataset, model: GenieReduxG, token: str | None = None) -> Any:
    from genie_ray.web.server import make_app as play_app

    lock = threading.Lock()
    play = play_app(lambda: PlaySession(model, dataset, None, lock), about={"title": "play"}, token=token)
    return make_app([BrowsedDataset("here", dataset)], unsure=Unsure(model, lock, EXACT), plays=[play], token=token)


def ask(server: str, path: str, **query: Any) -> Any:
    """The answer: JSON as a value, anything else as bytes."""
    with urllib.request.urlopen(f"http://{server}/{path}?{urlencode(query)}") as answer:
        content = answer.read()
        return json.loads(content) if answer.headers["content-type"] == "application/json" else content


def refused(server: str, path: str, **query: Any) -> str:
    """The line that a refusal says."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, path, **query)
    assert caught.value.code == 400
    return json.loads(caught.value.read())["error"]


def test_it_tells_what_there_is(server: str) -> None:
    told = ask(server, "about")
    assert told["unsure"] is told["play"] is True
    (here,) = told["datasets"]
    assert here["actions"] == list(NAMES)
    assert here["games"] == {
        GAMES[0]: {"episodes": 1, "steps": 12, "policies": ["random"]},
        GAMES[1]: {"episodes": 61, "steps": 260, "policies": ["random", "walker"]},
    }


def test_episodes_are_listed_in_parts(server: str) -> None:
    first = ask(server, "episodes", data=0, game=GAMES[1], policy="walker", first=0, count=50)
    rest = ask(server, "episodes", data=0, game=GAMES[1], policy="walker", first=50, count=50)
    assert first["total"] == rest["total"] == 60
    listed = [*first["episodes"], *rest["episodes"]]
    assert [each["id"] for each in listed] == [f"{GAMES[1]}/walker/0/{index:06d}" for index in range(60)]
    assert listed[7] == {"id": f"{GAMES[1]}/walker/0/000007", "steps": 4, "return": -0.5, "terminated": True}


def test_an_episode_comes_with_actions_and_rewards_and_what_is_missing_is_null(
    server: str, dataset: ReplayDataset
) -> None:
    walked = ask(server, "episode", data=0, id=f"{GAMES[1]}/walker/0/000003")
    assert walked["rewards"] == [0, 1.5, None, -2]
    assert walked["given"] == [None, 0.25, 0.5, 0.125]
    hero = dataset.episodes[0]
    told = ask(server, "episode", data=0, id=hero.episode_id)
    assert told["actions"] == dataset.read(hero).actions.tolist()
    assert told["given"] is None
    assert (told["terminated"], told["truncated"]) == (False, True)


@pytest.mark.parametrize(("first", "last", "count", "steps"), [(3, 9, 7, range(3, 10)), (0, 12, 4, (0, 4, 8, 12))])
def test_frames_are_those_of_the_dataset(
    server: str, dataset: ReplayDataset, first: int, last: int, count: int, steps: Any
) -> None:
    hero = dataset.episodes[0]
    content = ask(server, "frames.png", data=0, id=hero.episode_id, first=first, last=last, count=count)
    picture = np.asarray(Image.open(io.BytesIO(content)))
    frames = dataset.read(hero).frames
    for number, step in enumerate(steps):
        np.testing.assert_array_equal(picture[:, number * SIZE : (number + 1) * SIZE], frames[step])


def test_uncertainty_is_the_models_of_two_frames_and_four_actions(
    server: str, dataset: ReplayDataset, model: GenieReduxG
) -> None:
    """Equations 2 to 4 of the paper, window by window; a quarter of 16 tokens is 4."""
    hero = dataset.read(dataset.episodes[0])
    parts = [ask(server, "unsure", data=0, id=hero.episode_id, first=first, count=5) for first in (0, 5, 10)]
    assert [part["total"] for part in parts] == [9, 9, 9]
    found = [value for part in parts for value in part["values"]]
    frames, actions = torch.from_numpy(hero.frames.copy()), torch.from_numpy(hero.actions.astype(np.int64))
    expected = [
        float(model.uncertainty(frames[None, m : m + 2], actions[None, m : m + 4]).sort().values[0, -4:].mean())
        for m in range(9)
    ]
    assert len(set(expected)) == 9
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)  # they come rounded


def test_coverage_counts_what_is_new(server: str, dataset: ReplayDataset) -> None:
    while (told := ask(server, "coverage", data=0, game=GAMES[1]))["episodes"] < 61:
        assert not told["error"]
        time.sleep(0.02)
    assert told["steps"] == list(range(1, 261))
    seen: list[Any] = []
    expected: list[int] = []
    for ref in dataset.episodes[1:]:
        hashes = cells(dataset.read(ref).frames).tolist()
        seen.append(hashes[0])
        for each in hashes[1:]:
            seen.append(each)
            expected.append(len(set(seen)))
    assert told["cells"] == expected
    assert expected[-1] < 260  # the short episodes repeat
    assert told["places"][:20] == [0] * 20
    assert (told["places"][20], told["places"][-1]) == (2, 64)  # x from 0 to 63 places


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        ("episode", {"data": 7, "id": "any"}, "data is 7; allowed: 0 to 0"),
        ("episode", {"data": 0, "id": "nobody's"}, 'episode is "nobody\'s"; allowed: one of the 62 of here'),
        ("episodes", {"data": 0, "game": "Chess"}, "game is 'Chess'; allowed: Hero"),
        ("coverage", {"data": 0, "game": "Chess"}, "game is 'Chess'"),
        ("frames.png", {"data": 0, "id": f"{GAMES[0]}/random/0/000000", "first": 0, "last": 99, "count": 5}, "0 to 12"),
        ("frames.png", {"data": 0, "id": f"{GAMES[0]}/random/0/000000", "first": 0, "last": 9, "count": 0}, "1 to 100"),
        ("unsure", {"data": 0, "id": "../../etc/passwd"}, "allowed: one of"),
    ],
)
def test_a_bad_question_gets_one_line(server: str, path: str, query: dict[str, Any], said: str) -> None:
    error = refused(server, path, **query)
    assert said in error
    assert "\n" not in error


def test_without_the_token_nothing_is_served(dataset: ReplayDataset, model: GenieReduxG) -> None:
    hero = dataset.episodes[0].episode_id
    with running(browse_app(dataset, model, token="secret")) as server:
        for path in ("", "about", f"episode?data=0&id={hero}", f"unsure?data=0&id={hero}", "play/0/", "play/0/about"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"http://{server}/{path}")
        for path in ("", "play/0/"):
            assert b"<!doctype html>" in ask(server, path, token="secret")


def test_what_does_not_fit_is_told_before_anything_starts(tmp_path: Path, model: GenieReduxG) -> None:
    def start(place: Path, other: Path | None = None, world_model: Path | None = None) -> None:
        beside = None if other is None else str(other)
        serving.browse(str(place), beside, world_model, host="127.0.0.1", port=1, tell=pytest.fail)

    checkpoint.save(model, tmp_path / "model", provenance={})
    good = tiny_dataset(tmp_path / "good", [8])
    with pytest.raises(ValueError, match=r"no replay dataset in .*/nowhere: .*_dataset.json is missing"):
        start(good.root, tmp_path / "nowhere")
    other = tiny_dataset(tmp_path / "other", [8], size=32)
    with pytest.raises(ValueError, match=r"frames of \(32, 32, 3\), the model takes \(16, 16, 3\)"):
        start(good.root, other.root, world_model=tmp_path / "model")
    (shard,) = (tmp_path / "good").glob("game=*/*.parquet")
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f"damaged or foreign file {shard}"):
        start(good.root)


def test_of_a_run_play_model_and_report_are_shown(tmp_path: Path, model: GenieReduxG) -> None:
    (tmp_path / "datasets").mkdir()
    with pytest.raises(ValueError, match="is a run without play"):
        serving.browse_app(str(tmp_path), None, None)
    for name in ("test", "explore", "control"):
        tiny_dataset(tmp_path / "datasets" / name, [8])
    with running(serving.browse_app(str(tmp_path), None, None)(None)) as server:
        told = ask(server, "about")
        assert [Path(each["name"]).name for each in told["datasets"]] == ["control", "explore"]
        assert (told["report"], told["unsure"]) == (False, False)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(server, "report")
    (tmp_path / "report.html").write_text("<!doctype html>what came of it")
    checkpoint.save(model, tmp_path / "dynamics" / "best", provenance={})
    other = tiny_dataset(tmp_path / "other", [8]).root
    with running(serving.browse_app(str(tmp_path), str(other), None)("secret")) as server:
        told = ask(server, "about", token="secret")
        assert [Path(each["name"]).name for each in told["datasets"]] == ["explore", "other"]
        assert (told["report"], told["unsure"]) == (True, True)
        assert ask(server, "report", token="secret") == b"<!doctype html>what came of it"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(server, "report")


def test_a_file_that_is_damaged_later_is_told(tmp_path: Path) -> None:
    damaged = tiny_dataset(tmp_path, [30])
    (shard,) = tmp_path.glob("game=*/*.parquet")
    content = bytearray(shard.read_bytes())
    content[3_000] ^= 0xFF  # among the frames
    shard.write_bytes(content)
    id = damaged.episodes[0].episode_id
    with running(make_app([BrowsedDataset("here", damaged)], unsure=None, plays=[], token=None)) as server:
        assert str(shard) in refused(server, "frames.png", data=0, id=id, first=0, last=9, count=5)
        while not (told := ask(server, "coverage", data=0, game=GAMES[0]))["error"]:
            time.sleep(0.02)
        assert str(shard) in told["error"]
        assert "no world model is given" in refused(server, "unsure", data=0, id=id)
