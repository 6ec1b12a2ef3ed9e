"""Known games, installed ROMs, and how to import ROMs and add your own games.

A game is named by its Stable-Retro id, for example `Kangaroo-Atari2600-v0`; `-v0` may be left out, as GenieRedux and
RetroAct do. Stable-Retro knows about a thousand games by the SHA-1 of their ROM and ships the ROM of one,
Airstriker-Genesis. The wheel of `ale-py` contains Atari 2600 ROMs, 32 of which Stable-Retro knows. ROMs are stored
where Stable-Retro's own importer (`python -m stable_retro.import`) puts them, but recognised in more kinds of files
(`genie_ray/games/rom_files.py`).
"""

import difflib
import importlib.resources
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stable_retro import data as retro_data

from genie_ray.base.files import parse_json_object, shown
from genie_ray.games.labels import fold
from genie_ray.games.procgen import PROCGEN_GAMES, has_procgen
from genie_ray.games.rom_files import RomTarget, read_rom_files

INTEGRATIONS = retro_data.Integrations.ALL
HOW_TO_IMPORT = (
    "import those of ale-py with `genie-ray roms import --from-ale`, your own with `genie-ray roms import <directory>`"
)


RomState = Literal["new", "present", "unusable"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What importing a file would do."""

    name: str  # path; for an archive's member, `path:member`
    state: RomState  # imported; skipped: its games have their ROM; skipped: it is no game's ROM
    games: tuple[str, ...]  # whose ROM it is
    reason: str  # why it is no game's ROM, or what is unusual about it


def known_games() -> list[str]:
    """The ids of all games that Stable-Retro knows, with or without a ROM, sorted."""
    return list(retro_data.list_games(INTEGRATIONS))


def installed_games() -> list[str]:
    """The ids of the games whose ROM is installed, sorted."""
    folders = [Path(retro_data.path()) / integrations for integrations in INTEGRATIONS.paths]
    files = (file for folder in folders for file in folder.glob("*/rom.*"))
    with_rom = {file.parent.name for file in files if file.suffix in retro_data.EMU_EXTENSIONS}
    return [game for game in known_games() if game in with_rom]


def resolve_game(name: str) -> str:
    """The id that `name` stands for: a game of procgen's, or a Stable-Retro id with or without `-v0`.

    Raises:
        ValueError: no such game; the message names the nearest ones.
    """
    if name in PROCGEN_GAMES:
        return name
    games = known_games()
    for candidate in (name, f"{name}-v0"):
        if candidate in games:
            return candidate
    by_folded_name = {fold(game): game for game in (*games, *PROCGEN_GAMES)}
    nearest = difflib.get_close_matches(fold(name), by_folded_name, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(by_folded_name[match] for match in nearest)}" if nearest else ""
    raise ValueError(f"unknown game {name!r}: not one of the {len(games)} that Stable-Retro knows, nor procgen's{hint}")


def require_rom(game: str) -> None:
    """Check that the ROM of a known game is installed; for a game of procgen's, procgen.

    Raises:
        ValueError: it is not; the message says how to get it.
    """
    if game in PROCGEN_GAMES:
        if not has_procgen():
            raise ValueError(f"{game} is not installed: `genie-ray roms import --procgen` installs it")
        return
    if not _has_rom(game):
        raise ValueError(f"no ROM for {game}: {HOW_TO_IMPORT}")


def require_games(games: Iterable[str], key: str = "games") -> None:
    """Check that games are named by their full ids and have a ROM; `key` is the setting that names them.

    Raises:
        ValueError: see `resolve_game` and `require_rom`, or an id without its `-v0`.
    """
    for game in games:
        if resolve_game(game) != game:
            raise ValueError(f"{key}: {game!r} must be written in full, as {resolve_game(game)!r}")
        require_rom(game)


def import_from_ale() -> list[str]:
    """Import the Atari 2600 ROMs that come with `ale-py`; returns the ids of those games, sorted.

    Raises:
        ValueError: `ale-py` is not installed.
    """
    try:
        roms = importlib.resources.files("ale_py") / "roms"
    except ModuleNotFoundError:
        raise ValueError("ale-py, which has the Atari ROMs, is not installed: pip install genie-ray[atari]") from None
    with importlib.resources.as_file(roms) as directory:
        return import_roms([directory])


def import_roms(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Import every ROM that Stable-Retro knows from files and directories, zip archives included.

    A game that already has its ROM keeps it, so importing twice changes nothing. Files that are no game's ROM are
    skipped; `diagnose` reports them.

    Returns:
        The ids of the games whose ROM was among the files, sorted.

    Raises:
        ValueError: a path does not exist.
    """
    games = set()
    for file in read_rom_files(paths, _targets()):
        for target in file.targets:
            games.add(target.game)
            if not _has_rom(target.game):
                _install(file.content, target.directory, target.extension)
    return sorted(games)


def diagnose(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Diagnosis]:
    """What `import_roms` would do with each file, and why.

    Raises:
        ValueError: a path does not exist.
    """
    present, targets = set(installed_games()), _targets()
    for file in read_rom_files(paths, targets):
        games = tuple(target.game for target in file.targets)
        state: RomState = "unusable" if not games else "present" if present.issuperset(games) else "new"
        yield Diagnosis(name=file.name, state=state, games=games, reason=file.reason)


def add_integrations(directories: Iterable[str | os.PathLike[str]]) -> None:
    """Make the games of other integration folders known to this process.

    Such a folder holds a directory per game, as Stable-Retro's own do: `rom.sha`, `data.json`, `scenario.json`,
    `metadata.json`, start states, and the ROM as `rom.<extension>` or imported later. A folder's game replaces
    Stable-Retro's game of the same name.

    Raises:
        ValueError: a folder that does not exist, or that holds no integration.
    """
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise ValueError(f"no such directory of integrations: {directory}")
        games = [path for path in directory.iterdir() if (path / "rom.sha").is_file()]
        if not games:
            hint = f"; it is one itself: give {directory.parent}" if (directory / "rom.sha").is_file() else ""
            raise ValueError(f"{directory} holds no integration: no <game>/rom.sha in it{hint}")
        for game in games:
            if not (game / "data.json").is_file():
                raise ValueError(f"integration {game} is incomplete: data.json is missing")
        path = str(directory.resolve())
        if path not in INTEGRATIONS.paths:
            retro_data.Integrations.add_custom_path(path)


def _targets() -> dict[str, tuple[RomTarget, ...]]:
    """SHA-1 → where ROMs with it belong; a game in a user's folder may share it with one of Stable-Retro's."""
    extensions = {platform: extension for extension, platform in reversed(retro_data.EMU_EXTENSIONS.items())}
    extensions["Arcade"] = ".zip"
    targets: dict[str, tuple[RomTarget, ...]] = {}
    for integrations in reversed(INTEGRATIONS.paths):
        directory = Path(retro_data.path()) / integrations
        for path in sorted(directory.glob("*/rom.sha")):
            game = path.parent.name
            platform = game.removesuffix("-v0").rsplit("-", 1)[-1]
            if platform in extensions:
                target = RomTarget(game=game, extension=extensions[platform], directory=path.parent)
                for sha1 in path.read_text(errors="replace").split():
                    others = [other for other in targets.get(sha1, ()) if other.game != game]
                    targets[sha1] = (*others, target)
    return targets


def _has_rom(game: str) -> bool:
    try:
        retro_data.get_romfile_path(game, INTEGRATIONS)
    except FileNotFoundError:
        return False
    return True


def _install(content: bytes, directory: Path, extension: str) -> None:
    """Store a ROM under the names that Stable-Retro looks for, each file atomically."""
    names = [f"rom{extension}"]
    path = directory / "metadata.json"
    try:
        metadata = parse_json_object(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error
    if "original_rom_name" in metadata:  # FBNeo tells arcade games apart by file name
        name = metadata["original_rom_name"]
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*", name):
            raise ValueError(f"original_rom_name in {path} is {shown(name)}: must be a file's name")
        names.append(name)
    for name in names:
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(directory / name)
