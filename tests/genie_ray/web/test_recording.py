"""Recording a person's play, and handing control to a policy: a real emulator, real policies, real datasets."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import iter_windows
from genie_ray.replay.schema import Episode, policy_of
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import METADATA_FILE
from genie_ray.web.pilot import Pilots
from genie_ray.web.recording import Recorder
from genie_ray.web.session import PlaySession
from tests.genie_ray.web.agents import save_agent
from world_model.genie import GenieReduxG

RIGHT, LEFT, JUMP = 1, 2, 3
Play = Callable[..., PlaySession]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pilots(agents: Path, coinrun_play: ReplayDataset) -> Pilots:
    return Pilots(agents, coinrun_play, ["CoinRun"])


@pytest.fixture
def play(coinrun_model: GenieReduxG, coinrun_play: ReplayDataset, pilots: Pilots) -> Iterator[Play]:
    """Makes a session, by default from the shipped play."""
    made = []

    def make(dataset: ReplayDataset = coinrun_play, recorder: Recorder | None = None) -> PlaySession:
        made.append(PlaySession(coinrun_model, dataset, None, pilots=pilots, recorder=recorder))
        return made[-1]

    yield make
    for session in made:
        session.close()


def replayed(dataset: ReplayDataset, episode: Episode) -> np.ndarray:
    """The frames that the game shows, in this process, after the actions before the episode and along its own."""
    env = ProcgenEnv("CoinRun", build(EnvConfig, dataset.metadata.config["env"]))
    frames = [env.reset(options={"level": episode.infos[0]["level"]})[0]]
    before = episode.infos[0]["before"]
    frames += [env.step(action)[0] for action in (*before, *episode.actions)]
    env.close()
    return np.stack(frames[len(before) :])


def test_what_is_recorded_is_the_games_and_can_be_played_and_trained_on(
    play: Play, coinrun_play: ReplayDataset, tmp_path: Path
) -> None:
    session = play(recorder=Recorder(tmp_path, coinrun_play))
    source = coinrun_play.read(coinrun_play.episodes[0])
    session.start(source.episode_id, 5)
    actions = [RIGHT, RIGHT, JUMP, LEFT, RIGHT, JUMP, RIGHT, RIGHT]
    shown = [session.act(action) for action in actions]
    assert session.recorded.steps == len(actions)
    session.save()
    for action in (LEFT, JUMP):  # goes on in an episode of its own
        session.act(action)
    session.close()
    assert verify(tmp_path) == []
    dataset = ReplayDataset(tmp_path)
    assert dataset.metadata.config["env"] == coinrun_play.metadata.config["env"]
    episode, more = (dataset.read(ref) for ref in dataset.episodes)
    assert policy_of(episode.episode_id) == dataset.metadata.policy == "person"
    assert episode.actions.tolist() == actions
    assert episode.action_logp is None
    assert (episode.terminated, episode.truncated) == (False, True)
    np.testing.assert_array_equal(episode.frames[0], source.frames[5])
    np.testing.assert_array_equal(episode.frames[1:], [each.game_HWC for each in shown])
    np.testing.assert_array_equal(episode.frames, replayed(dataset, episode))
    assert more.infos[0]["before"] == [*source.actions[:5], *actions]
    np.testing.assert_array_equal(more.frames, replayed(dataset, more))
    (batch,) = iter_windows(dataset, "all", 4, stride=1, batch_size=100)
    assert len(batch["frames_BTHWC"]) == 6
    begin = play(dataset=dataset).start(more.episode_id, 1)
    assert begin.without_game == ""
    np.testing.assert_array_equal(begin.game_HWC, more.frames[1])


def test_a_game_is_recorded_to_its_end(play: Play, coinrun_play: ReplayDataset, tmp_path: Path) -> None:
    """Replays a recording that the game ended: rewards and end are the same; nothing is recorded after that."""
    ended = next(each for each in map(coinrun_play.read, coinrun_play.episodes) if each.terminated)
    session = play(recorder=Recorder(tmp_path, coinrun_play))
    session.start(ended.episode_id, 1)
    for action in ended.actions[1:]:
        shown = session.act(int(action))
    assert shown.ended
    session.act(RIGHT)
    assert session.recorded == dataclasses.replace(session.recorded, episodes=1, steps=len(ended.actions) - 1, error="")
    (ref,) = ReplayDataset(tmp_path).episodes
    episode = ReplayDataset(tmp_path).read(ref)
    assert episode.terminated
    np.testing.assert_array_equal(episode.reward_env, ended.reward_env[1:])
    np.testing.assert_array_equal(episode.frames, ended.frames[1:])


def test_recording_can_be_switched_off_and_on(play: Play, coinrun_play: ReplayDataset, tmp_path: Path) -> None:
    session = play(recorder=Recorder(tmp_path, coinrun_play))
    session.start()
    session.act(RIGHT)
    session.record(False)
    session.act(LEFT)
    session.record(True)
    session.act(JUMP)
    session.start()  # ends an episode, too
    dataset = ReplayDataset(tmp_path)
    assert [dataset.read(ref).actions.tolist() for ref in dataset.episodes] == [[RIGHT], [JUMP]]
    assert dataset.read(dataset.episodes[1]).infos[0]["before"][-2:] == [RIGHT, LEFT]


@pytest.mark.parametrize("sees", ["game", "model"])
def test_a_policy_plays_by_the_frames_that_it_is_to_see(
    play: Play, agents: Path, coinrun_play: ReplayDataset, tmp_path: Path, sees: str
) -> None:
    """Its actions and log-probabilities are those of the same policy on these frames; the person's have none."""
    from policies.play.acting import learned
    from policies.saved import load_policy

    session = play(recorder=Recorder(tmp_path, coinrun_play))
    seen = [session.start(), session.act(RIGHT)][1:]
    session.drive(sees)
    torch.manual_seed(3)
    for _ in range(6):
        seen.append(session.act_by_policy())
    session.drive(None)
    session.act(LEFT)
    session.save()
    act = learned(load_policy(agents / "CoinRun" / "module", epsilon=0.0, temperature=1.0))
    torch.manual_seed(3)
    expected = [act(each.game_HWC if sees == "game" else each.model_HWC, 0.0) for each in seen[:-1]]
    dataset = ReplayDataset(tmp_path)
    episode = dataset.read(dataset.episodes[0])
    assert episode.actions.tolist() == [RIGHT, *(action for action, _ in expected), LEFT]
    np.testing.assert_allclose(episode.action_logp, [math.nan, *(logp for _, logp in expected), math.nan], rtol=1e-5)
    assert [info.get("by") for info in episode.infos] == [None, "person", *[agents.name] * 6, "person"]


def test_control_comes_back_when_the_game_is_over_and_stays_over_a_new_start(
    play: Play, coinrun_play: ReplayDataset
) -> None:
    ended = next(each for each in map(coinrun_play.read, coinrun_play.episodes) if each.terminated)
    session = play()
    session.start()
    session.drive("game")
    session.start(ended.episode_id, len(ended.actions) - 1)
    assert session.driver == "game"
    session.act(int(ended.actions[-1]))
    session.act_by_policy()
    assert session.driver is None


def test_a_write_that_fails_is_told_and_play_goes_on(play: Play, coinrun_play: ReplayDataset, tmp_path: Path) -> None:
    session = play(recorder=Recorder(tmp_path, coinrun_play))
    (tmp_path / "game=CoinRun").touch()  # where a directory is to be
    session.start()
    session.act(RIGHT)
    session.save()
    assert "game=CoinRun" in session.recorded.error
    assert not session.recorded.on
    assert session.act(RIGHT).step == 2
    session.record(True)
    assert session.recorded.error == ""


def test_a_later_play_adds_and_a_killed_one_is_mended(coinrun_play: ReplayDataset, tmp_path: Path) -> None:
    played = coinrun_play.read(coinrun_play.episodes[0])

    def record_one() -> None:
        Recorder(tmp_path, coinrun_play).write(played)

    record_one()
    before = (tmp_path / METADATA_FILE).read_text()
    record_one()
    assert len(ReplayDataset(tmp_path).episodes) == 2
    (tmp_path / METADATA_FILE).write_text(before)  # as if killed between the shard and this
    with pytest.raises(ValueError, match="does not list it"):
        ReplayDataset(tmp_path)
    record_one()
    assert verify(tmp_path) == []
    assert len(ReplayDataset(tmp_path).episodes) == 3


def test_what_does_not_fit_is_refused(coinrun_play: ReplayDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds another dataset: its policy is weighted, this play's person"):
        Recorder(coinrun_play.root, coinrun_play)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty, and no play was recorded to it"):
        Recorder(tmp_path, coinrun_play)
    with pytest.raises(ValueError, match=r"no agent for CoinRun in .*nobody"):
        Pilots(tmp_path / "nobody", coinrun_play, ["CoinRun"])
    save_agent(tmp_path / "small" / "CoinRun" / "module", size=32)
    with pytest.raises(ValueError, match=r"sees frames of 32 pixels; env.frame_size is 64"):
        Pilots(tmp_path / "small", coinrun_play, ["CoinRun"])
