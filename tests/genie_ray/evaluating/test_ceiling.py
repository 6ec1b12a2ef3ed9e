"""The ceiling of ΔPSNR: real emulators that branch off recorded play, and scores worked out by hand."""

import math
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genie_ray.base.settings import to_dict
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.evaluating.ceiling import CeilingScores, other_frames
from genie_ray.games.actions import action_names
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard

GIVEN, PREDICTED = 2, 10
ATARI, GENESIS, COINRUN = "Kangaroo-Atari2600-v0", "Airstriker-Genesis-v0", "CoinRun"
Starts = list[tuple[EpisodeRef, int]]


def play(game: str, config: EnvConfig, episodes: int) -> list[Episode]:
    """Random play with each action held for a while, so that it goes somewhere."""
    played = []
    with closing(make_game(game, config)) as env:
        for index in range(episodes):
            rng = np.random.default_rng(index)
            actions = rng.integers(5, size=config.max_episode_steps // 5 + 1).repeat(5)
            frame, info = env.reset(seed=index)
            frames, infos, rewards, ended = [frame], [info], [], False
            while not ended:
                frame, reward, terminated, truncated, info = env.step(actions[len(rewards)])
                frames.append(frame)
                infos.append(info)
                rewards.append(reward)
                ended = terminated or truncated
            played.append(
                Episode(
                    episode_id=episode_id(game, "held", 0, index),
                    game=game,
                    frames=np.stack(frames),
                    actions=actions[: len(rewards)].astype(np.int8),
                    action_logp=None,
                    reward_env=np.array(rewards, np.float32),
                    reward_uncertainty=None,
                    terminated=terminated,
                    truncated=truncated,
                    infos=infos,
                )
            )
    return played


def stored(directory: Path, episodes: list[Episode], env: EnvConfig | None) -> ReplayDataset:
    write_shard(directory, episodes[0].game, "0", iter(episodes))
    metadata = DatasetMetadata(
        action_names=action_names("paper"),
        frame_shape=(64, 64, 3),
        policy="held",
        config={"env": to_dict(env)} if env else {},
        counts=count_episodes(index_episodes(directory)),
    )
    write_metadata(directory, metadata)
    return ReplayDataset(directory)


def windows(dataset: ReplayDataset, stride: int) -> tuple[Starts, Tensor, Tensor]:
    """Episode and start, true frames and actions of all windows; neighbouring ones overlap if the stride is small."""
    length = GIVEN + PREDICTED
    starts = [(ref, start) for ref in dataset.episodes for start in range(0, ref.length + 2 - length, stride)]
    episodes = {ref: dataset.read(ref) for ref in dataset.episodes}
    frames = np.stack([episodes[ref].frames[start : start + length] for ref, start in starts])
    actions = np.stack([episodes[ref].actions[start : start + length - 1] for ref, start in starts])
    return starts, torch.from_numpy(frames), torch.from_numpy(actions.astype(np.int64))


@pytest.fixture(params=[ATARI, GENESIS, COINRUN])
def game(request: pytest.FixtureRequest, roms: list[str]) -> str:
    if request.param == COINRUN:
        request.getfixturevalue("procgen")
    return request.param


def branched(dataset: ReplayDataset, starts: Starts, others_BT: Tensor) -> Tensor:
    frames, reason = other_frames(dataset, starts, others_BT, GIVEN)
    assert reason is None
    assert frames is not None
    return frames


def test_the_emulator_shows_the_recorded_frames_and_others_after_other_actions(game: str, tmp_path: Path) -> None:
    env = EnvConfig(max_episode_steps=80, coinrun_levels=(7, 50))
    dataset = stored(tmp_path, play(game, env, 2), env)
    starts, frames_BTHWC, actions_BT = windows(dataset, stride=6)
    true_BPHWC = frames_BTHWC[:, GIVEN:]
    assert len(starts) > 10
    assert torch.equal(branched(dataset, starts, actions_BT), true_BPHWC)

    # Every second window takes other actions, of which those between given frames do not count; the windows in between,
    # whose frames the branches overlap, are not disturbed.
    others_BT = actions_BT.clone()
    others_BT[::2] = (others_BT[::2] + 1) % 5
    shown = branched(dataset, starts, others_BT)
    assert torch.equal(shown[1::2], true_BPHWC[1::2])
    differs = (shown[::2] != true_BPHWC[::2]).flatten(1).any(1)
    assert differs.sum() >= 5  # Kangaroo does not listen for its first 30 steps
    others_BT[:, : GIVEN - 1] = 0
    assert torch.equal(branched(dataset, starts[::-1], others_BT.flip(0)).flip(0), shown)


def test_a_branch_shows_what_an_episode_with_these_actions_would(roms: list[str], tmp_path: Path) -> None:
    """Frame for frame, against a new emulator that plays them from the start."""
    game, env = "Hero-Atari2600-v0", EnvConfig(max_episode_steps=100)
    dataset = stored(tmp_path, play(game, env, 1), env)
    starts, _, actions_BT = windows(dataset, stride=30)
    others_BT = 4 - actions_BT
    shown = branched(dataset, starts, others_BT)
    recorded = dataset.read(dataset.episodes[0]).actions
    with closing(make_game(game, env)) as emulator:
        for (_, start), others_T, shown_PHWC in zip(starts, others_BT, shown, strict=True):
            emulator.reset()
            for action in recorded[: start + GIVEN - 1]:
                emulator.step(action)
            for action, frame_HWC in zip(others_T[GIVEN - 1 :], shown_PHWC, strict=True):
                np.testing.assert_array_equal(emulator.step(int(action))[0], frame_HWC.numpy())


def test_a_game_that_ends_within_a_branch_stands_still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    env = EnvConfig(max_episode_steps=20)
    monkeypatch.setattr("genie_ray.evaluating.ceiling.make_game", lambda game, config: Counter(config))
    frames = np.stack([np.full((64, 64, 3), step, np.uint8) for step in range(21)])
    ones = np.ones(20)
    episode = Episode(
        episode_id="Counter/held/0/000000",
        game="Counter",
        frames=frames,
        actions=ones.astype(np.int8),
        action_logp=None,
        reward_env=ones.astype(np.float32),
        reward_uncertainty=None,
        terminated=False,
        truncated=True,
        infos=[{}] * 21,
    )
    dataset = stored(tmp_path, [episode], env)
    starts, frames_BTHWC, actions_BT = windows(dataset, stride=3)
    others_BT = actions_BT.clone()
    others_BT[1, GIVEN:] = 0  # the game ends at once, after one action as recorded
    shown = branched(dataset, starts, others_BT)
    assert shown[1, :, 0, 0, 0].tolist() == [5, *[77] * 9]
    assert torch.equal(shown[[0, 2]], frames_BTHWC[[0, 2], GIVEN:])


class Counter:
    """A game whose frames count its steps; action 0 ends it, and a step after its end is an error."""

    game = "Counter"

    def __init__(self, config: EnvConfig) -> None:
        self.value = 0

    def reset(self, options: dict | None = None) -> tuple[np.ndarray, dict]:
        self.value = 0
        return self.frame(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.value != 77
        self.value = self.value + 1 if action else 77
        return self.frame(), 0.0, not action, False, {}

    def frame(self) -> np.ndarray:
        return np.full((64, 64, 3), self.value, np.uint8)

    def get_state(self) -> int:
        return self.value

    def set_state(self, state: int) -> None:
        self.value = state

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def episode(roms: list[str]) -> Episode:
    return play(ATARI, EnvConfig(max_episode_steps=40), 1)[0]


def tampered(episode: Episode) -> Episode:
    frames = episode.frames.copy()
    frames[17, 63, 63, 2] ^= 1
    return replace(episode, frames=frames)


@pytest.mark.parametrize(
    ("change", "env", "reason"),
    [
        (
            tampered,
            EnvConfig(),
            "the emulator does not reproduce Kangaroo-Atari2600-v0/held/0/000000: frame 17 of 41 differs",
        ),
        (None, EnvConfig(frame_skip=3), r"the emulator does not reproduce .*: frame \d+ of 41 differs"),
        (None, None, "the dataset does not say in which environment it was recorded"),
        (None, EnvConfig(action_set="NOOP,UP"), "action set NOOP,UP is NOOP, UP here: was RIGHT, LEFT, .*"),
        (None, EnvConfig(integrations=("/nowhere",)), ".*/nowhere.*"),
    ],
)
def test_play_that_the_emulator_does_not_reproduce_has_no_ceiling(
    episode: Episode,
    change: Callable[[Episode], Episode] | None,
    env: EnvConfig | None,
    reason: str,
    tmp_path: Path,
) -> None:
    dataset = stored(tmp_path, [change(episode) if change else episode], env)
    starts, _, actions_BT = windows(dataset, stride=20)
    frames, given = other_frames(dataset, starts, actions_BT, GIVEN)
    assert frames is None
    assert given is not None
    assert re.fullmatch(reason, given)


def test_a_missing_game_is_a_reason(episode: Episode, tmp_path: Path) -> None:
    renamed = replace(episode, game="Nonesuch-Atari2600-v0", episode_id="Nonesuch-Atari2600-v0/held/0/000000")
    dataset = stored(tmp_path, [renamed], EnvConfig())
    starts, _, actions_BT = windows(dataset, stride=20)
    frames, reason = other_frames(dataset, starts, actions_BT, GIVEN)
    assert frames is None
    assert reason is not None
    assert "Nonesuch" in reason


def test_what_cannot_be_asked_is_refused(episode: Episode, tmp_path: Path) -> None:
    dataset = stored(tmp_path, [episode], EnvConfig())
    starts, _, actions_BT = windows(dataset, stride=20)
    with pytest.raises(ValueError, match="0 to 5: must be 0 to 4"):
        other_frames(dataset, starts, torch.tensor([[0, 5, *[0] * 9]] * len(starts)), GIVEN)
    with pytest.raises(ValueError, match=r"window of 12 frames from 30 .*: must lie within 41 frames"):
        other_frames(dataset, [(dataset.episodes[0], 30)], actions_BT[:1], GIVEN)
    with pytest.raises(ValueError, match="must be a row for each window"):
        other_frames(dataset, starts, actions_BT[:1], GIVEN)
    with pytest.raises(ValueError, match="windows are of 0 games: must be of one"):
        other_frames(dataset, [], actions_BT[:0], GIVEN)


class AddsOne(nn.Module):
    """A toy tokenizer: what it decodes is brighter by one level than what it encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        assert (frames_BTHWC[:, :GIVEN] == 100).all()  # the true given frames, with either actions
        return frames_BTHWC

    def decode(self, tokens: Tensor) -> Tensor:
        return tokens + 1


def test_scores_by_hand() -> None:
    """Coded true frames are off by 1 level; other frames that are off by k levels are off by k + 1 when coded."""
    frames_BTHWC = torch.full((2, GIVEN + 2, 4, 4, 3), 100, dtype=torch.uint8)
    others_BPHWC = frames_BTHWC[:, GIVEN:].clone()
    others_BPHWC[0, 0] += 1
    others_BPHWC[0, 1] += 9
    scores, second = CeilingScores(), CeilingScores()
    scores.add(AddsOne(), frames_BTHWC[:1], others_BPHWC[:1])  # type: ignore[arg-type]
    second.add(AddsOne(), frames_BTHWC[1:], others_BPHWC[1:])  # type: ignore[arg-type]
    scores.merge(second)
    six = 20 * math.log10(2)  # error 2 in place of 1
    assert scores.window_gains(1) == pytest.approx([six, 0])
    assert scores.window_gains(2) == pytest.approx([20, 0])  # error 10 in place of 1
    assert scores.controllable(1) == [True, False]
    curves = scores.curves()
    assert curves["delta_psnr_mean"] == pytest.approx([six / 2, 10])
    assert curves["delta_psnr"] == pytest.approx([10 * math.log10((4 + 1) / 2), 10 * math.log10((100 + 1) / 2)])
