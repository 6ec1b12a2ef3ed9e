"""A training as data: what is trained, on what, where the result goes, and what distinguishes it from another one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.replay.loading.mixture import WeightedData, open_mix
from genie_ray.storage.checkpoints import read_description
from genie_ray.storage.paths import StoredPath
from genie_ray.training.config import TrainingConfig

if TYPE_CHECKING:
    from world_model.dynamics import DynamicsConfig
    from world_model.latent_actions import LatentActionConfig
    from world_model.tokenizer import TokenizerConfig
    from world_model.upscaler import UpscalerConfig

JOB_FILE = "job.json"
"""Identifies a training, beside its checkpoints."""

FREE = ("config.compile:", "config.checkpoint_activations:", "config.log_every:", "config.checkpoint_every:")
"""What may change when a training continues: speed, memory, and how often it logs or saves."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training: what is trained, on which data, and where the result goes.

    A tokenizer is trained from `model`, or a `tokenizer` checkpoint is trained further; a "decoder" is that of a
    `tokenizer` checkpoint. Dynamics are trained from `model` on the tokens of a `tokenizer` checkpoint; or a whole
    world model, `init`, is fine-tuned: its dynamics are trained further, its tokenizer, or the `tokenizer` that takes
    its place, stays fixed, and `model`, if not None, holds the dynamics' settings from now on. In a
    "genie_redux", `latent_actions` are trained together with the dynamics. An upscaler is trained from `model`, on a
    dataset with large frames.
    """

    kind: Literal["tokenizer", "decoder", "dynamics", "genie_redux", "upscaler"]
    output: StoredPath
    dataset: StoredPath | tuple[WeightedData, ...]  # one, or several mixed by weight
    config: TrainingConfig
    seed: int = 0
    model: TokenizerConfig | DynamicsConfig | UpscalerConfig | None = None
    latent_actions: LatentActionConfig | None = None
    tokenizer: StoredPath | None = None
    init: StoredPath | None = None

    def identity(self) -> dict[str, Any]:
        """Everything that determines the result, as plain JSON: settings, and the content of data and checkpoints."""
        parts = {"model": self.model, "latent_actions": self.latent_actions, "config": self.config}
        return {
            "kind": self.kind,
            "seed": self.seed,
            "dataset": open_mix(self.dataset).content_hash(),
            "tokenizer": self.tokenizer and read_description(self.tokenizer)["weights_sha256"],
            "init": self.init and read_description(self.init)["weights_sha256"],
            **{name: part and to_dict(part) for name, part in parts.items()},
        }


def begin(job: TrainingJob) -> bool:
    """Writes JOB_FILE unless it is there already; returns whether that training is complete.

    Raises:
        ValueError: the output holds another training, or one without JOB_FILE.
    """
    identity = job.identity()
    directory, last = job.output, job.output / "last" / "config.json"
    if not (directory / JOB_FILE).exists() and (last.exists() or (directory / "resume").exists()):
        raise ValueError(f"{directory} holds an unidentified training (it has no {JOB_FILE}): give another directory")
    check_unchanged(directory, identity, free=FREE, file=JOB_FILE, what="a training", advice="give another directory")
    keep_settings(directory, identity, file=JOB_FILE)
    return last.exists()


def read_identity(output: StoredPath) -> dict[str, Any]:
    """What JOB_FILE says of the training that `begin` let start in `output`: its `TrainingJob.identity`."""
    identity: dict[str, Any] = json.loads((output / JOB_FILE).read_text())
    return identity
