"""To LeRobot's format: every row is the recorded step, and LeRobot itself reads it where it is installed."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genie_ray import cli
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.exchange import lerobot
from genie_ray.replay.exchange.lerobot import export_lerobot
from genie_ray.replay.writer import write_shard

HERO, KANGAROO = "Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"
NAMES = ["RIGHT", "LEFT", "UP", "DOWN", "JUMP"]


@pytest.fixture
def dataset(tmp_path: Path, make_episode, finish) -> ReplayDataset:
    """Two games, three episodes: one ends by itself, two by the step limit."""
    write_shard(tmp_path / "data", HERO, "0", [make_episode(0), make_episode(1, 9, terminated=True, truncated=False)])
    write_shard(tmp_path / "data", KANGAROO, "0", [make_episode(2, 5, KANGAROO)])
    return finish(tmp_path / "data")


def rows_of(output: Path) -> list[dict]:
    """All rows, from the paths that info.json gives."""
    info = json.loads((output / "meta" / "info.json").read_text())
    episodes = pq.read_table(output / "meta" / "episodes").to_pylist()
    rows = []
    for episode in episodes:
        path = output / info["data_path"].format(
            chunk_index=episode["data/chunk_index"], file_index=episode["data/file_index"]
        )
        of_file = pq.read_table(path).to_pylist()
        found = [row for row in of_file if row["episode_index"] == episode["episode_index"]]
        assert len(found) == episode["length"] == episode["dataset_to_index"] - episode["dataset_from_index"]
        assert [row["index"] for row in found] == list(
            range(episode["dataset_from_index"], episode["dataset_to_index"])
        )
        rows.append(found)
    return rows


def test_every_step_is_a_row(dataset: ReplayDataset, tmp_path: Path) -> None:
    output = export_lerobot(dataset, tmp_path / "out")
    info = json.loads((output / "meta" / "info.json").read_text())
    episodes = [dataset.read(ref) for ref in dataset.episodes]
    steps = sum(len(episode.actions) for episode in episodes)
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 3, steps)
    assert (info["splits"], info["fps"]) == ({"train": "0:3"}, 15)
    assert info["features"]["action"]["names"] == NAMES
    tasks = pd.read_parquet(output / "meta" / "tasks.parquet")
    assert tasks.task_index.to_dict() == {f"Play {HERO}.": 0, f"Play {KANGAROO}.": 1}
    for rows, episode in zip(rows_of(output), episodes, strict=True):
        for step, row in enumerate(rows):
            picture = Image.open(io.BytesIO(row["observation.image"]["bytes"]))
            np.testing.assert_array_equal(np.asarray(picture), episode.frames[step])
            assert row["action"] == [float(action == episode.actions[step]) for action in range(len(NAMES))]
            assert row["next.reward"] == episode.reward_env[step]
            last = step == len(episode.actions) - 1
            assert (row["next.done"], row["next.truncated"]) == (last, last and episode.truncated)
            assert (row["frame_index"], row["timestamp"]) == (step, pytest.approx(step / 15))
            assert row["task_index"] == [HERO, KANGAROO].index(episode.game)
        assert set(row) == info["features"].keys()


def test_statistics_are_those_of_all_rows(dataset: ReplayDataset, tmp_path: Path) -> None:
    output = export_lerobot(dataset, tmp_path / "out")
    stats = json.loads((output / "meta" / "stats.json").read_text())
    episodes = [dataset.read(ref) for ref in dataset.episodes]
    pixels = np.concatenate([episode.frames[:-1].reshape(-1, 3) for episode in episodes]) / 255
    rewards = np.concatenate([episode.reward_env for episode in episodes]).astype(np.float64)[:, None]
    for name, values, shape in (("observation.image", pixels, (3, 1, 1)), ("next.reward", rewards, (1,))):
        for key in ("min", "max", "mean", "std"):
            found = np.array(stats[name][key])
            assert found.shape == shape
            np.testing.assert_allclose(found.ravel(), getattr(values, key)(axis=0), atol=1e-12)
        assert stats[name]["count"] == [len(rewards)]
    first = pq.read_table(output / "meta" / "episodes").to_pylist()[0]
    assert first["stats/next.reward/mean"] == [pytest.approx(episodes[0].reward_env.mean())]


def test_large_datasets_have_several_files_of_whole_episodes(
    dataset: ReplayDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lerobot, "FILE_MB", 0)
    monkeypatch.setattr(lerobot, "CHUNK_FILES", 2)
    output = export_lerobot(dataset, tmp_path / "out")
    files = sorted(str(path.relative_to(output)) for path in (output / "data").rglob("*.parquet"))
    assert files == [f"data/chunk-00{chunk}/file-00{file}.parquet" for chunk, file in ((0, 0), (0, 1), (1, 0))]
    assert [len(rows) for rows in rows_of(output)] == [ref.length for ref in dataset.episodes]


def test_lerobot_reads_it(dataset: ReplayDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    theirs = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="needs lerobot", exc_type=ImportError)
    output = export_lerobot(dataset, tmp_path / "out")
    found = theirs.LeRobotDataset("someone/play", root=output)
    assert (found.meta.total_episodes, found.fps, len(found)) == (3, 15, sum(ref.length for ref in dataset.episodes))
    index = 0
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        for step, action in enumerate(episode.actions):
            row = found[index]
            image = (255 * row["observation.image"]).round().byte().permute(1, 2, 0)
            np.testing.assert_array_equal(image, episode.frames[step])
            assert (row["action"].argmax(), row["next.reward"]) == (action, episode.reward_env[step])
            assert row["task"] == f"Play {episode.game}."
            index += 1
    stats = theirs.aggregate_stats(
        [
            {
                key: {name: np.array(row[f"stats/{key}/{name}"]) for name in ("min", "max", "mean", "std", "count")}
                for key in found.features
            }
            for row in pq.read_table(output / "meta" / "episodes").to_pylist()
        ]
    )
    for key, of in stats.items():
        for name, value in of.items():
            np.testing.assert_allclose(found.meta.stats[key][name], value, atol=1e-9)


def test_the_command(
    dataset: ReplayDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["genie-ray", "data", "convert", str(dataset.root), str(tmp_path / "out"), "--to", "lerobot"]
    for code in (0, 2):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "out")
    assert "out is not empty: give another directory" in captured.err
