"""Rounds of exploring and learning: the world model is trained on explored play while the agent continues.

Every so many epochs, the world model is fine-tuned on all play so far (`recorder.PlayRecorder`). When done, it takes
over as judge: what could be learned then pays no more, and the agent has to look further. The agent waits for it
(`rounds.wait`), or goes on meanwhile and waits when the next round is due, so the judge is never more than one round
behind. Only the dynamics are trained: a judge reads tokens and never decodes, so no round tunes the decoder. The
published protocol is a single round: its world model never changes.

<output>/rounds/play-000020/     the play of all epochs up to that one; links to the recorder's files
<output>/rounds/epoch-000020/    the fine-tuning on it (see `training.train`)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from genie_ray.base.errors import cause_of
from genie_ray.base.progress import console
from genie_ray.base.session import RayConfig
from genie_ray.exploring.config import ExplorersConfig, RoundsConfig
from genie_ray.playing.agents import saved_companions
from genie_ray.replay.gather import gather
from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.storage.paths import StoredPath
from genie_ray.training import jobs
from genie_ray.training.config import check_batch_size
from genie_ray.training.train import train

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog
    from genie_ray.rewards.service import RewardService
    from policies.judged.algorithm import JudgedAlgorithm

STOP_S = 20.0  # for a training that is asked to stop


class Rounds:
    """Companion of an exploration's training (`playing.agents.Companion`).

    Args:
        output: directory of the exploration.
        run: the exploration's settings.
        world_model: checkpoint that the first round continues from.
        service: takes over each round's world model.
        play: the dataset that the recorder writes before a round is due.
    """

    def __init__(
        self,
        output: StoredPath,
        run: ExplorersConfig,
        world_model: StoredPath,
        service: RewardService,
        *,
        play: StoredPath,
    ) -> None:
        self._directory = (output / "rounds").resolve()
        self._run, self._config, self._play = run, run.exploration.rounds, play
        self._world_model, self._service = world_model.resolve(), service
        self._epoch = 0  # of the latest round whose training started
        self._training: Any = None  # Ray's reference to the running fine-tuning
        self._swapped: StoredPath | None = None

    def begin(self) -> None:
        """Gives the service the world model to start or continue with; an earlier explorer may have left another."""
        self._service.swap(judge_of(self._directory.parent, self._world_model))

    def after_iteration(self, algorithm: JudgedAlgorithm, epoch: int, log: MetricsLog) -> Mapping[str, float]:
        """Starts a round, or ends one whose world model is ready."""
        import ray

        # No round starts so late that the next one would be due after the exploration's end.
        if epoch % self._config.every == 0 and epoch + self._config.every <= self._run.exploration.epochs:
            if self._training is not None:
                console.print(f"epoch {epoch}: the next round waits for the world model of epoch {self._epoch}")
            self.finish()
            self._epoch = epoch
            self._train(epoch)
            if self._config.wait:
                self.finish()
        elif self._training is not None and ray.wait([self._training], timeout=0)[0]:
            self.finish()
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
        """Cancels a running fine-tuning.

        It is asked to stop, since Ray Train then gives back its CPUs. If it were killed at once, it would keep them
        until Ray ends: what should free them needs Ray's dashboard.
        """
        import ray

        if self._training is not None:
            ray.cancel(self._training)
            if not ray.wait([self._training], timeout=STOP_S)[0]:
                ray.cancel(self._training, force=True)
            self._training = None

    def _train(self, epoch: int) -> None:
        """Starts or continues a round's fine-tuning in the background; if it is complete, only swaps its model in."""
        import ray

        play = self._directory / f"play-{epoch:06d}"
        if not (play / METADATA_FILE).exists():
            gather(play, [self._play], policy="explorer in training")
        job = jobs.finetuning(
            self._config.training,
            play,
            self._directory / f"epoch-{epoch:06d}",
            init=self._swapped or self._world_model,
            seed=self._run.seed,
        )
        if (job.output / "last" / "config.json").is_file():
            self._swap(job.output / "best")
            return
        console.print(f"epoch {epoch}: the world model starts training on explored play")
        remote = ray.remote(num_cpus=0, max_retries=0)(train)
        self._training = remote.options(runtime_env={"env_vars": {"RAY_TRAIN_V2_ENABLED": "1"}}).remote(
            job, self._run.ray
        )

    def _swap(self, checkpoint: StoredPath) -> None:
        self._service.swap(checkpoint)
        self._swapped = checkpoint
        console.print(f"the world model of {checkpoint.parent.name} is now the judge")

    def get_state(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "swapped": self._swapped and str(self._swapped)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues the round that was under way."""
        self._epoch, self._swapped = state["epoch"], _swapped_in(self._directory.parent, state)
        if self._epoch and (self._swapped is None or epoch_number(self._swapped) < self._epoch):
            self._train(self._epoch)


def check_rounds(config: RoundsConfig, world_model: StoredPath, ray: RayConfig) -> None:
    """Refuses rounds whose training would fail when the first one is due.

    Raises:
        ValueError: its windows are too long for the world model, or its batches cannot be divided among the workers.
    """
    from genie_ray.storage.checkpoints import read_config
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


def judge_of(output: StoredPath, world_model: StoredPath) -> StoredPath:
    """The world model that an exploration continues with: the latest round's that took over, or else the first."""
    swapped = [_swapped_in(output, state) for state in saved_companions(output) if "swapped" in state]
    return swapped[-1] or world_model if swapped else world_model


def _swapped_in(output: StoredPath, state: Mapping[str, Any]) -> StoredPath | None:
    """The checkpoint of a saved state's round. The directory may have been moved since."""
    if not state["swapped"]:
        return None
    *_, name, best = PurePosixPath(str(state["swapped"])).parts
    return output / "rounds" / name / best


def epoch_number(checkpoint: StoredPath) -> int:
    """The epoch at which the round of `…/epoch-000020/best` began."""
    return int(checkpoint.parent.name.removeprefix("epoch-"))
