"""To the published layout and back; import of plain clips."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.exchange.convert import export_published, import_recordings
from genie_ray.replay.exchange.recordings import ImportConfig
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import read_metadata, write_metadata, write_shard

HERO, KANGAROO = "Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"
NAMES = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
AS_STORED = ImportConfig()


def play(steps: int = 12, size: int = 64) -> np.ndarray:
    """Game-like frames [steps + 1, size, size, 3]: a smooth background and a moving sprite."""
    y, x = np.mgrid[:size, :size]
    frames = np.repeat(np.stack([2 * x, 2 * y, x + y], axis=-1)[None] % 256, steps + 1, axis=0).astype(np.uint8)
    for step, frame in enumerate(frames):
        frame[20:28, 3 * step : 3 * step + 8] = (220, 60, 40)
    return frames


@pytest.fixture
def dataset(tmp_path: Path, make_episode, finish) -> ReplayDataset:
    """Two games, three episodes, with every field an episode can have."""
    uncertainty = np.array([math.nan, *np.linspace(0, 1, 19)], np.float32)
    episodes = [
        make_episode(0, reward_uncertainty=uncertainty),
        make_episode(1, 9, action_logp=None, reward_uncertainty=None),
    ]
    write_shard(tmp_path / "data", HERO, "0", episodes)
    write_shard(tmp_path / "data", KANGAROO, "0", [make_episode(2, 5, KANGAROO)])
    return finish(tmp_path / "data")


@pytest.mark.parametrize("pictures", ["png", "mp4"])
def test_lossless_round_trip(tmp_path: Path, make_episode, finish, pictures: str) -> None:
    """Everything comes back, bit for bit."""
    uncertainty = np.array([math.nan, *np.linspace(0, 1, 11)], np.float32)
    episodes = [
        make_episode(0, 12, frames=play(), reward_uncertainty=uncertainty),
        make_episode(1, 12, frames=play()[::-1], action_logp=None, reward_uncertainty=None),
    ]
    write_shard(tmp_path / "data", HERO, "0", episodes)
    write_shard(tmp_path / "data", KANGAROO, "0", [make_episode(2, 12, KANGAROO, frames=play() // 2)])
    before = finish(tmp_path / "data", (64, 64, 3))
    directories = export_published(before, tmp_path / "out", pictures)
    assert [path.name for path in directories] == ["retro_hero-atari2600_v0.0.0", "retro_kangaroo-atari2600_v0.0.0"]
    after = ReplayDataset(import_recordings(tmp_path / "out", tmp_path / "back", AS_STORED))
    assert after.metadata.action_names == NAMES
    assert after.metadata.counts == before.metadata.counts
    assert verify(after.root) == []
    for theirs, ours in zip(before.episodes, after.episodes, strict=True):
        a, b = before.read(theirs), after.read(ours)
        for name, value in vars(a).items():
            np.testing.assert_equal(getattr(b, name), value, name)


def test_jpeg_round_trip_is_close(tmp_path: Path, make_episode, finish) -> None:
    write_shard(tmp_path / "data", HERO, "0", [make_episode(0, 12, frames=play())])
    before = finish(tmp_path / "data", (64, 64, 3))
    export_published(before, tmp_path / "out", "jpg")
    after = ReplayDataset(import_recordings(tmp_path / "out", tmp_path / "back", AS_STORED))
    found, frames = after.read(after.episodes[0]), play()
    np.testing.assert_array_equal(found.actions, before.read(before.episodes[0]).actions)
    error = np.square(found.frames.astype(float) - frames).mean()
    assert 0 < error < 20  # 35 dB
    assert all(
        np.square(a.astype(float) - b).mean() < np.square(a.astype(float) - frames[0]).mean()
        for a, b in zip(found.frames[4:], frames[4:], strict=True)
    )


def test_the_released_reader_finds_its_way(tmp_path: Path, dataset: ReplayDataset) -> None:
    """The released `EnvironmentDataset`'s steps, one by one, give our frames and actions."""
    export_published(dataset, tmp_path / "out", "png")
    for directory, game in zip(sorted((tmp_path / "out").iterdir()), (HERO, KANGAROO), strict=True):
        assert directory.name.split("_")[1] == game.removesuffix("-v0").lower()  # its list of wanted games
        info = json.loads((directory / "info.json").read_text())
        assert info["generator_config"]["output_mode"] == "frame"
        assert info["info"]["action_space"][-1] == 5
        refs = [ref for ref in dataset.episodes if ref.game == game]
        sessions = sorted(int(path.name) for path in (directory / "000000").iterdir())
        assert sessions == list(range(len(refs)))
        for session, ref in zip(sessions, refs, strict=True):
            folder = directory / "000000" / f"{session:06d}"
            steps = json.loads((folder / "actions.json").read_text())["actions"]
            steps = [step for step in steps if step["src_id"] != -1]
            ids = [step["src_id"] for step in steps] + [steps[-1]["tgt_id"]]
            frames = [cv2.imread(str(folder / "frames" / f"{index:06d}.png"))[..., ::-1] for index in ids]
            episode = dataset.read(ref)
            np.testing.assert_array_equal(frames, episode.frames)
            one_hot = np.array([step["action"] for step in steps], np.uint8)
            np.testing.assert_array_equal(one_hot.argmax(axis=1), episode.actions)
            assert (one_hot.sum(axis=1) == 1).all()


def test_the_released_reader_can_seek_in_a_video(tmp_path: Path, make_episode, finish) -> None:
    frames = play()
    write_shard(tmp_path / "data", HERO, "0", [make_episode(0, 12, frames=frames)])
    (directory,) = export_published(finish(tmp_path / "data", (64, 64, 3)), tmp_path / "out", "mp4")
    video = cv2.VideoCapture(str(directory / "000000/000000/frames.mp4"))
    for index in (0, 7, 12, 3):
        video.set(cv2.CAP_PROP_POS_FRAMES, index)
        there, frame = video.read()
        assert there
        np.testing.assert_array_equal(frame[..., ::-1], frames[index])


def generate(root: Path, frames: np.ndarray, actions: list[object], limit: int) -> Path:
    """A game's directory as the released generator writes it: no frame before the first action, JPEG by OpenCV."""
    folder = root / "retro_hero-atari2600_v0.0.0" / "000000" / "000000"
    (folder / "frames").mkdir(parents=True)
    steps = []
    for index, (frame, action) in enumerate(zip(frames, actions, strict=True)):
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.jpg"), frame[..., ::-1])
        steps.append({"src_id": index - 1, "tgt_id": index, "action": action, "extras": {"lives": 3, "score": index}})
    (folder / "actions.json").write_text(json.dumps({"actions": steps}))
    info = {
        "game": "Hero-Atari2600",
        "action_space": [5],
        "action_captions": [["RIGHT"], ["ACTION_JUMP", "LEFT"], "UP"],
    }
    document = {"info": info, "version": "0.0.0", "generator_config": {"n_steps_max": limit, "output_mode": "frame"}}
    (folder.parents[1] / "info.json").write_text(json.dumps(document))
    return folder


def test_import_of_generated_data(tmp_path: Path) -> None:
    frames = play(5)
    generate(tmp_path / "in", frames, [[0, 0, 1], [1, 0, 0], [0, 1, 0], 2, 1, 0], limit=6)
    dataset = ReplayDataset(import_recordings(tmp_path / "in", tmp_path / "out", ImportConfig(policy="random")))
    assert dataset.metadata.action_names == ("RIGHT", "JUMP+LEFT", "UP")
    episode = dataset.read(dataset.episodes[0])
    assert episode.episode_id == f"{HERO}/random/0/000000"
    assert episode.actions.tolist() == [0, 1, 2, 1, 0]  # the first of the six led to the first frame
    assert [info["score"] for info in episode.infos] == [0, 1, 2, 3, 4, 5]
    assert np.isnan(episode.reward_env).all()
    assert (episode.terminated, episode.truncated) == (False, True)  # the limit was six steps
    assert np.square(episode.frames.astype(float) - frames).mean() < 20


def test_damaged_generated_data_is_named(tmp_path: Path) -> None:
    folder = generate(tmp_path / "in", play(5), [[0, 1, 0]] * 6, limit=6)
    actions, picture = folder / "actions.json", folder / "frames" / "000003.jpg"
    whole, steps = actions.read_text(), json.loads(actions.read_text())["actions"]
    two_hot = [*steps[:2], {**steps[2], "action": [1, 1, 0]}, *steps[3:]]
    unknown = [*steps[:2], {**steps[2], "action": 5}, *steps[3:]]
    for text, told in (
        ("", "damaged or missing .*actions.json"),
        ("3", "damaged .*actions.json: it holds a int"),
        ('{"actions": [1]}', "damaged .*actions.json"),
        ('{"actions": []}', "actions.json has no actions"),
        (json.dumps(steps[:2] + steps[3:]), "actions.json lacks a step"),
        (json.dumps(two_hot), "neither a number nor one-hot"),
        (json.dumps(unknown), "000000 has action 5: must be 0 or more and below 3"),
    ):
        actions.write_text(text)
        with pytest.raises(ValueError, match=told):
            import_recordings(tmp_path / "in", tmp_path / "out", AS_STORED)
    actions.write_text(whole)
    for content in (b"", picture.read_bytes()[:100]):
        picture.write_bytes(content)
        with pytest.raises(ValueError, match=r"000003\.jpg is missing or not a picture"):
            import_recordings(tmp_path / "in", tmp_path / "out", AS_STORED)
    picture.unlink()
    with pytest.raises(ValueError, match=r"000003\.jpg is missing or not a picture"):
        import_recordings(tmp_path / "in", tmp_path / "out", AS_STORED)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_import_of_clips(tmp_path: Path) -> None:
    """Lossless clips come back bit for bit, with as many actions as frames or one fewer, as numbers or names."""
    frames = play(5)
    source = tmp_path / "Pong"
    source.mkdir()
    np.savez_compressed(source / "a.npz", frames=frames, actions=["UP", "DOWN", "UP", "UP", "DOWN", "UP"])
    imageio.imwrite(source / "b.gif", frames[::-1], duration=50, loop=0)
    (source / "b.json").write_text(json.dumps(["DOWN"] * 5))
    dataset = ReplayDataset(import_recordings(source, tmp_path / "out", ImportConfig(policy="me")))
    first, second = (dataset.read(ref) for ref in dataset.episodes)
    assert (first.episode_id, second.episode_id) == ("Pong/me/0/000000", "Pong/me/0/000001")
    assert dataset.metadata.action_names == ("DOWN", "UP")
    np.testing.assert_array_equal(first.frames, frames)
    assert first.actions.tolist() == [1, 0, 1, 1, 0]
    assert second.actions.tolist() == [0] * 5
    assert np.square(second.frames.astype(float) - frames[::-1]).mean() < 100  # 256 colours
    assert verify(tmp_path / "out") == []


def test_clips_are_resized_on_demand_and_refused_otherwise(tmp_path: Path) -> None:
    for name, size in (("a", 64), ("b", 32)):
        np.savez(tmp_path / f"{name}.npz", frames=play(3, size), actions=[0, 1, 2])
    with pytest.raises(ValueError, match=r"b\.npz are 32×32 pixels, others 64×64: give a frame size"):
        import_recordings(tmp_path, tmp_path / "out", ImportConfig(game="Pong"))
    dataset = ReplayDataset(import_recordings(tmp_path, tmp_path / "small", ImportConfig(game="Pong", frame_size=16)))
    assert dataset.metadata.frame_shape == (16, 16, 3)
    assert dataset.metadata.action_names == ("0", "1", "2")
    whole = play(3)[0].astype(float).reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))  # by area
    np.testing.assert_allclose(dataset.read(dataset.episodes[0]).frames[0], whole, atol=0.51)


def test_clips_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to import in"):
        import_recordings(tmp_path, tmp_path / "out", AS_STORED)
    clip, actions = tmp_path / "a.gif", tmp_path / "a.json"
    imageio.imwrite(clip, play(3), duration=50)
    with pytest.raises(ValueError, match=r"missing .*a\.json"):
        import_recordings(clip, tmp_path / "out", AS_STORED)
    for text, told in (
        ("[1.5]", "must be a list of numbers or of names"),
        ("{}", "must be a list of numbers or of names"),
        ("[]", "must be a list of numbers or of names"),
        ("[0, 1]", r"a\.gif has 4 frames and 2 actions"),
        ('["UP", "WAIT", "UP"]', r"a\.gif has action 'WAIT': allowed are UP, DOWN"),
    ):
        actions.write_text(text)
        config = ImportConfig(action_names=("UP", "DOWN"))
        with pytest.raises(ValueError, match=told):
            import_recordings(clip, tmp_path / "out", config)
    actions.write_text("[0, 1, 0]")
    for broken in (tmp_path / "b.gif", tmp_path / "b.mp4", tmp_path / "b.npz"):
        broken.write_bytes(b"no such thing")
        broken.with_suffix(".json").write_text("[0]")
        with pytest.raises(ValueError, match=broken.name):
            import_recordings(broken, tmp_path / "out", ImportConfig(action_names=("UP", "DOWN")))
        broken.unlink()


def test_seven_actions_are_coinruns_or_refused(tmp_path: Path, dataset: ReplayDataset) -> None:
    metadata = read_metadata(dataset.root)
    coinrun = ("NOOP", "RIGHT", "LEFT", "JUMP", "RIGHT+JUMP", "LEFT+JUMP", "DOWN")
    write_metadata(dataset.root, replace(metadata, action_names=coinrun))
    game, _ = export_published(ReplayDataset(dataset.root), tmp_path / "out", "png")
    steps = json.loads((game / "000000/000000/actions.json").read_text())["actions"]
    assert [step["action"] for step in steps[1:]] == dataset.read(dataset.episodes[0]).actions.tolist()
    back = ReplayDataset(import_recordings(tmp_path / "out", tmp_path / "back", AS_STORED))
    assert back.metadata.action_names == coinrun
    write_metadata(dataset.root, replace(metadata, action_names=coinrun[::-1]))
    with pytest.raises(ValueError, match="the released code takes any seven to be NOOP, RIGHT"):
        export_published(ReplayDataset(dataset.root), tmp_path / "other", "png")


def test_nothing_is_overwritten(tmp_path: Path, dataset: ReplayDataset) -> None:
    with pytest.raises(ValueError, match="already holds a dataset"):
        import_recordings(tmp_path, dataset.root, AS_STORED)
    with pytest.raises(ValueError, match="is not empty"):
        export_published(dataset, dataset.root, "jpg")


def test_without_pyav_the_extra_is_named(tmp_path: Path, dataset: ReplayDataset, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ValueError, match=r"videos need PyAV: pip install 'genie-ray\[video\]'"):
        export_published(dataset, tmp_path / "out", "mp4")
