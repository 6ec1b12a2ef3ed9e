"""ROM files that are recognised: real ones zipped, renamed, behind headers, interleaved, cut short, damaged."""

import hashlib
import os
import shutil
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rom_samples import rom_of

from genie_ray.games.rom_files import LARGEST_ROM, deinterleave
from genie_ray.games.roms import add_integrations, diagnose, import_roms, installed_games

KANGAROO, AIRSTRIKER = "Kangaroo-Atari2600-v0", "Airstriker-Genesis-v0"
pytestmark = pytest.mark.usefixtures("roms")


def told(path: Path) -> tuple[str, tuple[str, ...], str]:
    """State, games and reason of the only file at a path."""
    (found,) = diagnose([path])
    return found.state, found.games, found.reason


def interleave(rom: bytes) -> bytes:
    """A ROM as a Super Magic Drive writes it: a header, then blocks of 8 KiB of odd and 8 KiB of even bytes."""
    blocks = [rom[start : start + 16384] for start in range(0, len(rom), 16384)]
    body = b"".join(block[1::2] + block[0::2] for block in blocks)
    header = bytearray(512)
    header[0], header[8:11] = len(blocks), b"\xaa\xbb\x06"
    return bytes(header) + body


@pytest.mark.parametrize("name", ["Kangaroo.a26", "kangaroo.bin", "k.ROM", "noextension"])
def test_a_plain_rom_is_recognised_whatever_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(rom_of(KANGAROO))
    assert told(tmp_path) == ("present", (KANGAROO,), "")


def test_a_wrong_extension_is_told(tmp_path: Path) -> None:
    (tmp_path / "kangaroo.nes").write_bytes(rom_of(KANGAROO))
    assert told(tmp_path) == ("present", (KANGAROO,), "a .a26 file by its content")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x01ATARI7800" + bytes(118), "Atari 7800 header of 128 bytes left out"),
        (bytes(512), "copier header of 512 bytes left out"),
    ],
)
def test_headers_are_left_out(header: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "kangaroo.bin").write_bytes(header + rom_of(KANGAROO))
    assert told(tmp_path) == ("present", (KANGAROO,), reason)


def test_interleaved_files_are_put_in_order(integration: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = integration(AIRSTRIKER, "Airstriker2-Genesis-v0")
    rom = rom_of(AIRSTRIKER)
    rom += bytes(-len(rom) % 16384)  # whole blocks, as a cartridge has
    (folder / "Airstriker2-Genesis-v0" / "rom.sha").write_text(hashlib.sha1(rom).hexdigest())
    add_integrations([folder])
    smd = interleave(rom)
    assert smd[512:] != rom
    assert deinterleave(smd[512:]) == rom
    path = tmp_path / "airstriker.smd"
    path.write_bytes(smd)
    assert told(path) == (
        "new",
        ("Airstriker2-Genesis-v0",),
        "Super Magic Drive header left out, blocks put in order",
    )
    assert import_roms([path]) == ["Airstriker2-Genesis-v0"]
    assert (folder / "Airstriker2-Genesis-v0" / "rom.md").read_bytes() == rom


def test_an_ines_file_is_known_without_its_header_and_stored_with_it(
    integration: Callable[[str, str], Path], tmp_path: Path
) -> None:
    folder = integration(KANGAROO, "Homebrew-Nes-v0")
    body = np.random.default_rng(0).bytes(24 * 1024)
    (folder / "Homebrew-Nes-v0" / "rom.sha").write_text(hashlib.sha1(body).hexdigest() + "\n")
    add_integrations([folder])
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "homebrew.nes").write_bytes(body)
    without = "the ROM of Homebrew-Nes-v0 without the iNES header that its emulator needs"
    assert told(tmp_path / "given") == ("unusable", (), without)
    (tmp_path / "given" / "homebrew.nes").write_bytes(b"NES\x1a\x01\x01" + bytes(10) + body)
    assert told(tmp_path / "given") == ("new", ("Homebrew-Nes-v0",), "")
    assert import_roms([tmp_path / "given"]) == ["Homebrew-Nes-v0"]
    assert (folder / "Homebrew-Nes-v0" / "rom.nes").read_bytes() == (tmp_path / "given" / "homebrew.nes").read_bytes()
    assert told(tmp_path / "given") == ("present", ("Homebrew-Nes-v0",), "")


def test_what_is_imported_is_what_was_announced(integration: Callable[[str, str], Path], tmp_path: Path) -> None:
    """An archived ROM with a header, shared by two games: the game that lacks it gets it, without the header."""
    folder = integration(KANGAROO, "MyKangaroo-Atari2600-v0")
    add_integrations([folder])
    with zipfile.ZipFile(tmp_path / "roms.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a2600/Kangaroo (USA).bin", bytes(512) + rom_of(KANGAROO))
        archive.writestr("a2600/", "")
    (found,) = diagnose([tmp_path / "roms.zip"])
    assert found.name == f"{tmp_path / 'roms.zip'}:a2600/Kangaroo (USA).bin"
    assert found.state == "new"
    assert set(found.games) == {KANGAROO, "MyKangaroo-Atari2600-v0"}
    assert "MyKangaroo-Atari2600-v0" not in installed_games()
    assert import_roms([tmp_path / "roms.zip"]) == sorted(found.games)
    assert (folder / "MyKangaroo-Atari2600-v0" / "rom.a26").read_bytes() == rom_of(KANGAROO)
    assert "MyKangaroo-Atari2600-v0" in installed_games()
    assert told(tmp_path / "roms.zip")[0] == "present"


def test_another_dump_is_told_by_its_title(tmp_path: Path) -> None:
    cut = rom_of(KANGAROO)[:-1]
    (tmp_path / "Kangaroo (USA) [!].a26").write_bytes(cut)
    sha1 = hashlib.sha1(cut).hexdigest()
    reason = (
        f"unknown: no game has a ROM with SHA-1 {sha1} ({len(cut):,} bytes); {KANGAROO} is another dump or revision"
    )
    assert told(tmp_path) == ("unusable", (), reason)
    (tmp_path / "Kangaroo (USA) [!].a26").rename(tmp_path / "holiday.jpg")
    assert told(tmp_path)[2] == reason.split("; ")[0]


def unencrypted_to_encrypted(archive: bytes) -> bytes:
    """The archive with the encryption flag set in the headers of its only member."""
    content = bytearray(archive)
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + offset] |= 1
    return bytes(content)


def with_method(archive: bytes, method: int) -> bytes:
    """The archive with another compression method in the headers of its only member."""
    content = bytearray(archive)
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", content, content.index(magic) + offset, method)
    return bytes(content)


def spoilt(archive: bytes) -> bytes:
    """The archive with a few bytes of its member's data changed."""
    content = bytearray(archive)
    content[200:204] = b"spoi"
    return bytes(content)


@pytest.mark.parametrize(
    ("change", "member", "reason"),
    [
        (lambda archive: archive[:-30], False, "a damaged zip archive, or one within another: unpack it"),
        (spoilt, True, "damaged in its archive: "),
        (unencrypted_to_encrypted, True, "encrypted: unpack the archive with its password"),
        (lambda archive: with_method(archive, 97), True, "compressed in a way that cannot be read ("),
        (lambda archive: b"7z\xbc\xaf\x27\x1c" + archive, False, None),  # still a zip archive, with something before it
        (lambda archive: b"7z\xbc\xaf\x27\x1c" + bytes(50), False, "a 7z archive, which is not opened: unpack it"),
        (lambda archive: b"Rar!\x1a\x07\x01\x00" + bytes(50), False, "a rar archive, which is not opened"),
        (lambda archive: b"", False, "an empty file"),
    ],
)
def test_archives_that_cannot_be_read_are_told(
    change: Callable[[bytes], bytes], member: bool, reason: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "roms.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kangaroo.a26", rom_of(KANGAROO))
    path.write_bytes(change(path.read_bytes()))
    (tmp_path / "other.a26").write_bytes(rom_of(KANGAROO))
    other, found = diagnose([tmp_path])
    assert other.games == (KANGAROO,)  # the rest of the folder is still read
    assert found.name == (f"{path}:kangaroo.a26" if member or reason is None else str(path))
    if reason is None:
        assert found.games == (KANGAROO,)
    else:
        assert (found.state, found.games) == ("unusable", ())
        assert found.reason.startswith(reason)
    assert import_roms([tmp_path]) == [KANGAROO]


def test_an_archive_within_another_and_an_empty_one_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("kangaroo.a26", rom_of(KANGAROO))
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    assert told(tmp_path / "outer.zip")[2] == "a damaged zip archive, or one within another: unpack it"
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    assert told(tmp_path / "empty.zip")[2] == "an empty archive"


def test_what_is_too_large_or_closed_is_told_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "large.bin").open("wb") as file:
        file.truncate(LARGEST_ROM + 1)
    assert told(tmp_path)[2] == "33,554,433 bytes: larger than any cartridge (33,554,432)"
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "large.bin", "large.bin")
    assert told(tmp_path / "bomb.zip")[2].startswith("33,554,433 bytes: larger")
    (tmp_path / "closed.bin").symlink_to("/proc/self/mem")  # open, but not readable
    assert told(tmp_path / "closed.bin")[2].startswith("cannot be read: ")


def test_a_folder_is_read_whole_and_a_missing_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "k.bin").write_bytes(rom_of(KANGAROO))
    shutil.copy(tmp_path / "deep" / "er" / "k.bin", tmp_path / "b.bin")
    (tmp_path / "gone.bin").symlink_to(tmp_path / "nowhere")  # dangling: not a file
    assert [Path(found.name).name for found in diagnose([tmp_path])] == ["b.bin", "k.bin"]
    with pytest.raises(ValueError, match=r"no such file or directory: .*nowhere"):
        list(diagnose([tmp_path / "nowhere"]))


def test_pipes_bombs_and_odd_names_do_not_stop_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    assert told(tmp_path / "pipe.bin")[2] == "not a file: a broken link, a pipe or a device"
    for name, kind in (("bzip2.zip", zipfile.ZIP_BZIP2), ("twice.zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(tmp_path / name, "w", kind) as archive:
            archive.writestr("rom.bin", np.random.default_rng(0).bytes(100_000))
            archive.filelist *= 2 if name == "twice.zip" else 1
    (tmp_path / "small.zip").write_bytes(shrunk(tmp_path / "plain.zip"))
    with open(os.fsencode(tmp_path) + b"/\xff.bin", "wb") as file:
        file.write(rom_of(KANGAROO))
    tracemalloc.start()
    reasons = {Path(found.name).name: found.reason for found in diagnose([tmp_path])}
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()
    assert reasons["bzip2.zip:rom.bin"].startswith("compressed in a way that cannot be read")
    assert reasons["twice.zip"] == "damaged archive: its members overlap"
    assert reasons["small.zip:rom.bin"].startswith("damaged in its archive")
    assert reasons["\\udcff.bin"] == ""


def shrunk(path: Path) -> bytes:
    """An archive whose member unpacks to 64 MiB and says that it has 100 bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rom.bin", bytes(1 << 26))
    content = bytearray(path.read_bytes())
    path.unlink()
    content[(at := content.rindex(b"PK\x01\x02") + 24) : at + 4] = (100).to_bytes(4, "little")
    return bytes(content)
