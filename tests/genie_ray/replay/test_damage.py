"""Damage of every kind, anywhere: readers name the file or return exactly what was written, and `verify` agrees."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import iter_windows
from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import write_shard

HERO = "Hero-Atari2600-v0"
FLIPS = 100
JUNK = (None, True, -1, 0, 10**30, 0.5, "", "junk", "RIGHT", [], [[]], [1, 2], ["a"], {}, {"a": {}}, {"a": 1})


@pytest.fixture
def shard(tmp_path: Path, make_episode, finish) -> Path:
    """The only file of a dataset of two episodes."""
    path = write_shard(tmp_path, HERO, "0", [make_episode(0, 30), make_episode(1, 20)])
    finish(tmp_path)
    return path


def everything(root: Path) -> list[object]:
    """Everything the readers return."""
    dataset = ReplayDataset(root)
    found: list[object] = [dataset.metadata]
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        found += [ref.episode_id, ref.length, episode.terminated, episode.truncated, episode.infos]
        arrays = (episode.frames, episode.actions, episode.action_logp, episode.reward_env, episode.reward_uncertainty)
        found += [array.tobytes() for array in arrays if array is not None]
    found += [
        batch["frames_BTHWC"].numpy().tobytes() for batch in iter_windows(dataset, "all", 4, stride=3, batch_size=8)
    ]
    return found


def refusal(root: Path) -> str | None:
    """The readers' error message; None if they succeed."""
    try:
        everything(root)
    except ValueError as error:
        return str(error)
    return None


def named_or_harmless(shard: Path, whole: list[object]) -> bool:
    """Whether the damage was noticed. Readers name the file or return what was written; `verify` agrees."""
    root = shard.parent.parent
    message, named = refusal(root), {problem.path for problem in verify(root)}
    if message is None:
        assert everything(root) == whole
        return bool(named)
    assert str(shard) in message
    assert shard in named
    return True


@pytest.mark.parametrize("part", ["rows", "footer"])
def test_flipped_bits(shard: Path, part: str) -> None:
    whole, content = everything(shard.parent.parent), shard.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    rng = random.Random(part)
    named = 0
    for _ in range(FLIPS):
        damaged = bytearray(content)
        damaged[rng.randrange(footer) if part == "rows" else rng.randrange(footer, len(content))] ^= 1 << rng.randrange(
            8
        )
        shard.write_bytes(damaged)
        named += named_or_harmless(shard, whole)
    if part == "footer":
        assert named == FLIPS
    else:  # pages are all but their headers, in which some bits mean nothing
        assert named > 0.9 * FLIPS


def test_overwritten_stretches(shard: Path) -> None:
    whole, content = everything(shard.parent.parent), shard.read_bytes()
    rng = random.Random(0)
    for length in (2, 16, 128, 1024):
        for _ in range(15):
            start = rng.randrange(len(content) - length)
            shard.write_bytes(content[:start] + rng.randbytes(length) + content[start + length :])
            assert named_or_harmless(shard, whole)


def test_cut_off_anywhere(shard: Path) -> None:
    whole, content = everything(shard.parent.parent), shard.read_bytes()
    for length in [*range(0, 16), *np.linspace(16, len(content) - 1, 60).astype(int)]:
        shard.write_bytes(content[:length])
        assert named_or_harmless(shard, whole)


def test_anything_else_under_its_name(shard: Path) -> None:
    whole = everything(shard.parent.parent)
    for content in (
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1\xff\xff\xff\xffPAR1",
        b"{}",
        bytes(5000),
        shard.read_bytes()[::-1],
    ):
        shard.write_bytes(content)
        assert named_or_harmless(shard, whole)


@pytest.mark.parametrize("junk", ["", "{", "[]", "null", "3", '"text"', "{}", b"\xff\xfe\x00", b"PAR1"])
def test_metadata_that_is_none(shard: Path, junk: str | bytes) -> None:
    path = shard.parent.parent / METADATA_FILE
    path.write_bytes(junk.encode() if isinstance(junk, str) else junk)
    with pytest.raises(ValueError, match=METADATA_FILE) as error:
        ReplayDataset(path.parent)
    assert "\n" not in str(error.value)
    assert [problem.path for problem in verify(path.parent)] == [path]


def test_metadata_with_junk_in_each_place(shard: Path) -> None:
    root = shard.parent.parent
    whole, values = everything(root), json.loads((root / METADATA_FILE).read_text())
    places: list[Callable[[dict, object], object]] = [
        *(lambda values, junk, key=key: values.update({key: junk}) for key in values),
        lambda values, junk: values["counts"].update({HERO: junk}),
        lambda values, junk: values["counts"][HERO].update(episodes=junk),
        lambda values, junk: values["frame_shape"].__setitem__(1, junk),
        lambda values, junk: values["action_names"].__setitem__(1, junk),
        lambda values, junk: values["files"].update({f"game={HERO}/0.parquet": junk}),
    ]
    refused = 0
    for place in places:
        for junk in JUNK:
            changed = json.loads(json.dumps(values))
            place(changed, junk)
            (root / METADATA_FILE).write_text(json.dumps(changed))
            message = refusal(root)
            if message is None:
                assert everything(root)[1:] == whole[1:]
            else:
                assert METADATA_FILE in message or str(shard) in message
                assert "\n" not in message
                assert verify(root)
                refused += 1
    assert refused > 0.8 * len(places) * len(JUNK)
