"""Both pages in a real browser: headless Chromium, the shipped world model and CoinRun itself."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.envs.world_model import WorldModelEnv
from genie_ray.envs.world_model_games import INTERACTIVE, WorldModelEnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.schema import Episode
from genie_ray.web.browsing.app import make_app
from genie_ray.web.browsing.data import BrowsedDataset, Unsure
from genie_ray.web.pilot import Pilots
from genie_ray.web.recording import Recorder
from genie_ray.web.serving import play_app
from genie_ray.web.shipped import SHIPPED
from tests.genie_ray.web.live import PHONE, Open, picture, running
from world_model import checkpoint
from world_model.genie import GenieReduxG

pytestmark = pytest.mark.slow
sync_api: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")

RIGHT, LEFT = 1, 2


@pytest.fixture(scope="module")
def shipped() -> GenieReduxG:
    return checkpoint.load_as(GenieReduxG, SHIPPED / "model")


@pytest.fixture(scope="module")
def busy() -> threading.Lock:
    """Whoever holds it keeps the model busy."""
    return threading.Lock()


@pytest.fixture(scope="module")
def playing(shipped: GenieReduxG, coinrun_play: ReplayDataset, busy: threading.Lock) -> Iterator[str]:
    with running(play_app(shipped, coinrun_play, None, busy)(None)) as address:
        yield f"http://{address}/"


@pytest.fixture(scope="module")
def browsing(shipped: GenieReduxG, coinrun_play: ReplayDataset) -> Iterator[str]:
    """With a token, as beyond loopback: the pages have to pass it on."""
    lock = threading.Lock()
    play = play_app(shipped, coinrun_play, None, lock)("secret")
    datasets = [BrowsedDataset(name, coinrun_play) for name in ("here", "there")]
    with running(make_app(datasets, unsure=Unsure(shipped, lock), plays=[play, play], token="secret")) as address:
        yield f"http://{address}/?token=secret"


@pytest.fixture
def play(visit: Open, playing: str) -> Open:
    """Opens the page to play on, with time standing still between buttons."""

    def make(**options: Any) -> Any:
        page = visit(playing, **options)
        page.wait_for_function("document.getElementById('live').textContent.startsWith('frame')")
        page.check("#waiting")
        restart(page)
        return page

    return make


def restart(page: Any) -> None:
    page.evaluate("document.getElementById('live').textContent = 'starting'")  # an earlier frame 0 does not count
    page.click("#restart")
    wait_for_step(page, 0)


def step_of(page: Any) -> int:
    return int(re.match(r"frame (\d+)", page.inner_text("#live"))[1])


def wait_for_step(page: Any, step: int) -> None:
    page.wait_for_function(f"document.getElementById('live').textContent.startsWith('frame {step} ')")


def wait_for_more(page: Any, steps: int) -> None:
    """At least so many: a slow machine may release a button a step late."""
    page.wait_for_function(f"parseInt(document.getElementById('live').textContent.slice(6)) >= {steps}")


def settled(page: Any) -> int:
    """The step that is shown once nothing more arrives."""
    before = -1
    while (step := step_of(page)) != before:
        before = step
        page.wait_for_timeout(1_000)
    return step


def alone(dataset: ReplayDataset, actions: list[int]) -> NDArray[np.uint8]:
    """What the game shows after the first recorded action and these, without any page."""
    episode = first_episode(dataset)
    env = ProcgenEnv("CoinRun", build(EnvConfig, dataset.metadata.config["env"]))
    env.reset(options={"level": episode.infos[0]["level"]})
    frame = [env.step(action)[0] for action in (episode.actions[0], *actions)][-1]
    env.close()
    return frame


def first_episode(dataset: ReplayDataset) -> Episode:
    return dataset.read(dataset.episodes[0])


def test_keys_move_the_picture_and_the_models_follows(
    play: Open, shipped: GenieReduxG, coinrun_play: ReplayDataset
) -> None:
    """The page shows what the game and the model show alone after the same actions."""
    page = play()
    begin, shown = first_episode(coinrun_play), {}
    for key, action in (("ArrowRight", RIGHT), ("ArrowLeft", LEFT)):
        restart(page)
        np.testing.assert_array_equal(picture(page, "#game"), begin.frames[1])
        page.keyboard.down(key)
        wait_for_more(page, 4)
        page.keyboard.up(key)
        steps = settled(page)
        np.testing.assert_array_equal(picture(page, "#game"), alone(coinrun_play, [action] * steps))
        model = WorldModelEnv(shipped, None, WorldModelEnvConfig(decoding=INTERACTIVE))
        model.reset(seed=0, options={"prime_frames": begin.frames[:2], "prime_actions": begin.actions[:1]})
        shown[key] = picture(page, "#model")
        expected = [model.step(action)[0] for _ in range(steps)][-1]
        assert np.abs(shown[key].astype(int) - expected).mean() < 1
    assert np.abs(shown["ArrowRight"].astype(int) - shown["ArrowLeft"]).mean() > 5


def test_buttons_on_a_phone_move_it_too(play: Open, coinrun_play: ReplayDataset) -> None:
    page = play(viewport=PHONE, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.check("#unsure")
    for steps in (1, 2):
        page.tap("[data-button=RIGHT]")
        wait_for_more(page, steps)
    np.testing.assert_array_equal(picture(page, "#game"), alone(coinrun_play, [RIGHT] * settled(page)))
    assert picture(page, "#map").any()


def test_a_lost_connection_comes_back_to_the_same_play(play: Open) -> None:
    page = play()
    page.keyboard.press("ArrowRight")
    wait_for_more(page, 1)
    before, shown = settled(page), picture(page, "#model")
    page.evaluate("socket.close()")
    page.wait_for_function("document.getElementById('live').textContent.startsWith('connection lost')")
    wait_for_step(page, before)
    np.testing.assert_array_equal(picture(page, "#model"), shown)
    page.keyboard.press("ArrowRight")
    wait_for_more(page, before + 1)


def test_two_players_do_not_disturb_each_other(play: Open, coinrun_play: ReplayDataset) -> None:
    one, other = play(), play()
    one.keyboard.press("ArrowRight")
    wait_for_more(one, 1)
    assert step_of(other) == 0
    np.testing.assert_array_equal(picture(other, "#game"), first_episode(coinrun_play).frames[1])


def test_a_slow_model_drops_no_key(play: Open, busy: threading.Lock, coinrun_play: ReplayDataset) -> None:
    """Three presses while the model is busy with something else: three steps, in this order, and no more."""
    page = play()
    page.fill("#fps", "1")
    page.locator("#fps").blur()
    with busy:
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        page.wait_for_timeout(500)
        assert step_of(page) == 0
    wait_for_step(page, 3)
    page.wait_for_timeout(1_500)
    assert step_of(page) == 3
    np.testing.assert_array_equal(picture(page, "#game"), alone(coinrun_play, [RIGHT, RIGHT, LEFT]))


def test_a_hundred_bad_messages_do_no_harm(play: Open) -> None:
    page, other = play(), play()
    page.evaluate(
        """() => { const bad = ["no JSON", "1", "[".repeat(9000), '{"buttons": "RIGHT"}', '{"taps": ["FIRE"]}', "[]",
            '{"set": {"fps": 1e9}}', '{"restart": {"step": -1}}', '{"drive": "game"}', "x".repeat(20000)];
        for (let i = 0; i < 100; i++) socket.send(bad[i % bad.length]); }"""
    )
    page.wait_for_function("document.getElementById('error').textContent.includes('20000 letters')")
    for each in (page, other):
        each.keyboard.press("ArrowRight")
        wait_for_more(each, 1)
        assert each.inner_text("#error") == ""


def test_a_policy_takes_over_and_play_is_recorded(
    visit: Open, coinrun_model: GenieReduxG, coinrun_play: ReplayDataset, agents: Path, tmp_path: Path
) -> None:
    pilots, recorder = Pilots(agents, coinrun_play, ["CoinRun"]), Recorder(tmp_path, coinrun_play)
    lock = threading.Lock()
    with running(play_app(coinrun_model, coinrun_play, None, lock, pilots=pilots, recorder=recorder)(None)) as address:
        page = visit(f"http://{address}/")
        wait_for_more(page, 0)
        page.check("#waiting")
        restart(page)
        page.select_option("#driver", "model")
        wait_for_more(page, 3)
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.getElementById('driver').value === ''")
        steps, before = settled(page), recorder.episodes  # one, if time went on before it stood still
        page.uncheck("#record")
        page.wait_for_function(f"document.getElementById('recorded').textContent.startsWith('{before + 1} episodes')")
    dataset = ReplayDataset(tmp_path)
    assert dataset.episodes[-1].length == steps
    assert [info["by"] for info in dataset.read(dataset.episodes[-1]).infos[1:]][:3] == [pilots.name] * 3


def test_browse_shows_an_episode(visit: Open, browsing: str, coinrun_play: ReplayDataset) -> None:
    page = visit(browsing)
    page.wait_for_function("document.getElementById('counted').textContent.includes('1,500 steps')")
    assert page.locator("#cells polyline").count() == page.locator("#places polyline").count() == 2
    ref = coinrun_play.episodes[2]
    for column in range(2):
        page.locator("section").nth(column).locator(".episode").nth(2).click()
    page.wait_for_function("document.querySelectorAll('.viewer .live')[1]?.textContent.startsWith('step 0')")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    viewer = page.locator(".viewer").nth(1)
    sync_api.expect(viewer.locator(".live")).to_contain_text("unsure", timeout=60_000)
    assert viewer.locator(".live").inner_text().startswith(f"step 3 of {ref.length}")
    page.wait_for_timeout(300)
    np.testing.assert_array_equal(picture(page, "section:nth-of-type(2) .frame"), coinrun_play.read(ref).frames[3])
    with page.context.expect_page() as opened:
        viewer.get_by_text("play from here").click()
    game = opened.value
    game.wait_for_function("document.getElementById('live').textContent.startsWith('frame')")
    assert game.input_value("#episode") == ref.episode_id
    assert game.input_value("#step") == "3"
    game.check("#waiting")
    restart(game)
    np.testing.assert_array_equal(picture(game, "#game"), coinrun_play.read(ref).frames[3])


def test_browse_fits_a_phone_and_turns_pages(visit: Open, browsing: str, coinrun_play: ReplayDataset) -> None:
    page = visit(browsing, viewport=PHONE)
    column = page.locator("section").first
    column.get_by_text("later").click()
    sync_api.expect(column.locator(".episode").first).to_contain_text(coinrun_play.episodes[10].episode_id)
    column.locator(".episode").first.click()
    sync_api.expect(column.locator(".viewer .live")).to_contain_text("step 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
