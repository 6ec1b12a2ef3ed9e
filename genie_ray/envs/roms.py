"""Which games there are, which of them have a ROM here, and how ROMs get in.

A game is named by its Stable-Retro id, for example `Kangaroo-Atari2600-v0`; the `-v0` may be left out, as GenieRedux
and RetroAct do. Stable-Retro knows about a thousand games by the SHA-1 of their ROM and ships the ROM of one,
Airstriker-Genesis. The wheel of `ale-py` carries Atari 2600 ROMs, and 32 of them are ROMs that Stable-Retro knows. ROMs
are matched and stored the way Stable-Retro's own importer does it (`python -m stable_retro.import`).
"""

import difflib
import importlib.resources
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from stable_retro import data as retro_data

INTEGRATIONS = retro_data.Integrations.ALL
HOW_TO_IMPORT = (
    "import those of ale-py with `genie-ray roms import --from-ale`, your own with `genie-ray roms import <directory>`"
)


def known_games() -> list[str]:
    """The ids of all games that Stable-Retro knows, with or without a ROM, sorted."""
    return list(retro_data.list_games(INTEGRATIONS))


def installed_games() -> list[str]:
    """The ids of the games whose ROM is here, sorted."""
    return [game for game in known_games() if _has_rom(game)]


def resolve_game(name: str) -> str:
    """The Stable-Retro id that `name` stands for; `-v0` may be left out.

    Raises:
        ValueError: no such game; the message names the nearest ones.
    """
    games = known_games()
    for candidate in (name, f"{name}-v0"):
        if candidate in games:
            return candidate
    by_folded_name = {game.removesuffix("-v0").casefold(): game for game in games}
    nearest = difflib.get_close_matches(name.removesuffix("-v0").casefold(), by_folded_name, n=3, cutoff=0.4)
    hint = f"; nearest: {', '.join(by_folded_name[match] for match in nearest)}" if nearest else ""
    raise ValueError(f"unknown game {name!r}: not one of the {len(games)} that Stable-Retro knows{hint}")


def require_rom(game: str) -> None:
    """Check that the ROM of a known game is here.

    Raises:
        ValueError: it is not; the message says how to import it.
    """
    if not _has_rom(game):
        raise ValueError(f"no ROM for {game}: {HOW_TO_IMPORT}")


def import_from_ale() -> list[str]:
    """Import the Atari 2600 ROMs that come with `ale-py`; the ids of those games, sorted.

    Raises:
        ValueError: `ale-py` is not installed.
    """
    try:
        roms = importlib.resources.files("ale_py") / "roms"
    except ModuleNotFoundError:
        raise ValueError("ale-py is not installed, which brings the Atari ROMs: pip install genie-ray[atari]") from None
    with importlib.resources.as_file(roms) as directory:
        return import_roms([directory])


def import_roms(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Import every ROM that Stable-Retro knows from files and directories, zip archives included.

    A game that has its ROM already is left as it is, so importing twice changes nothing.

    Returns:
        The ids of the games whose ROM was among the files, sorted.

    Raises:
        ValueError: a path does not exist.
    """
    targets = retro_data.get_known_hashes()
    games = set()
    for name, file in _candidates(paths):
        try:
            content, sha1 = retro_data.groom_rom(name, file)
        except ValueError:  # larger than any ROM
            continue
        if sha1 in targets:
            game, extension, directory = targets[sha1]
            games.add(game)
            if not _has_rom(game):
                _install(content, Path(directory) / game, extension)
    return sorted(games)


def _has_rom(game: str) -> bool:
    try:
        retro_data.get_romfile_path(game, INTEGRATIONS)
    except FileNotFoundError:
        return False
    return True


def _candidates(paths: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, BinaryIO]]:
    """Name and open file of everything that could be a ROM: each file, and each member of a zip archive."""
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise ValueError(f"no such file or directory: {path}")
        for file_path in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            with file_path.open("rb") as file:  # an arcade game's ROM is itself an archive
                yield file_path.name, file
            if zipfile.is_zipfile(file_path):
                with zipfile.ZipFile(file_path) as archive:
                    for member in archive.infolist():
                        with archive.open(member) as file:
                            yield member.filename, file  # type: ignore[misc]


def _install(content: bytes, directory: Path, extension: str) -> None:
    """Store a ROM under the names that Stable-Retro looks for, each file whole or not at all."""
    names = [f"rom{extension}"]
    metadata = json.loads((directory / "metadata.json").read_text())
    if "original_rom_name" in metadata:  # FBNeo tells arcade games apart by file name
        names.append(metadata["original_rom_name"])
    for name in names:
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        temporary.replace(directory / name)
