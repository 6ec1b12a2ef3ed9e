"""Targets: labels of games in CSV files, and folders of ROMs."""

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from genie_ray.games.labels import CONTROLS, GENRES, MOTIONS, OWN_FILE, VIEWS, read_labels
from genie_ray.games.rom_files import LARGEST_ROM, RomTarget, read_rom_files
from genie_ray.probing.label_file import write_labels
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import JUNK, bomb, bomb_archive, damaged_bytes, pick

TAGS = "game,tags\nSonicTheHedgehog-Genesis,side h pl\nHero-Atari2600,side free pl\n"
CONTROL_LABELS = (
    "game,RIGHT,LEFT,UP,DOWN,ACTION_JUMP,ACTION_SECONDARY,transition,Background_Changes\n"
    "SonicTheHedgehog-Genesis,right,left,none,crouch,jump,none,NO,YES\nairstriker-genesis,right,left,up,down,shoot,none,NO,NO\n"
)
CELLS = ("", '"', "'", ",", "\n", "\r", '"a\nb"', "side", "viewed", "probe", "right", "game", "=1+1", *map(str, JUNK))
ALLOWED = ((VIEWS, "view"), (MOTIONS, "motion"), (GENRES, "genre"))


def labels(directory: Path) -> Check:
    """Files of labels, and adding to them."""
    texts = (TAGS, CONTROL_LABELS, "\n".join(OWN_FILE.read_text().split("\n")[:6]) + "\n")

    def check(rng: Generator) -> None:
        path, text = directory / "labels.csv", pick(rng, texts)
        path.write_bytes(_damaged_csv(rng, text))
        if not (read := accepted(lambda: read_labels(path))):
            return
        for entry in read[0].entries:
            assert entry.game.strip() == entry.game != ""
            assert all(getattr(entry, name) in (None, *words) for words, name in ALLOWED)
            assert all(value in CONTROLS for value in entry.controls.values())
        if accepted(lambda: write_labels(path, {"Pitfall-Atari2600-v0": {"RIGHT": "right"}})):
            again = {entry.game: entry for entry in read_labels(path).entries}
            assert all(again[entry.game] == entry for entry in read[0].entries if "pitfall" not in entry.game.lower())

    return check


def _damaged_csv(rng: Generator, text: str) -> bytes:
    if rng.random() < 0.5:
        return damaged_bytes(rng, text.encode())
    rows = [line.split(",") for line in text.split("\n")]
    for _ in range(int(rng.integers(1, 4))):
        row = pick(rng, rows)
        pick(rng, (row.append, lambda cell, row=row: row.__setitem__(int(rng.integers(len(row))), cell)))(
            pick(rng, CELLS)
        )
    rows += rows[int(rng.integers(len(rows))) :] if rng.random() < 0.2 else []
    start = pick(rng, ("", "", "\ufeff", "\n\n", "sep=,\n"))
    return (start + pick(rng, ("\n", "\r\n", "\r")).join(map(",".join, rows))).encode(errors="surrogatepass")


def rom_folders(directory: Path) -> Check:
    """Folders with ROMs, archives, bombs, loops and pipes."""
    for kind in BOMBS:
        bomb(kind)  # takes seconds, which no input should
    rng = np.random.default_rng(0)
    roms = [rng.bytes(4096), b"NES\x1a" + bytes(12) + rng.bytes(8192), bytes(512) + rng.bytes(1 << 15)]
    hashed = (roms[0], roms[1][16:], roms[2][512:])
    games = {
        hashlib.sha1(rom).hexdigest(): (RomTarget(game=f"Game{n}-Nes-v0", extension=extension, directory=directory),)
        for n, (rom, extension) in enumerate(zip(hashed, (".a26", ".nes", ".sfc"), strict=True))
    }

    def check(rng: Generator) -> None:
        folder = directory / "roms"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for number in range(int(rng.integers(1, 4))):
            pick(rng, FILES)(rng, folder, f"file{number}{pick(rng, ('.zip', '.nes', '.bin', '', '.smd', '.é'))}", roms)
        given = [folder, *folder.rglob("*")] if rng.random() < 0.3 else [folder]
        found = accepted(lambda: list(read_rom_files(given, games)))
        for file in found[0] if found else []:
            file.name.encode()  # can be printed
            assert len(file.reason.splitlines()) <= 1, f"a reason of several lines: {file.reason!r}"
            assert file.targets or file.reason
            assert len(file.content) <= LARGEST_ROM
            assert not file.targets or file.content[-4096:] in {rom[-4096:] for rom in roms}, (
                "took other bytes for a ROM"
            )
        assert found or given != [folder], "one bad file stops a whole folder"

    return check


def _plain(rng: Generator, folder: Path, name: str, roms: list[bytes]) -> None:
    content = pick(rng, roms)
    (folder / name).write_bytes(content if rng.random() < 0.3 else damaged_bytes(rng, content))


def _archive(rng: Generator, folder: Path, name: str, roms: list[bytes]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", pick(rng, COMPRESSIONS)) as archive:
        for number, rom in enumerate(roms[: int(rng.integers(1, 4))]):
            archive.writestr(pick(rng, ("rom.nes", "../up", "/abs", "é", "a\nb", "x" * 300)) + str(number), rom)
    content = file.getvalue()
    directory = content.rindex(b"PK\x01\x02")
    first = pick(rng, (0, directory, content.index(b"PK\x01\x02")))
    (folder / name).write_bytes(damaged_bytes(rng, content, first, pick(rng, (None, first + 60))))


def _bomb(rng: Generator, folder: Path, name: str, roms: list[bytes]) -> None:
    """A member that says it is small, and unpacks to a lot; or says that it is huge."""
    size = int(rng.choice([100, 4096, LARGEST_ROM, LARGEST_ROM + 1, 2**32 - 1]))
    (folder / name).write_bytes(bomb_archive("rom.nes", pick(rng, BOMBS), size))


BOMBS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _overlapping(rng: Generator, folder: Path, name: str, roms: list[bytes]) -> None:
    """Many members that share the same compressed bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rom.nes", bytes(LARGEST_ROM))
        archive.filelist *= pick(rng, (2, 1000))
    (folder / name).write_bytes(file.getvalue())


def _special(rng: Generator, folder: Path, name: str, roms: list[bytes]) -> None:
    path = folder / name
    kind = int(rng.integers(7))
    if kind == 0:
        path.symlink_to(path)
    elif kind == 1:
        path.symlink_to(folder)
    elif kind == 2:
        path.symlink_to(folder / "nowhere")
    elif kind == 3:
        os.mkfifo(path)
    elif kind == 4:
        path.symlink_to("/dev/zero")
    elif kind == 5:
        with open(os.fsencode(folder) + b"/\xff" + os.fsencode(name), "wb") as file:
            file.write(pick(rng, roms))
    else:
        with path.open("wb") as file:
            file.truncate(pick(rng, (0, LARGEST_ROM, LARGEST_ROM + 1, 1 << 40)))


FILES: tuple[Callable[[Generator, Path, str, list[bytes]], None], ...] = (
    *(_plain, _plain, _plain, _archive, _archive, _archive, _archive, _archive, _archive, _special, _special),
    _bomb,
    _overlapping,
)
