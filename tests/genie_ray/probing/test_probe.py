"""Probing real games whose controls are known."""

import csv
import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from typer.testing import CliRunner

from genie_ray.base.files import STYLE
from genie_ray.cli import app
from genie_ray.probing.config import ProbeConfig
from genie_ray.probing.play import play_contexts
from genie_ray.probing.propose import guess_label

pytestmark = pytest.mark.usefixtures("roms")


def test_rollouts_of_a_context_differ_in_nothing_but_the_action() -> None:
    contexts = list(play_contexts("Kangaroo-Atari2600", ProbeConfig(contexts=3, steps=6)))
    assert len(contexts) == 3
    for context in contexts:
        assert list(context) == ["NOOP", "RIGHT", "LEFT", "UP", "DOWN", "JUMP"]
        noop = context["NOOP"]
        for rollout in context.values():
            assert rollout.frames.shape == (7, *noop.frames.shape[1:])
            assert len(rollout.infos) == 7
            np.testing.assert_array_equal(rollout.frames[0], noop.frames[0])
            assert rollout.infos[0] == noop.infos[0]
    assert not np.array_equal(contexts[0]["NOOP"].frames[0], contexts[2]["NOOP"].frames[0])
    assert guess_label(noop, noop).label == "none"


def test_buttons_that_get_past_a_start_screen_come_first() -> None:
    """RESET restarts Pong's game, so what follows differs, in the same way for all actions."""
    plain, reset = (
        next(iter(play_contexts("Pong-Atari2600", ProbeConfig(contexts=1, steps=3, before=before))))
        for before in ("", "RESET,RESET")
    )
    assert not np.array_equal(plain["NOOP"].frames, reset["NOOP"].frames)
    assert list(reset) == list(plain)


@pytest.mark.slow
def test_known_games(tmp_path: Path) -> None:
    """Airstriker's ship moves sideways and shoots, and has no use for up and down. The kangaroo jumps with up, ducks
    with down and punches with the button."""
    command = ["games", "probe", "Airstriker-Genesis", "Kangaroo-Atari2600", "--out", str(tmp_path), "--contexts", "4"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    with (tmp_path / "games.csv").open() as file:
        rows = {
            row["game"]: [row[action] for action in ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")]
            for row in csv.DictReader(file)
        }
    assert rows == {
        "Airstriker-Genesis": ["right", "left", "none", "none", "shoot"],
        "Kangaroo-Atari2600": ["right", "left", "jump", "crouch", "strike"],
    }
    assert "RIGHT → right: right" in result.output

    page = (tmp_path / "index.html").read_text()
    assert STYLE.read_text() in page
    for game in rows:
        measured = json.loads((tmp_path / game / "probe.json").read_text())["proposals"]
        assert [proposal["label"] for proposal in measured] == rows[game]
        assert measured[0]["guesses"][1]["shift"][0] > 0  # right is right
        for action in ("RIGHT", "LEFT", "UP", "DOWN", "JUMP"):
            assert len(imageio.imread(tmp_path / game / f"{action}.gif")) > 10
            assert imageio.imread(tmp_path / game / f"{action}.png").shape[1] > 1500
            assert f"{game}/{action}.gif" in page


def test_what_cannot_be_probed_is_refused_before_anything_starts(tmp_path: Path) -> None:
    for arguments, message in (
        (["Kangoroo-Atari2600"], "unknown game 'Kangoroo-Atari2600'"),
        (["Ninja"], "Ninja is procgen's: what acts in it is known, env.action_set=ninja"),
        (["Kangaroo-Atari2600", "--contexts", "0"], "contexts is 0: must be at least 1"),
        (["Kangaroo-Atari2600", "--action-set", "papre"], "action_set is 'papre'"),
        (["Kangaroo-Atari2600", "--workers", "0"], "workers is 0: must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            CliRunner().invoke(app, ["games", "probe", *arguments, "--out", str(tmp_path)], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == []
