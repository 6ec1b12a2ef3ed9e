"""Records all play of an exploration's training: it is data like any other, and the widest that there is.

<output>/play/    a replay dataset; a shard per game for every few epochs (`epoch-000020`), written with the
                  training's states, at each round, and when there is much

A piece of an episode ends where a shard does; its later steps begin another piece. Episodes are numbered in the order
in which they arrive, so that the same play has the same ids in every run: ids decide what validates a training. Ids of
pieces tell to which episode they belong (`replay.dataset.whole_of`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_ray.exploring.config import ExplorersConfig
from genie_ray.games.actions import action_names
from genie_ray.replay import writer
from genie_ray.replay.dataset import count_episodes, index_episodes
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import Episode
from genie_ray.storage.paths import StoredPath
from policies.play.recorded import RecordedPlay

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog
    from policies.judged.algorithm import JudgedAlgorithm

PLAY = "play"
"""The folder of an explorer's training with all its play."""
MOST_STEPS = 10_000
"""Steps in memory, about 120 MB, beyond which a shard is written."""


class PlayRecorder:
    """Companion of an exploration's training (`playing.agents.Companion`). Comes before those that read the play.

    Args:
        output: directory of the exploration.
        run: the exploration's settings.
        game: of play that does not name its game.
    """

    def __init__(self, output: StoredPath, run: ExplorersConfig, *, game: str) -> None:
        self.dataset = (output / PLAY).resolve()
        self._run, self._game = run, game
        self._pieces: dict[str, dict[str, list[RecordedPlay]]] = defaultdict(lambda: defaultdict(list))  # by game, id
        self._written: dict[str, tuple[str, int]] = {}  # of each episode under way: its name here, pieces written
        self._epoch = 0

    def after_iteration(self, algorithm: JudgedAlgorithm, epoch: int, log: MetricsLog) -> Mapping[str, float]:
        """Takes the epoch's play; writes it when a round or the end is due."""
        self._epoch, exploration = epoch, self._run.exploration
        for play in (play for fragment in algorithm.arrived for play in fragment.recorded):
            self._pieces[play.infos[0].get("game", self._game)][play.episode].append(play)
        due = exploration.rounds.every and epoch % exploration.rounds.every == 0
        if due or epoch == exploration.epochs or self._steps() >= MOST_STEPS:
            self.write()
        return {}

    def write(self) -> None:
        """Writes what was played since the last shard."""
        if not self._pieces:
            return
        (self.dataset / METADATA_FILE).unlink(missing_ok=True)  # its counts will no longer hold
        for game, episodes in self._pieces.items():
            pieces = [
                piece
                for number, plays in enumerate(episodes.values())
                for piece in self._pieces_of(game, number, plays)
            ]
            writer.write_shard(self.dataset, game, f"epoch-{self._epoch:06d}", pieces)
        self._pieces.clear()
        self._write_metadata()

    def _steps(self) -> int:
        return sum(len(play) for episodes in self._pieces.values() for plays in episodes.values() for play in plays)

    def _write_metadata(self) -> None:
        size = self._run.env.frame_size
        metadata = DatasetMetadata(
            action_names=action_names(self._run.env.action_set),
            frame_shape=(size, size, 3),
            policy="explorer in training",
            counts=count_episodes(index_episodes(self.dataset)),
        )
        writer.write_metadata(self.dataset, metadata)

    def _pieces_of(self, game: str, number: int, plays: list[RecordedPlay]) -> list[Episode]:
        """What was played of one episode, the shard's `number`-th, since the last shard."""
        given, pieces = plays[0].episode, []
        name, before = self._written.pop(given, (f"{self._epoch:06d}-{number:05d}", 0))
        for piece, part in enumerate(unbroken(plays), start=before):
            pieces.append(self._joined(game, f"{name}+{piece}" if piece else name, part))
        if not (plays[-1].terminated or plays[-1].truncated):
            self._written[given] = name, before + len(pieces)
        return pieces

    def _joined(self, game: str, name: str, plays: list[RecordedPlay]) -> Episode:
        first, last = plays[0], plays[-1]
        return Episode(
            episode_id=f"{game}/explorer-in-training/{self._run.seed}/{name}",
            game=game,
            frames=np.concatenate([first.frames[:1], *(play.frames[1:] for play in plays)]),
            actions=np.concatenate([play.actions for play in plays]),
            action_logp=np.concatenate([play.log_probs for play in plays]),
            reward_env=np.concatenate([play.game_rewards for play in plays]),
            reward_uncertainty=np.concatenate([play.rewards for play in plays]),
            terminated=last.terminated,
            truncated=not last.terminated,
            infos=[
                {key: value for key, value in info.items() if key != "game"}
                for info in (first.infos[0], *(info for play in plays for info in play.infos[1:]))
            ],
        )

    def get_state(self) -> dict[str, Any]:
        """Writes what was played: a resumed training starts new episodes."""
        self.write()
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Does nothing: `forget_after` has removed what the resumed training will play again."""

    def forget_after(self, epoch: int) -> None:
        """Removes the play of later epochs, which a resumed training plays again."""
        later = [path for path in self.dataset.glob("game=*/epoch-*.parquet") if path.stem > f"epoch-{epoch:06d}"]
        if later:
            (self.dataset / METADATA_FILE).unlink(missing_ok=True)
            for path in later:
                path.unlink()
        if any(self.dataset.glob("game=*/epoch-*.parquet")) and not (self.dataset / METADATA_FILE).exists():
            self._write_metadata()


def unbroken(plays: list[RecordedPlay]) -> list[list[RecordedPlay]]:
    """Pieces of one episode in runs without a gap, such as play that was dropped for lack of rewards leaves."""
    runs: list[list[RecordedPlay]] = []
    for play in plays:
        if runs and runs[-1][-1].first + len(runs[-1][-1]) == play.first:
            runs[-1].append(play)
        else:
            runs.append([play])
    return runs
