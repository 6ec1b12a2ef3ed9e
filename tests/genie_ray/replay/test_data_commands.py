"""`genie-ray data`: output, pictures, files and exit codes; and querying a dataset with DuckDB."""

import json
import math
import sys
from pathlib import Path

import duckdb
import imageio.v3 as imageio
import numpy as np
import pyarrow.parquet as pq
import pytest

from genie_ray import cli
from genie_ray.replay.card import CARD_FILE
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.film import choose_episodes, show_episodes
from genie_ray.replay.schema import episode_id
from genie_ray.replay.summary import summarize
from genie_ray.replay.writer import write_shard

HERO, KANGAROO = "Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"


@pytest.fixture
def dataset(tmp_path: Path, make_episode, finish) -> ReplayDataset:
    """Three episodes of Hero by two policies and one of Kangaroo, with rewards and actions that are easy to count."""

    def episode(index: int, length: int, game: str, policy: str, rewards: dict[int, float]):
        reward = np.zeros(length, np.float32)
        reward[list(rewards)] = list(rewards.values())
        actions = np.array([0] * (length - 2) + [4, 4], np.int8)
        name = episode_id(game, policy, 0, index)
        # Kangaroo's player passes x = 0, 2, …, 80, which are places 0 to 5
        infos = [{"score": 10 * step} | ({"x": 2 * step} if game == KANGAROO else {}) for step in range(length + 1)]
        return make_episode(index, length, game, episode_id=name, actions=actions, reward_env=reward, infos=infos)

    root = tmp_path / "data"
    write_shard(root, HERO, "0", [episode(0, 10, HERO, "random", {3: 5.0}), episode(1, 20, HERO, "random", {})])
    write_shard(root, HERO, "1", [episode(2, 30, HERO, "player", {0: 1.0, 29: -2.0})])
    write_shard(root, KANGAROO, "0", [episode(3, 40, KANGAROO, "random", {7: math.nan})])
    return finish(root)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `genie-ray data …` and returns its exit code and output."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["genie-ray", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), capsys.readouterr().out

    return run


def test_summary_counts_right(dataset: ReplayDataset) -> None:
    document = summarize(dataset)
    assert (document["episodes"], document["frames"], document["files"]) == (4, 104, 3)
    files = [path for path in dataset.root.rglob("*") if path.is_file() and path.name != CARD_FILE]
    assert document["bytes"] == sum(path.stat().st_size for path in files)
    player, random, kangaroo = document["groups"]
    assert [(group["game"], group["policy"]) for group in document["groups"]] == [
        (HERO, "player"),
        (HERO, "random"),
        (KANGAROO, "random"),
    ]
    assert (random["episodes"], random["steps"], random["terminated"]) == (2, 30, 1)
    assert random["lengths"] == {"min": 10, "median": 15.0, "mean": 15.0, "max": 20}
    assert random["actions"] == {"RIGHT": 26, "LEFT": 0, "UP": 0, "DOWN": 0, "JUMP": 4}
    assert random["returns"] == {"min": 0.0, "median": 2.5, "mean": 2.5, "max": 5.0}
    assert (random["rewarded_steps"], player["rewarded_steps"], kangaroo["rewarded_steps"]) == (1, 2, 0)
    assert (random["places"], player["places"], kangaroo["places"]) == (0, 0, 6)
    assert player["returns"]["mean"] == -1.0
    footer = pq.read_metadata(dataset.root / f"game={KANGAROO}" / "0.parquet")
    assert kangaroo["frame_bytes"] == footer.row_group(0).column(2).total_compressed_size / 41
    assert "files" not in document["metadata"]


def test_info(run, dataset: ReplayDataset) -> None:
    code, printed = run("info", dataset.root, "--json")
    assert code == 0
    assert json.loads(printed) == json.loads(json.dumps(summarize(dataset)))
    code, printed = run("info", f"file://{dataset.root}")
    assert code == 0
    for told in ("104 of 6×4 pixels in 4 episodes", "10–15–20", "86.7%", "13.3%", "-1.0 (-1–-1)"):
        assert told in printed


def test_verify_tells_by_its_exit_code(run, dataset: ReplayDataset) -> None:
    assert run("verify", dataset.root) == (0, f"{dataset.root} is whole\n")
    damaged = dataset.root / f"game={HERO}" / "1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    (dataset.root / "notes.txt").touch()
    code, printed = run("verify", dataset.root)
    assert code == 1
    assert {line.partition(": ")[0] for line in printed.splitlines()} >= {str(damaged), str(dataset.root / "notes.txt")}


def test_episodes_are_chosen_as_asked(dataset: ReplayDataset) -> None:
    def ids(**asked: object) -> list[str]:
        wanted = {"game": None, "policy": None, "episode": None, "count": 1} | asked
        return [ref.episode_id for ref in choose_episodes(dataset, **wanted)]

    every = [ref.episode_id for ref in dataset.episodes]
    assert ids(count=99) == every
    assert ids(count=2) == [every[0], every[2]]
    assert ids(game="Kangaroo-Atari2600") == ids(game=KANGAROO) == [f"{KANGAROO}/random/0/000003"]
    assert ids(policy="player", count=5) == [f"{HERO}/player/0/000002"]
    assert ids(episode=every[3]) == [every[3]]
    with pytest.raises(ValueError, match=rf"no episode with game 'Pong', policy 'x': it has {HERO} by player, "):
        ids(game="Pong", policy="x")
    with pytest.raises(ValueError, match="count is 0"):
        ids(count=0)


def test_show_draws_every_nth_step_and_the_end(run, dataset: ReplayDataset, tmp_path: Path) -> None:
    code, printed = run("show", dataset.root, tmp_path / "out", "--policy", "player", "--every", 7)
    assert code == 0
    strip, clip = map(Path, printed.splitlines())
    assert (strip.name, clip.name) == (f"{HERO}_player_0_000002.png", f"{HERO}_player_0_000002.gif")
    pictures = imageio.imread(clip, plugin="pillow", mode="RGB")
    assert len(pictures) == 6  # steps 0, 7, 14, 21, 28 and the frame after the last
    frames = dataset.read(dataset.episodes[0]).frames
    for picture, step in zip(pictures, (0, 7, 14, 21, 28, 30), strict=True):
        # 6×4 pixels fill the panel's width; the middle of the first frame pixel is a few pixels from its corner
        corner = picture[28 + 43 + 21, 8 + 21].astype(int)
        assert np.abs(corner - frames[step, 0, 0]).max() < 40, step  # a GIF has 256 colours
    assert imageio.imread(strip).shape[1] > imageio.imread(strip).shape[0]
    with pytest.raises(ValueError, match="every is 0"):
        show_episodes(dataset, dataset.episodes[:1], tmp_path, every=0)


def test_convert_there_and_back(run, dataset: ReplayDataset, tmp_path: Path) -> None:
    code, printed = run("convert", dataset.root, tmp_path / "published", "--to", "png")
    assert code == 0
    assert len(printed.splitlines()) == 2
    assert run("convert", tmp_path / "published", tmp_path / "back") == (0, f"{tmp_path / 'back'}\n")
    back = ReplayDataset(tmp_path / "back")
    assert [ref.episode_id for ref in back.episodes] == [ref.episode_id for ref in dataset.episodes]
    assert (back.read(back.episodes[2]).frames == dataset.read(dataset.episodes[2]).frames).all()


def test_duckdb_queries_a_dataset(dataset: ReplayDataset) -> None:
    """As in docs/data.md."""
    found = duckdb.sql(
        f"""
        SELECT game, count(DISTINCT episode_id) AS episodes, avg((action = 4)::int) AS jumps, sum(reward_env) AS reward,
            min((info::json ->> 'score')::int) AS lowest
        FROM read_parquet('{dataset.root}/*/*.parquet', hive_partitioning = true)
        WHERE action >= 0 GROUP BY game ORDER BY game
        """
    ).fetchall()
    assert found == [(HERO, 3, 6 / 60, 4.0, 0), (KANGAROO, 1, 2 / 40, 0.0, 0)]
