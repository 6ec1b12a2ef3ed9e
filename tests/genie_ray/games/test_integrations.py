"""The user's own games, from integration folders: in this process, in emulator processes and in rollout workers."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from rom_samples import rom_of

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import add_integrations, import_roms, installed_games, known_games
from genie_ray.replay.dataset import ReplayDataset

HERO, MINE = "Hero-Atari2600-v0", "MyHero2-Atari2600-v0"
Integration = Callable[[str, str], Path]


@pytest.fixture
def mine(integration: Integration) -> EnvConfig:
    """Hero under another id, with its ROM, in its own folder; returns the settings that name this folder."""
    folder = integration(HERO, MINE)
    (folder / MINE / "rom.a26").write_bytes(rom_of(HERO))
    assert MINE not in known_games()
    return EnvConfig(integrations=(str(folder),), max_episode_steps=60)


def play(game: str, config: EnvConfig) -> np.ndarray:
    with closing(RetroEnv(game, config)) as env:
        return np.stack([env.reset()[0], *(env.step(action)[0] for action in np.arange(40) % 5)])


def test_a_copied_integration_plays_as_its_original(mine: EnvConfig) -> None:
    np.testing.assert_array_equal(play("MyHero2-Atari2600", mine), play(HERO, EnvConfig()))
    assert MINE in installed_games()
    assert HERO in installed_games()


def test_emulator_processes_know_it(mine: EnvConfig) -> None:
    """Processes that start with only the settings, like RLlib's sub-environments on another machine."""
    expected = play(MINE, mine)[:3]
    vector = gym.vector.AsyncVectorEnv([lambda: RetroEnv(MINE, mine)] * 2, context="spawn")
    with closing(vector):
        frames = [vector.reset()[0], *(vector.step(np.array([action, action]))[0] for action in (0, 1))]
    for index in range(2):
        np.testing.assert_array_equal(np.stack(frames)[:, index], expected)


@pytest.mark.slow
def test_rollout_workers_know_it(mine: EnvConfig, ray_session: None, tmp_path: Path) -> None:
    collect(tmp_path / "play", Policy(name="random"), [MINE], 60, CollectionConfig(), mine)
    dataset = ReplayDataset(tmp_path / "play")
    (ref,) = dataset.episodes
    assert (ref.game, ref.length) == (MINE, 60)
    episode = dataset.read(ref)
    with closing(RetroEnv(HERO, EnvConfig())) as original:
        frames = [original.reset()[0], *(original.step(action)[0] for action in episode.actions)]
    np.testing.assert_array_equal(episode.frames, np.stack(frames))


def test_relative_folders_are_those_of_where_they_were_given(mine: EnvConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(mine.integrations[0]).parent)
    relative = EnvConfig(integrations=("integrations",))
    monkeypatch.chdir("/")
    assert relative.integrations == mine.integrations
    RetroEnv(MINE, relative)


def test_adding_twice_changes_nothing_and_roms_are_imported_into_it(integration: Integration, tmp_path: Path) -> None:
    folder = integration(HERO, MINE)
    add_integrations([folder])
    add_integrations([folder, os.path.relpath(folder)])
    assert known_games().count(MINE) == 1
    assert MINE not in installed_games()
    (tmp_path / "hero.bin").write_bytes(rom_of(HERO))
    assert import_roms([tmp_path / "hero.bin"]) == [HERO, MINE]
    assert MINE in installed_games()


def test_folders_without_integrations_are_told(integration: Integration, tmp_path: Path) -> None:
    folder = integration(HERO, MINE)
    with pytest.raises(ValueError, match=r"no such directory of integrations: .*nowhere"):
        add_integrations([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no integration: no <game>/rom\.sha in it$"):
        RetroEnv(HERO, EnvConfig(integrations=(str(tmp_path / "empty"),)))
    with pytest.raises(ValueError, match=rf"holds no integration: .*; it is one itself: give {folder}$"):
        add_integrations([folder / MINE])
    (folder / MINE / "data.json").unlink()
    with pytest.raises(ValueError, match=rf"integration .*{MINE} is incomplete: data\.json is missing"):
        add_integrations([folder])
