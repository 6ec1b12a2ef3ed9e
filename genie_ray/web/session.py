"""One person's play: the world model and, beside it, the game itself under the same actions.

Both start from a frame of a recorded episode. The game is brought there by the recorded actions; if it then shows
another picture, it stays away, and the reason is told (`beside.py`). The model goes on from the two frames up to there.
A person plays, or a policy (`pilot.py`).

Axes: H W C pixels, h w the grid of a frame's tokens, T frames.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_ray.base.figures import labelled_clip
from genie_ray.base.settings import build
from genie_ray.envs.world_model import WorldModelEnv
from genie_ray.envs.world_model_games import INTERACTIVE, WorldModelEnvConfig, episodes_of
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.web.beside import GameBeside, Recorded
from genie_ray.web.pilot import Pilot, Pilots, Sees
from genie_ray.web.recording import PERSON, Recorder
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

PRIMES = 2  # frames that the model is given; paper, Sec. 5
KEPT = 300  # frames for a clip
ENDLESS = 1_000_000_000  # steps
NOTHING = "NOOP"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a person sees after an action, or at the start."""

    step: int  # actions since the start
    model_HWC: NDArray[np.uint8]
    game_HWC: NDArray[np.uint8] | None  # None: there is no game, see `without_game`
    uncertainty_hw: NDArray[np.float32] | None  # None at the start
    ended: bool  # the game has
    without_game: str  # why


class PlaySession:
    """Play from a recorded frame on, as often as wanted.

    Args:
        model: shared with other sessions.
        dataset: what episodes start from.
        game: of the episodes; None: any.
        lock: held while the model or a policy computes, so that sessions take turns.
        pilots: policies that can take over.
        recorder: where the game's frames are recorded.

    Raises:
        ValueError: model and dataset do not fit, or the dataset has no episode of the game.
    """

    def __init__(
        self,
        model: GenieReduxG,
        dataset: ReplayDataset,
        game: str | None,
        lock: threading.Lock | None = None,
        *,
        pilots: Pilots | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        size = model.tokenizer.config.frame_size
        dataset.metadata.require_fit(frame_size=size, num_actions=model.num_actions)
        self.episodes = [ref for ref in episodes_of(dataset, game) if ref.length >= PRIMES]
        if not self.episodes:
            raise ValueError(f"{dataset.root} has no episode of {PRIMES} steps or more")
        self.actions = dataset.metadata.action_names
        self.decoding = INTERACTIVE
        self._model, self._dataset, self._lock = model, dataset, lock or threading.Lock()
        self._beside = GameBeside(dataset, recorder)
        self._pilots = pilots
        self._pilot: Pilot | None = None  # plays; None: a person
        self._kept: deque[tuple[NDArray[np.uint8], NDArray[np.uint8] | None, str]] = deque(maxlen=KEPT)

    def start(self, episode: str | None = None, step: int = 0) -> Shown:
        """Starts from a frame of an episode (default: the first); an earlier play ends.

        Raises:
            ValueError: no such episode or frame.
        """
        ref = self._find(episode)
        if not 0 <= step <= ref.length - 1:
            raise ValueError(f"step is {step}: must be from 0 to {ref.length - 1} in {ref.episode_id}")
        recorded = self._dataset.read(ref)
        last = max(step, PRIMES - 1)  # the frame that both begin with
        self._frames = list(recorded.frames[last + 1 - PRIMES : last + 1])
        self._taken = list(map(int, recorded.actions[last + 1 - PRIMES : last]))
        self._steps, self._game = 0, ref.game
        self._imagine()
        self._beside.start(recorded, last)
        self._kept.clear()
        self.drive(self._pilot.sees if self._pilot and (self._pilot.sees == "model" or self._beside.shown) else None)
        return self._show(self._frames[-1], None, "start")

    def act(self, action: int) -> Shown:
        """Takes a person's action in both."""
        return self._take(action, math.nan, PERSON)

    def drive(self, sees: Sees | None) -> None:
        """Hands control to a policy that sees the game's or the model's frames; None: takes it back.

        Raises:
            ValueError: there is no policy, or no game to see.
        """
        if sees is None:
            self._pilot = None
            return
        if self._pilots is None:
            raise ValueError("no policy is given: genie-ray play --policy DIR")
        pilot = self._pilots.start(self._game, sees)
        if sees == "game" and self._beside.shown is None:
            raise ValueError(f"a policy cannot see the game: {self._beside.why_not}")
        self._pilot = pilot

    @property
    def driver(self) -> Sees | None:
        """What the policy that plays sees; None: a person plays."""
        return self._pilot.sees if self._pilot else None

    def act_by_policy(self) -> Shown:
        """Takes the action that the policy in control chooses; when its game is gone or over, control comes back."""
        assert self._pilot is not None
        pilot, game = self._pilot, self._beside.shown
        if pilot.sees == "model" or game is None:
            frame_HWC, reward = self._frames[-1], 0.0  # a world model predicts no reward
        else:
            frame_HWC, reward = game.frame_HWC, game.reward
        with self._lock:
            action, log_prob = pilot.act(frame_HWC, reward)
        shown = self._take(action, log_prob, pilot.name)
        game = self._beside.shown
        if pilot.sees == "game" and (game is None or game.ended):
            self._pilot = None
        return shown

    @property
    def recorded(self) -> Recorded | None:
        """What was recorded; None: nothing is to be."""
        return self._beside.recorded

    def record(self, on: bool) -> None:
        """Records the game's frames from now on, or no longer.

        Raises:
            ValueError: there is nowhere to record to.
        """
        self._beside.record(on)

    def save(self) -> None:
        """Writes what was recorded; what is played on is an episode of its own."""
        self._beside.save()

    def change(self, **settings: Any) -> None:
        """Changes how frames are decoded from now on: `steps`, `temperature`, `guidance`.

        Raises:
            ValueError: a value that is not allowed; nothing changes.
        """
        before = self.decoding
        unknown = sorted(settings.keys() - {"steps", "temperature", "guidance"})
        if unknown:
            raise ValueError(f"setting is {unknown[0]!r}; allowed: steps, temperature, guidance")
        self.decoding = build(DecodingConfig, {**dataclasses.asdict(before), **settings})
        try:
            self._imagine()
        except ValueError:
            self.decoding = before
            self._imagine()
            raise

    def makes(self, buttons: Sequence[str]) -> bool:
        """Whether there is an action of exactly these buttons."""
        return any(set(name.split("+")) == {*buttons} for name in self.actions)

    def action_of(self, buttons: Sequence[str]) -> int | None:
        """The action that most of the pressed buttons make; None if that is to wait for one.

        Args:
            buttons: pressed ones, the latest last. If not all go together, the later ones count.
        """
        for first in range(len(buttons)):
            pressed = set(buttons[first:])
            for number, name in enumerate(self.actions):
                if set(name.split("+")) == pressed:
                    return number
        return self.actions.index(NOTHING) if NOTHING in self.actions else None

    def clip(self) -> bytes:
        """The latest frames as a GIF, the game beside the model where there is one.

        Raises:
            ValueError: nothing was played.
        """
        if not self._kept:
            raise ValueError("nothing was played yet")
        model, games, names = zip(*self._kept, strict=True)
        panels = {"world model": np.stack(model)}
        if all(game is not None for game in games):
            panels["game"] = np.stack(games)
        return labelled_clip(panels, names, frame_ms=100)

    def close(self) -> None:
        """Writes what was recorded and ends the game's process."""
        self._beside.close()

    def _find(self, episode: str | None) -> EpisodeRef:
        if episode is None:
            return self.episodes[0]
        found = [ref for ref in self.episodes if ref.episode_id == episode]
        if not found:
            raise ValueError(f"episode is {episode!r}; allowed: one of the dataset's {len(self.episodes)}")
        return found[0]

    def _imagine(self) -> None:
        """Starts the model anew from the frames on the screen."""
        config = WorldModelEnvConfig(prime_frames=PRIMES, max_episode_steps=ENDLESS, decoding=self.decoding)
        with self._lock:
            self._env = WorldModelEnv(self._model, None, config)
            primes = {"prime_frames": np.stack(self._frames), "prime_actions": np.array(self._taken, np.int64)}
            self._env.reset(seed=0, options=primes)

    def _take(self, action: int, log_prob: float, by: str) -> Shown:
        with self._lock:
            frame_HWC, _, _, _, info = self._env.step(action)
        self._frames = [*self._frames, frame_HWC][-PRIMES:]
        self._taken = [*self._taken, action][1 - PRIMES :]
        self._steps += 1
        self._beside.step(action, log_prob=log_prob, by=by)
        return self._show(frame_HWC, info["uncertainty"], self.actions[action])

    def _show(self, model_HWC: NDArray[np.uint8], uncertainty_hw: Any, name: str) -> Shown:
        game = self._beside.shown
        game_HWC = None if game is None else game.frame_HWC
        self._kept.append((model_HWC, game_HWC, name))
        return Shown(
            step=self._steps,
            model_HWC=model_HWC,
            game_HWC=game_HWC,
            uncertainty_hw=uncertainty_hw,
            ended=game is not None and game.ended,
            without_game=self._beside.why_not,
        )
