"""Playing in the browser: a real server, a real emulator beside a real model, and a page that asks for anything."""

import base64
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.web.server import make_app
from genie_ray.web.session import PlaySession
from tests.genie_ray.web.live import running
from world_model import checkpoint
from world_model.genie import GenieReduxG

WAIT = {"waiting": True, "set": {"fps": 60}}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(world_model: Path) -> GenieReduxG:
    return checkpoint.load_as(GenieReduxG, world_model)


def play_app(model: GenieReduxG, replay: ReplayDataset, token: str | None = None) -> FastAPI:
    lock, about = threading.Lock(), {"title": "test", "actions": list(replay.metadata.action_names), "episodes": []}
    return make_app(lambda: PlaySession(model, replay, None, lock), about=about, token=token)


@pytest.fixture(scope="module")
def server(model: GenieReduxG, replay: ReplayDataset) -> Iterator[str]:
    with running(play_app(model, replay)) as address:
        yield address


def opened(server: str, session: str, **options: Any) -> tuple[ClientConnection, dict[str, Any]]:
    """A connection on which time stands still, and the frame that it begins with."""
    socket = connect(f"ws://{server}/play?session={session}", **options)
    first = json.loads(socket.recv(120))
    socket.send(json.dumps(WAIT))
    return socket, first


def ask(socket: ClientConnection, message: Any) -> dict[str, Any]:
    """Sends a message and returns the next answer."""
    socket.send(message if isinstance(message, str) else json.dumps(message))
    return json.loads(socket.recv(60))


def picture(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(64, 64, 3)


def restarted(socket: ClientConnection, **where: Any) -> dict[str, Any]:
    """Starts again; passes over the frames that were under way."""
    frame = ask(socket, {"restart": where})
    while frame["step"] or frame["uncertainty"] is not None:
        frame = json.loads(socket.recv(60))
    return frame


def test_both_start_from_the_recording_and_take_the_same_actions(server: str, replay: ReplayDataset) -> None:
    """The game shows what was recorded; the model, with random weights, something else after the first frame."""
    episode = replay.read(replay.episodes[1])
    socket, _ = opened(server, "recorded")
    begin = restarted(socket, episode=episode.episode_id, step=30)
    for screen in ("model", "game"):
        np.testing.assert_array_equal(picture(begin[screen]), episode.frames[30])
    names = replay.metadata.action_names
    for step in range(30, 36):
        frame = ask(socket, {"taps": [names[episode.actions[step]]], "stamp": step})
        assert frame["stamp"] == step
        np.testing.assert_array_equal(picture(frame["game"]), episode.frames[step + 1])
    assert frame["step"] == 6
    assert not np.array_equal(picture(frame["model"]), episode.frames[36])
    assert np.shape(frame["uncertainty"]) == (8, 8)
    with urllib.request.urlopen(f"http://{server}/clip.gif?session=recorded") as answer:
        clip = Image.open(answer)
        assert clip.n_frames == 7
    socket.close()


def test_a_tap_is_not_lost_and_buttons_are_held(server: str) -> None:
    socket, _ = opened(server, "taps")
    restarted(socket)
    for number in range(10):  # pressed and released before the model looks
        socket.send(json.dumps({"buttons": ["RIGHT"], "taps": ["RIGHT"]}))
        frame = ask(socket, {"buttons": []})
        assert frame["step"] == number + 1
    before = ask(socket, {"buttons": ["RIGHT"]})["step"]
    while json.loads(socket.recv(60))["step"] < before + 5:
        pass
    socket.send(json.dumps({"buttons": []}))
    restarted(socket)
    assert ask(socket, {"taps": ["LEFT"]})["step"] == 1  # time stood still
    socket.close()


def test_taps_that_wait_are_taken_in_turn(server: str, replay: ReplayDataset) -> None:
    """No two of these go together, and the last is tapped twice: four actions, as in the game alone."""
    socket, _ = opened(server, "in-turn")
    restarted(socket)
    taps = ["RIGHT", "UP", "LEFT", "LEFT"]
    shown = [ask(socket, {"taps": taps}), *(json.loads(socket.recv(60)) for _ in taps[1:])]
    assert [frame["step"] for frame in shown] == [1, 2, 3, 4]
    env = RetroEnv(replay.episodes[0].game, EnvConfig(max_episode_steps=100))
    env.reset()
    names = replay.metadata.action_names
    frames = [env.step(a)[0] for a in (replay.read(replay.episodes[0]).actions[0], *map(names.index, taps))]
    env.close()
    for frame, expected in zip(shown, frames[1:], strict=True):
        np.testing.assert_array_equal(picture(frame["game"]), expected)
    assert "50 pressed buttons wait already" in ask(socket, {"taps": ["UP"] * 60})["error"]
    socket.close()


def test_a_lost_page_finds_its_play_and_two_do_not_meddle(server: str) -> None:
    one, _ = opened(server, "one")
    other, _ = opened(server, "other")
    restarted(one)
    here = ask(one, {"taps": ["UP"]})
    restarted(other, step=5)
    assert here["step"] == 1
    one.close()
    again, first = opened(server, "one")
    assert first["step"] == 1
    assert first["model"] == here["model"]
    assert ask(again, {"taps": ["UP"]})["step"] == 2
    for socket in (again, other):
        socket.close()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no JSON {", "Expecting value"),
        ("[1, 2]", "a message is no JSON object"),
        ({"buttons": "RIGHT"}, "buttons is 'RIGHT'; allowed: a list of DOWN, JUMP, LEFT, RIGHT, UP"),
        ({"taps": ["FIRE"]}, "taps is ['FIRE']"),
        ({"set": {"fps": 1000}}, "fps is 1000; allowed: 1 to 60"),
        ({"set": {"temperature": -1}}, "temperature"),
        ({"set": {"guidance": 2}}, "guidance is 2.0, allowed for a model trained without action_dropout: 0"),
        ({"set": {"speed": 2}}, "setting is 'speed'; allowed: steps, temperature, guidance"),
        ({"set": 3}, "setting is 'set'"),
        ({"drive": "game"}, "no policy is given: genie-ray play --policy DIR"),
        ({"drive": {"sees": 1}}, "no policy is given"),
        ({"record": True}, "nowhere to record to is given: genie-ray play --record OUT"),
        ({"restart": {"episode": "nobody's"}}, 'episode is "nobody\'s"'),
        ({"restart": {"step": 10_000}}, "step is 10000: must be from 0 to"),
        ({"restart": {"step": "2"}}, "allowed: an object of episode and step"),
        ({"taps": ["UP"] * 5_000}, "letters; allowed: 10000"),
        ("[" * 9_000, ""),
    ],
)
def test_a_bad_message_gets_one_line_and_play_goes_on(server: str, message: Any, said: str) -> None:
    socket, _ = opened(server, "bad")
    restarted(socket)
    answer = ask(socket, message)
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    before = ask(socket, {"taps": ["UP"]})["step"]
    assert ask(socket, {"taps": ["UP"]})["step"] == before + 1
    socket.close()


def test_decoding_can_be_changed_while_playing(server: str) -> None:
    socket, _ = opened(server, "decoding")
    restarted(socket, step=3)
    socket.send(json.dumps({"set": {"steps": 1, "temperature": 1.0}}))
    assert ask(socket, {"taps": ["UP"]})["step"] == 1
    socket.close()


def test_other_sites_and_people_without_the_token_are_kept_out(model: GenieReduxG, replay: ReplayDataset) -> None:
    with running(play_app(model, replay, token="secret")) as server:
        for path in ("", "about", "clip.gif?session=a"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"http://{server}/{path}")
        with urllib.request.urlopen(f"http://{server}/?token=secret") as answer:
            assert b"in the world model" in answer.read()
        for query, options in (
            ("session=a", {}),
            ("session=a&token=wrong", {}),
            ("session=a&token=secret", {"origin": "http://elsewhere.example"}),
        ):
            socket = connect(f"ws://{server}/play?{query}", **options)
            with pytest.raises(ConnectionClosed, match="1008"):
                socket.recv(30)
        socket = connect(f"ws://{server}/play?session=a&token=secret", origin=f"http://{server}")
        assert "model" in json.loads(socket.recv(120))
        socket.close()
