"""The ceiling of ΔPSNR: real emulators that branch off recorded play, and scores worked out by hand."""

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genie_ray.base.settings import to_dict
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.evaluating.ceiling import ceiling_errors, other_frames
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.windows import random_actions, read_batches, window_starts
from genie_ray.games.actions import action_names
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard

GIVEN, PREDICTED = 2, 10
ATARI, GENESIS = "Kangaroo-Atari2600-v0", "Airstriker-Genesis-v0"
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


@pytest.fixture(params=[ATARI, GENESIS, "CoinRun", "Maze"])
def game(request: pytest.FixtureRequest, roms: list[str]) -> str:
    if request.param in PROCGEN_GAMES:
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


def test_errors_are_those_of_the_emulators_frames_as_the_tokenizer_shows_them(
    roms: list[str], ray_session: None, tmp_path: Path
) -> None:
    """A coding that brightens by one level; the random actions are those that models get."""
    env, config = EnvConfig(max_episode_steps=60), EvaluationConfig(stride=15, batch_size=2, seed=3)
    dataset = stored(tmp_path, play(ATARI, env, 2), env)
    starts = window_starts(dataset, ATARI, config)
    coded: list[Tensor] = []

    def brighter(frames_BTHWC: Tensor, actions_BT: Tensor, seeds: Sequence[int]) -> Tensor:
        coded.append(frames_BTHWC)
        return frames_BTHWC[:, GIVEN:].clamp(max=254) + 1

    errors_WP, reason = ceiling_errors(dataset, starts, brighter, config)
    assert reason is None
    assert errors_WP is not None
    for batch, clips in zip(read_batches(dataset, starts, config), coded, strict=True):
        others_BT = random_actions(batch.actions_BT, 5, config, batch.seeds(3, "random"))
        shown = branched(dataset, list(batch.starts), others_BT)
        assert torch.equal(clips, torch.cat([batch.frames_BTHWC[:, :GIVEN], shown], dim=1))
    true = torch.cat([batch.frames_BTHWC for batch in read_batches(dataset, starts, config)])[:, GIVEN:]
    shown = torch.cat(coded)[:, GIVEN:].clamp(max=254) + 1
    wanted = ((shown.double() - true.double()) / 255).square().mean(dim=(2, 3, 4))
    torch.testing.assert_close(errors_WP, wanted, rtol=1e-5, atol=1e-9)


def test_without_its_environment_a_dataset_has_no_ceiling(tmp_path: Path) -> None:
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    episode = Episode(
        episode_id=episode_id(ATARI, "held", 0, 0),
        game=ATARI,
        frames=frames,
        actions=np.zeros(19, np.int8),
        action_logp=None,
        reward_env=np.zeros(19, np.float32),
        reward_uncertainty=None,
        terminated=False,
        truncated=True,
        infos=[{}] * 20,
    )
    dataset, config = stored(tmp_path, [episode], None), EvaluationConfig()
    errors_WP, reason = ceiling_errors(dataset, window_starts(dataset, ATARI, config), lambda *_: frames, config)
    assert errors_WP is None
    assert reason == "the dataset does not say in which environment it was recorded"
