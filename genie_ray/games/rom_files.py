"""Finding out which game's ROM a file holds.

Stable-Retro identifies a ROM by the SHA-1 of the bytes that its console saw. ROM files often differ from these: a
copier or an emulator put a header before them (iNES 16 bytes, Atari 7800 128, Super Magic Drive and SNES copiers 512),
or a copier wrote them in another order (`.smd`). So a file is read in every way that its size and its first bytes
allow, and the reading whose SHA-1 is known counts.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genie_ray.base.errors import one_line
from genie_ray.base.files import shortened
from genie_ray.games.labels import fold

LARGEST_ROM = 1 << 25  # bytes; the largest that Stable-Retro imports
INES_HEADER, A78_HEADER, COPIER_HEADER = 16, 128, 512
SMD_BLOCK = 1 << 14
# Other extensions → the one that means the same, or "" if they mean nothing.
ALSO_CALLED = {".bin": "", ".rom": "", ".gen": ".md", ".smd": ".md", ".smc": ".sfc", ".fig": ".sfc", ".swc": ".sfc"}
OTHER_ARCHIVES = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar", b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz"}


@dataclass(frozen=True, kw_only=True)
class RomTarget:
    """Where a ROM belongs: a Stable-Retro game, and where Stable-Retro looks for its ROM."""

    game: str
    extension: str  # with its dot
    directory: Path


@dataclass(frozen=True, kw_only=True)
class RomFile:
    """One file, or one member of a zip archive, and what it turned out to be."""

    name: str  # path; for an archive's member, `path:member`
    targets: tuple[RomTarget, ...] = ()  # the games whose ROM it is; none: see `reason`
    content: bytes = b""  # what to store in a game's directory
    reason: str = ""  # why it is no game's ROM, or what is unusual about it


def read_rom_files(
    paths: Iterable[str | os.PathLike[str]], targets: Mapping[str, tuple[RomTarget, ...]]
) -> Iterator[RomFile]:
    """Every file under the paths, folders and zip archives included, in order of their names.

    Args:
        paths: files and directories.
        targets: SHA-1, in hexadecimal → the games whose ROM has it.

    Raises:
        ValueError: a path does not exist.
    """
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise ValueError(f"no such file or directory: {path}")
        if not path.is_dir():
            yield from _read_file(path, targets)
            continue
        unread: list[OSError] = []  # folders
        below = ((folder, name) for folder, _, names in os.walk(path, onerror=unread.append) for name in names)
        for file in sorted(Path(*parts) for parts in below):
            if os.path.isfile(file):
                yield from _read_file(file, targets)
        for error in unread:
            yield RomFile(name=_printable(error.filename), reason=f"cannot be read: {error.strerror}")


def _read_file(path: Path, targets: Mapping[str, tuple[RomTarget, ...]]) -> Iterator[RomFile]:
    name = _printable(path)
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            yield RomFile(name=name, reason="not a file: a broken link, a pipe or a device")
            return
        size = path.stat().st_size
        content = path.read_bytes() if size <= LARGEST_ROM else b""
        is_archive = zipfile.is_zipfile(path)
    except OSError as error:
        yield RomFile(name=name, reason=f"cannot be read: {error.strerror}")
        return
    as_a_whole = identify(name, content, size, targets)  # an arcade game's ROM is itself an archive
    if as_a_whole.targets or not is_archive:
        yield as_a_whole
    else:
        yield from _read_archive(path, size, targets)


def _read_archive(path: Path, size: int, targets: Mapping[str, tuple[RomTarget, ...]]) -> Iterator[RomFile]:
    name = _printable(path)
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # on a damaged directory, zipfile raises all kinds of errors
        yield RomFile(name=name, reason=f"damaged archive: {shortened(one_line(error))}")
        return
    with archive:
        members = [member for member in archive.infolist() if not member.filename.endswith("/")]
        if not members:
            yield RomFile(name=name, reason="an empty archive")
        if sum(member.compress_size for member in members) > size:  # a small file could unpack to any size
            yield RomFile(name=name, reason="damaged archive: its members overlap")
            return
        for member in members:
            yield _read_member(archive, member, f"{name}:{_printable(member.filename)}", targets)


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, targets: Mapping[str, tuple[RomTarget, ...]]
) -> RomFile:
    if member.flag_bits & 1:
        return RomFile(name=name, reason="encrypted: unpack the archive with its password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        kind = f"zip's method {member.compress_type}"
        return RomFile(name=name, reason=f"compressed in a way that cannot be read ({kind}): compress it again")
    try:
        with archive.open(member) as file:  # `archive.read` would unpack whatever there is, not what it says
            content = file.read(member.file_size) if member.file_size <= LARGEST_ROM else b""
    except Exception as error:  # on damaged files, zipfile and its decompressors raise all kinds of errors
        return RomFile(name=name, reason=f"damaged in its archive: {shortened(one_line(error))}")
    return identify(name, content, member.file_size, targets)


def identify(name: str, content: bytes, size: int, targets: Mapping[str, tuple[RomTarget, ...]]) -> RomFile:
    """The games whose ROM a file is, read in every possible way.

    Args:
        name: the file's, for the report; its extension tells what the file claims to be.
        content: of the file; ignored if it is too large.
        size: of the file, in bytes.
        targets: see `read_rom_files`.
    """
    if size == 0:
        return RomFile(name=name, reason="an empty file")
    if size > LARGEST_ROM:
        return RomFile(name=name, reason=f"{size:,} bytes: larger than any cartridge ({LARGEST_ROM:,})")
    extension = Path(name).suffix.lower()
    for notes, rom, stored in _readings(content):
        found = targets.get(hashlib.sha1(rom).hexdigest(), ())
        headerless = [target for target in found if target.extension == ".nes"] if stored is rom else []
        if headerless:
            return RomFile(
                name=name, reason=f"the ROM of {headerless[0].game} without the iNES header that its emulator needs"
            )
        if found:
            wanted = {target.extension for target in found}
            if ALSO_CALLED.get(extension, extension) not in {*wanted, ""}:
                notes = (*notes, f"a {' or '.join(sorted(wanted))} file by its content")
            return RomFile(name=name, targets=found, content=stored, reason="; ".join(notes))
    return RomFile(name=name, reason=_why_unknown(name, content, targets))


def _readings(content: bytes) -> Iterator[tuple[tuple[str, ...], bytes, bytes]]:
    """Ways to read a file: what is unusual about it, the bytes to hash, and the bytes to store."""
    if content.startswith(b"NES\x1a"):
        yield (), content[INES_HEADER:], content  # the emulator needs the header, the hash excludes it
    yield (), content, content
    if content[1:10] == b"ATARI7800":
        yield ("Atari 7800 header of 128 bytes left out",), content[A78_HEADER:], content[A78_HEADER:]
    body = content[COPIER_HEADER:]
    if len(content) % 1024 == COPIER_HEADER:
        yield ("copier header of 512 bytes left out",), body, body
        if len(body) % SMD_BLOCK == 0:
            plain = deinterleave(body)
            yield ("Super Magic Drive header left out, blocks put in order",), plain, plain


def deinterleave(body: bytes) -> bytes:
    """A Super Magic Drive file's blocks of 16 KiB, odd bytes before even ones, in the cartridge's order.

    Args:
        body: the file after its header of 512 bytes; whole blocks.
    """
    halves = np.frombuffer(body, np.uint8).reshape(-1, 2, SMD_BLOCK // 2)
    return halves[:, ::-1].transpose(0, 2, 1).tobytes()


def _why_unknown(name: str, content: bytes, targets: Mapping[str, tuple[RomTarget, ...]]) -> str:
    for magic, kind in OTHER_ARCHIVES.items():
        if content.startswith(magic):
            return f"a {kind} archive, which is not opened: unpack it or make it a zip archive"
    if content.startswith(b"PK\x03\x04"):
        return "a damaged zip archive, or one within another: unpack it"
    title = _plain(re.split(r"[(\[]", Path(name).stem)[0])  # the part before "(USA)" or "[!]"
    games = {target.game for group in targets.values() for target in group}
    same = sorted(game for game in games if _plain(fold(game).rsplit("-", 1)[0]) == title)
    others = f"; {', '.join(same)} is another dump or revision" if same else ""
    return f"unknown: no game has a ROM with SHA-1 {hashlib.sha1(content).hexdigest()} ({len(content):,} bytes){others}"


def _printable(path: str | os.PathLike[str]) -> str:
    """A path for people: bytes that are not text, and line breaks, as escapes."""
    text = os.fspath(path).encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _plain(title: str) -> str:
    """Letters and digits alone: `Space Invaders` and `space_invaders` are one title."""
    return re.sub(r"[^a-z0-9]", "", title.casefold())
