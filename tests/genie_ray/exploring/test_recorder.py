"""All play of a training is stored, each step once, also across shards, gaps and a crash."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from genie_ray.exploring import recorder
from genie_ray.exploring.config import ExplorationConfig, ExplorersConfig, RoundsConfig
from genie_ray.exploring.recorder import PlayRecorder
from genie_ray.replay.dataset import ReplayDataset, whole_of
from genie_ray.replay.schema import policy_of
from genie_ray.replay.verify import verify
from policies.play.recorded import RecordedPlay

RUN = ExplorersConfig(exploration=ExplorationConfig(epochs=12, rounds=RoundsConfig(every=3)))


def play(name: str, first: int, end: int, *, game: str | None = None, terminated: bool = False) -> RecordedPlay:
    """Steps whose frames show episode and step."""
    steps = np.arange(first, end)
    frames = np.zeros((len(steps) + 1, 64, 64, 3), np.uint8)
    frames[..., 0], frames[..., 1] = ord(name), np.arange(first, end + 1)[:, None, None]
    return RecordedPlay(
        episode=name,
        first=first,
        frames=frames,
        actions=(steps % 5).astype(np.int8),
        log_probs=np.full(len(steps), -1.0, np.float32),
        game_rewards=steps.astype(np.float32),
        rewards=np.full(len(steps), 0.5, np.float32),
        infos=[{"score": int(step)} | ({"game": game} if game else {}) for step in range(first, end + 1)],
        terminated=terminated,
        truncated=False,
    )


def arrived(*plays: RecordedPlay) -> Any:
    return SimpleNamespace(arrived=[SimpleNamespace(recorded=list(plays))])


def spans(dataset: Path) -> list[tuple[str, int, int, bool]]:
    """Episode, first and last frame of each stored piece, and whether its game ended."""
    assert verify(dataset) == []
    replay, found = ReplayDataset(dataset), []
    for ref in replay.episodes:
        piece = replay.read(ref)
        shown = piece.frames[:, 0, 0, :2].astype(int)
        assert shown[:, 1].tolist() == list(range(shown[0, 1], shown[-1, 1] + 1))
        assert piece.actions.tolist() == [step % 5 for step in shown[:-1, 1]]
        assert piece.reward_env.tolist() == shown[:-1, 1].tolist()
        assert [info["score"] for info in piece.infos] == shown[:, 1].tolist()
        assert all("game" not in info for info in piece.infos)
        found.append((chr(shown[0, 0]), int(shown[0, 1]), int(shown[-1, 1]), piece.terminated))
    return sorted(found)


def test_pieces_are_joined_within_a_shard_unless_play_is_missing(tmp_path: Path) -> None:
    recording = PlayRecorder(tmp_path, RUN, game="Kangaroo")
    recording.after_iteration(arrived(play("a", 0, 10), play("b", 0, 6, terminated=True)), 1, None)  # type: ignore[arg-type]
    recording.after_iteration(arrived(play("a", 10, 20), play("c", 0, 4)), 2, None)  # type: ignore[arg-type]
    assert not recording.dataset.exists()
    recording.after_iteration(arrived(play("c", 8, 12)), 3, None)  # type: ignore[arg-type]  # a round is due
    recording.after_iteration(arrived(play("a", 20, 25)), 4, None)  # type: ignore[arg-type]
    assert recording.get_state() == {}
    assert spans(recording.dataset) == [
        ("a", 0, 20, False), ("a", 20, 25, False), ("b", 0, 6, True), ("c", 0, 4, False), ("c", 8, 12, False),
    ]  # fmt: skip


def test_play_after_the_saved_state_is_forgotten(tmp_path: Path) -> None:
    recording = PlayRecorder(tmp_path, RUN, game="Kangaroo")
    for epoch in (1, 2, 3, 4):
        recording.after_iteration(arrived(play("abcd"[epoch - 1], 0, 5)), epoch, None)  # type: ignore[arg-type]
        if epoch == 2:
            recording.get_state()
    resumed = PlayRecorder(tmp_path, RUN, game="Kangaroo")  # killed after the round of epoch 3 was written
    resumed.forget_after(2)
    assert spans(resumed.dataset) == [("a", 0, 5, False), ("b", 0, 5, False)]
    resumed.forget_after(0)
    assert not list(resumed.dataset.glob("game=*/*.parquet"))


def test_no_more_than_a_shard_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_STEPS", 12)
    recording = PlayRecorder(tmp_path, RUN, game="Kangaroo")
    for epoch, first in ((1, 0), (2, 8)):
        recording.after_iteration(arrived(play("a", first, first + 8)), epoch, None)  # type: ignore[arg-type]
    assert spans(recording.dataset) == [("a", 0, 16, False)]


def test_ids_do_not_tell_what_an_explorer_called_its_episodes(tmp_path: Path) -> None:
    stored = []
    for run, names in (("one", "zm"), ("two", "bx")):  # as RLlib names them: at random
        recording = PlayRecorder(tmp_path / run, RUN, game="Kangaroo")
        for epoch, first in ((2, 0), (3, 5), (6, 10)):  # a round is due at 3 and 6
            plays = [play(name, first, first + 5 + number) for number, name in enumerate(names)]
            recording.after_iteration(arrived(*plays), epoch, None)  # type: ignore[arg-type]
        stored.append([(ref.episode_id, ref.length) for ref in ReplayDataset(recording.dataset).episodes])
    assert stored[0] == stored[1]
    assert len({name for name, _ in stored[0]}) == len(stored[0]) == 5
    assert sorted(map(whole_of, (name for name, _ in stored[0]))) == 2 * [stored[0][0][0]] + 3 * [stored[0][2][0]]
    assert {policy_of(name) for name, _ in stored[0]} == {"explorer-in-training"}


def test_games_have_shards_of_their_own(tmp_path: Path) -> None:
    recording = PlayRecorder(tmp_path, RUN, game="Kangaroo")
    recording.after_iteration(arrived(play("a", 0, 5, game="Hero"), play("b", 0, 7, game="Pong")), 1, None)  # type: ignore[arg-type]
    recording.write()
    counts = ReplayDataset(recording.dataset).metadata.counts
    assert {game: count.actions for game, count in counts.items()} == {"Hero": 5, "Pong": 7}
