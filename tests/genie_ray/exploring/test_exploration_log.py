"""An exploration's log: the warning when the reward misleads, places, and pictures."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from genie_ray.base.figures import StripRow, labelled_strip
from genie_ray.base.metrics_log import MetricsLog
from genie_ray.exploring import pictures as exploration_pictures
from genie_ray.exploring.log import ExplorationLog
from genie_ray.exploring.pictures import top_windows, write_pictures
from genie_ray.playing.agents import SCORE_FILE, keep_best, latest
from genie_ray.report.explorers import explorer_section
from policies.autoexplore.algorithm import AutoExplore
from policies.play.recorded import RecordedPlay
from policies.rewards import RewardAnswer
from tests.policies.autoexplore.small_run import Fails, config
from tests.policies.toys import ActionClient, Ready


def test_top_windows_are_apart() -> None:
    rewards = [np.full(20, np.nan, np.float32), np.zeros(30, np.float32)]
    rewards[0][5], rewards[1][[10, 12, 25]] = 3.0, [4.0, 3.5, 2.0]
    assert top_windows(rewards, count=3) == [(1, 10), (0, 5), (1, 25)]


class MapClient:
    """Answers with maps that are bright where the fragment's last frame is."""

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray], **kwargs: Any) -> "MapClient":
        self.asked = [(f.copy(), a.copy()) for f, a in zip(frames, actions, strict=True)]
        self.maps = [np.full((len(a), 4, 4), np.nan, np.float32) for a in actions]
        for maps in self.maps:
            maps[3:] = np.eye(4)
        return self

    def answer(self, timeout_s: float) -> RewardAnswer:
        return RewardAnswer(rewards=[], version="", statistics={}, maps=self.maps)


def play(length: int, best: int) -> RecordedPlay:
    """Frames that show their step; the transition by action `best` has the highest reward."""
    frames = np.zeros((length + 1, 16, 16, 3), np.uint8) + np.arange(length + 1, dtype=np.uint8)[:, None, None, None]
    rewards = np.zeros(length, np.float32)
    rewards[:3], rewards[best] = np.nan, 1.0
    return RecordedPlay(
        episode="a",
        first=0,
        frames=frames,
        actions=(np.arange(length) % 4).astype(np.int8),
        log_probs=np.zeros(length, np.float32),
        game_rewards=np.zeros(length, np.float32),
        rewards=rewards,
        infos=[{}] * (length + 1),
        terminated=False,
        truncated=True,
    )


def test_pictures_show_the_windows_that_were_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, strips = MapClient(), dict[str, Any]()

    def noting(rows: list[StripRow], *, title: str, **how: Any) -> bytes:
        strips[title] = rows
        return labelled_strip(rows, title=title, **how)

    monkeypatch.setattr(exploration_pictures, "labelled_strip", noting)
    write_pictures(tmp_path, [play(12, best=7), play(40, best=20)], client, ["NOOP", "LEFT", "RIGHT", "JUMP"])
    frames, actions = client.asked[0]
    assert len(client.asked) == 4 + 1
    assert {tuple(f[:, 0, 0, 0]) for f, _ in client.asked[:2]} == {(4, 5, 6, 7, 8), (17, 18, 19, 20, 21)}
    assert actions.tolist() == [step % 4 for step in frames[:4, 0, 0, 0]]
    # The highest reward is of the transition from frame 20 on.
    assert strips["windows with the highest rewards"][0].notes[:4] == ["LEFT", "RIGHT", "JUMP", "NOOP"]
    clip = imageio.imread(tmp_path / "episode.gif", index=None)
    assert len(clip) == 12 + 1  # the episode of the higher return per step
    for name in ("top_rewards.png", "entropy_map.png"):
        assert imageio.imread(io.BytesIO((tmp_path / name).read_bytes()), extension=".png").std() > 0


class MaplessClient(ActionClient):
    """Answers without maps, like a reward that is not computed per token."""

    def submit(self, *args: Any, **kwargs: Any) -> Ready:
        return Ready([])


def test_rewards_without_maps_have_their_strip_and_clip(tmp_path: Path) -> None:
    write_pictures(tmp_path, [play(12, best=7)], MaplessClient(), ["NOOP", "LEFT", "RIGHT", "JUMP"])
    assert {path.name for path in tmp_path.iterdir()} == {"top_rewards.png", "episode.gif"}


def test_the_report_warns_of_an_explorer_that_settled(tmp_path: Path) -> None:
    for game, late in (("Hero", 0.03), ("Kangaroo", 0.3)):
        log = MetricsLog(tmp_path / "agent" / game, from_iteration=0)
        for epoch in range(1, 8):
            wide = epoch < 5
            log.write(epoch, {"reward_mean": 0.2 if wide else 0.3, "cells_of_epoch_per_step": 0.3 if wide else late})
        log.close()
    section = explorer_section(tmp_path)
    assert section["warnings"] == [
        "Hero: the explorer settled in 1 epoch (the first is 7, the last 7): play narrowed from 0.300 distinct cells a "
        "step (epochs 1 to 3) to 0.030, while the mean reward went from 0.2 to 0.3."
    ]
    assert len(section["plots"]) == 2


class NoMaps(ActionClient):
    """Answers during play, but not when asked for maps; the second one made never answers."""

    made = 0

    def __init__(self) -> None:
        NoMaps.made += 1
        self.number = NoMaps.made

    def submit(self, *args: Any, maps: bool = False, **kwargs: Any) -> Any:
        return Fails() if maps or self.number == 2 else super().submit(*args, **kwargs)


@pytest.fixture
def algorithm(ray_session: None) -> Iterator[AutoExplore]:
    NoMaps.made = 0
    algorithm = config(updates=1, client=NoMaps).build_algo()
    yield algorithm
    algorithm.stop()


def test_only_scores_of_one_judge_that_does_not_learn_are_compared(algorithm: AutoExplore, tmp_path: Path) -> None:
    def kept(iteration: int, score: float, judge: str) -> int:
        keep_best(algorithm, tmp_path, score=score, judge=judge, iteration=iteration)
        (best,) = tmp_path.glob("best-*")
        assert latest(tmp_path, "best") == best
        document = json.loads((best / SCORE_FILE).read_text())
        assert best.name == f"best-{document['iteration']:06d}"
        return document["iteration"]

    assert kept(1, np.nan, "a") == 1  # better than nothing
    assert kept(2, 0.5, "a") == 2
    assert kept(3, 0.4, "a") == 2
    assert kept(4, np.nan, "b") == 2
    assert kept(5, 0.1, "b") == 5  # a new world model is more certain of everything
    assert kept(6, 0.05, "b") == 5
    assert kept(7, 0.1, "b") == 7
    assert kept(8, 9.0, "rf+100") == 8
    assert kept(9, 8.0, "rf+100") == 9
    assert kept(10, 7.0, "rf+200") == 10


def test_what_fails_is_told_and_the_training_goes_on(
    algorithm: AutoExplore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path, from_iteration=0)
    companion = ExplorationLog(tmp_path, "Toy", NoMaps, ["left", "right"])
    for epoch in (1, 2):
        algorithm.train()
        figures = companion.after_iteration(algorithm, epoch, log)
    assert "epoch 2: the evaluation failed (the service restarts)" in " ".join(capsys.readouterr().out.split())
    assert "evaluation_return_per_step" not in figures
    assert latest(tmp_path, "best") is None
    algorithm.eval_env_runner._client.number = 3  # the service is there again
    for epoch in (3, 4):
        algorithm.train()
        figures = companion.after_iteration(algorithm, epoch, log)
    log.close()
    assert "epoch 4: no pictures of the evaluation: the service restarts" in capsys.readouterr().out
    assert 0 <= figures["evaluation_return_per_step"] <= 1
    assert latest(tmp_path, "best") == tmp_path / "best-000004"
