"""The game beside the model: brought to a frame of a recorded episode, played on, and recorded if wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genie_ray.base.errors import one_line
from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.schema import Episode
from genie_ray.web.emulator import Emulator, GameFrame
from genie_ray.web.recording import Recorder, Take, actions_before


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What was recorded."""

    on: bool  # this play is
    episodes: int  # of the dataset; steps include those of this play's episode
    steps: int
    error: str  # why it went off by itself, or ""


class GameBeside:
    """A game that follows a play.

    Args:
        dataset: what episodes start from.
        recorder: where play is recorded; None: nowhere.
    """

    def __init__(self, dataset: ReplayDataset, recorder: Recorder | None = None) -> None:
        self._dataset, self._recorder = dataset, recorder
        self._emulator: Emulator | None = None
        self._emulated = ""  # the game that the emulator has
        self._take: Take | None = None
        self._on, self._error = recorder is not None, ""
        self.shown: GameFrame | None = None  # None: there is no game, `why_not` says why
        self.why_not = "not started"

    @property
    def recorded(self) -> Recorded | None:
        """What was recorded; None: nothing is to be."""
        if self._recorder is None:
            return None
        steps = self._recorder.steps + len(self._take or ())
        return Recorded(on=self._on, episodes=self._recorder.episodes, steps=steps, error=self._error)

    def start(self, episode: Episode, step: int) -> None:
        """Brings the game to a frame of a recorded episode by the recorded actions; an earlier play ends."""
        self.save()
        self.shown = None
        self.why_not = self._bring(episode, step)

    def step(self, action: int, *, log_prob: float = math.nan, by: str) -> None:
        """Takes an action, if there is a game and it is not over."""
        if self._emulator is None or self.shown is None or self.shown.ended:
            return
        if self._on and self._take is None:
            assert self._recorder is not None
            self._take = Take(self._recorder, self._emulated, self._actions, self.shown)
        try:
            self.shown = self._emulator.step(action)
        except RuntimeError as error:
            self.save()
            self.shown, self.why_not = None, str(error)
            return
        self._actions.append(action)
        if self._take is not None:
            self._take.add(action, self.shown, log_prob=log_prob, by=by)
        if self.shown.ended:
            self.save()

    def record(self, on: bool) -> None:
        """Records from now on, or no longer.

        Raises:
            ValueError: there is nowhere to record to.
        """
        if self._recorder is None:
            raise ValueError("nowhere to record to is given: genie-ray play --record OUT")
        if not on:
            self.save()
        self._on, self._error = on, ""

    def save(self) -> None:
        """Writes what was recorded; what is played on is an episode of its own."""
        take, self._take = self._take, None
        if take is not None:
            try:
                take.write()
            except (OSError, ValueError) as error:
                self._on, self._error = False, one_line(error)

    def close(self) -> None:
        """Writes what was recorded and ends the game's process."""
        self.save()
        self._end()

    def _end(self) -> None:
        if self._emulator is not None:
            self._emulator.close()
            self._emulator = None

    def _bring(self, episode: Episode, step: int) -> str:
        """Returns why there is no game, or ""."""
        config, info = self._dataset.metadata.config.get("env"), episode.infos[0]
        if config is None:
            return "the dataset does not say in which environment it was recorded"
        if episode.game in PROCGEN_GAMES and "level" not in info:
            return "the episode does not say which level it is"
        try:
            before = actions_before(info, len(self._dataset.metadata.action_names))
            if self._emulator is None or self._emulated != episode.game:
                self._end()
                self._emulator, self._emulated = Emulator(episode.game, build(EnvConfig, config)), episode.game
            self._actions = [*before, *map(int, episode.actions[:step])]
            shown = self._emulator.start(self._actions, level=info["level"] if episode.game in PROCGEN_GAMES else None)
        except (RuntimeError, ValueError) as error:
            self._end()
            return str(error)
        if not np.array_equal(shown.frame_HWC, episode.frames[step]):
            return "the game does not repeat this recording"
        self.shown = shown
        return ""
