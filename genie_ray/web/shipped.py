"""World models that come along, and play that each starts from.

CoinRun's play is a dataset of its frames, which may be passed on. Of a commercial game only the actions come along
(`play.json`): the emulator plays them again, with the user's own ROM.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.games.actions import action_names
from genie_ray.games.roms import require_rom, resolve_game
from genie_ray.replay.dataset import count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard
from genie_ray.web.emulator import Emulator
from genie_ray.web.recording import played_episode

COINRUN = "CoinRun"
SHIPPED = Path(__file__).parent / "coinrun"
"""CoinRun's: `model/`, and `play/` of levels that it was not trained on."""
HERO = Path(__file__).parent / "hero"
GAMES = {COINRUN: SHIPPED, "Hero-Atari2600-v0": HERO}
PLAY = "play.json"  # game, env, policy, and the actions of episodes from the game's start


@contextmanager
def shipped(game: str | None) -> Iterator[tuple[Path, str]]:
    """The checkpoint of a game's world model and a replay dataset to start from, which may be there only meanwhile.

    Args:
        game: its id, with or without `-v0`; None: CoinRun.

    Raises:
        ValueError: no model of the game comes along, or its ROM is not installed.
    """
    name = COINRUN if game is None else resolve_game(game)
    if name not in GAMES:
        known = ", ".join(GAMES)
        raise ValueError(f"no world model of {name} comes along, only of {known}: give CHECKPOINT and --data")
    folder = GAMES[name]
    if not (folder / PLAY).is_file():
        yield folder / "model", str(folder / "play")
        return
    require_rom(name)
    with tempfile.TemporaryDirectory(prefix="genie-ray-play-") as root:
        play_again(json.loads((folder / PLAY).read_text()), Path(root))
        yield folder / "model", root


def play_again(told: dict[str, Any], root: Path) -> None:
    """Writes a replay dataset of recorded actions, played by the emulator, into an empty directory.

    Raises:
        ValueError: the emulator breaks.
    """
    game, config = told["game"], build(EnvConfig, told["env"])
    emulator = Emulator(game, config)
    try:
        episodes = [
            _played(emulator, game, episode_id(game, told["policy"], 0, number), actions)
            for number, actions in enumerate(told["episodes"])
        ]
    except RuntimeError as error:
        raise ValueError(f"{game} cannot be played: {error}") from error
    finally:
        emulator.close()
    write_shard(root, game, "shard-00000", episodes)
    metadata = DatasetMetadata(
        action_names=action_names(config.action_set),
        frame_shape=(config.frame_size, config.frame_size, 3),
        policy=told["policy"],
        config={"env": told["env"]},
        counts=count_episodes(index_episodes(root)),
    )
    write_metadata(root, metadata)


def _played(emulator: Emulator, game: str, name: str, actions: list[int]) -> Episode:
    shown = [emulator.start([])]
    for action in actions:
        if shown[-1].ended:
            raise RuntimeError(f"{name} ends after {len(shown) - 1} of {len(actions)} actions: is it another ROM?")
        shown.append(emulator.step(action))
    return played_episode(game, name, shown, actions)
