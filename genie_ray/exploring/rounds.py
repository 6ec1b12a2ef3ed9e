"""Rounds of exploring and learning: the world model is trained on explored play while the agent continues.

Every so many epochs, the play since the last round is added to a replay dataset, and the world model is fine-tuned on
all of it, in parallel with the agent's training. When done, it takes over as judge: what could be learned then pays no
more, and the agent has to look further. Only the dynamics are trained: a judge reads tokens and never decodes, so no
round tunes the decoder. The judge is never more than one round behind: when a round is due, the agent
waits for the world model of the previous one. The published protocol is a single round: its world model never changes.

<output>/rounds/dataset/             all play so far, one shard per round and game
<output>/rounds/epoch-000020/        the fine-tuning that started at that epoch (see `training.train`)
<output>/rounds/epoch-000020.json    how much of each episode was stored by then
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_ray.base.errors import cause_of
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import console
from genie_ray.base.session import RayConfig
from genie_ray.exploring.config import ExplorersConfig, RoundsConfig
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import saved_companions
from genie_ray.training import jobs
from genie_ray.training.config import check_batch_size
from genie_ray.training.train import train

if TYPE_CHECKING:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    from genie_ray.base.metrics_log import MetricsLog
    from genie_ray.replay.schema import Episode
    from genie_ray.rewards.service import RewardService
    from policies.autoexplore.algorithm import AutoExplore


class Rounds:
    """Companion of an exploration's training (`playing.agents.Companion`).

    Args:
        output: directory of the exploration.
        run: the exploration's settings.
        world_model: checkpoint that the first round continues from.
        service: takes over each round's world model.
        game: of play that does not name its game.
    """

    def __init__(
        self,
        output: Path,
        run: ExplorersConfig,
        world_model: Path,
        service: RewardService,
        *,
        game: str,
    ) -> None:
        self._directory = (output / "rounds").resolve()
        self._run, self._config = run, run.exploration.rounds
        self._world_model, self._service, self._game = world_model.resolve(), service, game
        self._epoch = 0  # of the latest round whose training started
        self._waiting = 0  # of the round that waits until its play is written; 0: none
        self._writer = ThreadPoolExecutor(max_workers=1)  # writes datasets, so that the agent's learner need not wait
        self._writing: Future[None] | None = None
        self._training: Any = None  # Ray's reference to the running fine-tuning
        self._swapped: Path | None = None
        self._games: dict[str, str] = {}  # of the episodes in the replay

    def begin(self) -> None:
        """Gives the service the world model to start or continue with; an earlier explorer may have left another."""
        self._service.swap(judge_of(self._directory.parent, self._world_model))

    def after_iteration(self, algorithm: AutoExplore, epoch: int, log: MetricsLog) -> Mapping[str, float]:
        """Starts a round, or ends one whose world model is ready."""
        import ray

        self._note_games(algorithm)
        # No round starts so late that the next one would be due after the exploration's end.
        if epoch % self._config.every == 0 and epoch + self._config.every <= self._run.exploration.epochs:
            self._begin_waiting()
            if self._training is not None:
                console.print(f"epoch {epoch}: the next round waits for the world model of epoch {self._epoch}")
            self.finish()
            self._export(epoch, algorithm)
            self._waiting = epoch
        elif self._training is not None and ray.wait([self._training], timeout=0)[0]:
            self.finish()
        if self._writing is None or self._writing.done():
            self._begin_waiting()
        return {"round": float(epoch_number(self._swapped) if self._swapped else 0)}

    def finish(self) -> None:
        """Waits for the running fine-tuning, if any, and gives the service its world model."""
        import ray

        if self._training is None:
            return
        try:
            best = ray.get(self._training)
        except Exception as error:
            raise cause_of(error) from error
        self._training = None
        self._swap(best)

    def close(self) -> None:
        """Finishes writing, and cancels a running fine-tuning."""
        import ray

        self._writer.shutdown()
        if self._training is not None:
            ray.cancel(self._training, force=True)
            self._training = None

    def _begin_waiting(self) -> None:
        """Starts the training of the round that waits for its play, if any."""
        if self._waiting and self._training is None:
            self._wait_for_writing()
            self._epoch, self._waiting = self._waiting, 0
            self._train(self._epoch)

    def _train(self, epoch: int) -> None:
        """Starts or continues a round's fine-tuning in the background; if it is complete, only swaps its model in."""
        import ray

        job = jobs.finetuning(
            self._config.training,
            self._directory / "dataset",
            self._directory / f"epoch-{epoch:06d}",
            init=self._swapped or self._world_model,
            seed=self._run.seed,
        )
        if (job.output / "last" / "config.json").exists():
            self._swap(job.output / "best")
            return
        console.print(f"epoch {epoch}: the world model starts training on explored play")
        remote = ray.remote(num_cpus=0, max_retries=0)(train)
        self._training = remote.options(runtime_env={"env_vars": {"RAY_TRAIN_V2_ENABLED": "1"}}).remote(
            job, self._run.ray
        )

    def _swap(self, checkpoint: Path) -> None:
        self._service.swap(checkpoint)
        self._swapped = checkpoint
        console.print(f"the world model of {checkpoint.parent.name} is now the judge")

    def _export(self, epoch: int, algorithm: AutoExplore) -> None:
        """Adds the play since the previous round to the dataset, unless that was done before a crash."""
        self._wait_for_writing()
        if self._marks(epoch).exists():
            return
        before = max((path for path in self._directory.glob("epoch-*.json")), default=None)
        stored: dict[str, int] = json.loads(before.read_text()) if before else {}
        pieces: dict[str, list[Episode]] = {}
        for episode in algorithm.replay.episodes:
            first, end = max(stored.get(episode.id_, 0), episode.t_started), episode.t
            if end - first > 1:
                game = self._games.get(episode.id_, self._game)
                pieces.setdefault(game, []).append(self._piece(episode, game, first))
                stored[episode.id_] = end
        self._writing = self._writer.submit(self._write, epoch, pieces, stored)

    def _write(self, epoch: int, pieces: dict[str, list[Episode]], stored: dict[str, int]) -> None:
        from genie_ray.replay import writer
        from genie_ray.replay.dataset import count_episodes, index_episodes
        from genie_ray.replay.metadata import DatasetMetadata

        dataset, size = self._directory / "dataset", self._run.env.frame_size
        for game, episodes in pieces.items():
            writer.write_shard(dataset, game, f"epoch-{epoch:06d}", episodes)
        metadata = DatasetMetadata(
            action_names=action_names(self._run.env.action_set),
            frame_shape=(size, size, 3),
            policy="explorer in training",
            counts=count_episodes(index_episodes(dataset)),
        )
        writer.write_metadata(dataset, metadata)
        write_atomically(self._marks(epoch), lambda path: path.write_text(json.dumps(stored)))

    def _wait_for_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _piece(self, episode: SingleAgentEpisode, game: str, first: int) -> Episode:
        """An episode from step `first` on, as a dataset stores it. The game's own rewards are not known here."""
        from ray.rllib.core.columns import Columns

        from genie_ray.replay.schema import Episode

        steps = slice(first - episode.t_started, None)
        actions = np.asarray(episode.get_actions(steps), np.int8)
        return Episode(
            episode_id=f"{game}/explorer-in-training/{self._run.seed}/{episode.id_}-{first:06d}",
            game=game,
            frames=np.asarray(episode.get_observations(steps)),
            actions=actions,
            action_logp=np.asarray(episode.get_extra_model_outputs(Columns.ACTION_LOGP, steps), np.float32),
            reward_env=np.full(len(actions), np.nan, np.float32),
            reward_uncertainty=np.asarray(episode.get_rewards(steps), np.float32),
            terminated=bool(episode.is_terminated),
            truncated=not episode.is_terminated,
            infos=[{}] * (len(actions) + 1),
        )

    def _note_games(self, algorithm: AutoExplore) -> None:
        for fragment in algorithm.arrived:
            for episode, infos in zip(fragment.episodes, fragment.infos, strict=True):
                if "game" in infos[0]:
                    self._games[episode.id_] = infos[0]["game"]

    def _marks(self, epoch: int) -> Path:
        return self._directory / f"epoch-{epoch:06d}.json"

    def get_state(self) -> dict[str, Any]:
        self._wait_for_writing()
        return {"epoch": self._epoch, "waiting": self._waiting, "swapped": self._swapped, "games": self._games}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues the round that was under way."""
        self._epoch, self._waiting, self._games = state["epoch"], state["waiting"], state["games"]
        self._swapped = state["swapped"]
        if self._epoch and (self._swapped is None or epoch_number(self._swapped) < self._epoch):
            self._train(self._epoch)


def check_rounds(config: RoundsConfig, world_model: Path, ray: RayConfig) -> None:
    """Refuses rounds whose training would fail when the first one is due.

    Raises:
        ValueError: its windows are too long for the world model, or its batches cannot be divided among the workers.
    """
    from world_model.checkpoint import read_config
    from world_model.genie import GenieReduxG

    if not config.every:
        return
    check_batch_size(config.training, ray.train_workers)
    longest = read_config(GenieReduxG, world_model).dynamics.max_frames
    if config.training.window > longest:
        raise ValueError(
            f"exploration.rounds.training.window = {config.training.window}: {world_model} takes at most {longest} "
            "frames"
        )


def judge_of(output: Path, world_model: Path) -> Path:
    """The world model that an exploration continues with: the latest round's that took over, or else the first."""
    swapped = [state["swapped"] for state in saved_companions(output) if state.get("swapped")]
    return swapped[-1] if swapped else world_model


def epoch_number(checkpoint: Path) -> int:
    """The epoch at which the round of `…/epoch-000020/best` began."""
    return int(checkpoint.parent.name.removeprefix("epoch-"))
