"""The typed settings of a run, composed of those of all its parts.

A preset under experiments/ lists only what differs from the defaults, which are the paper's, or ours where those
measured better (each setting's comment names its source). Each part checks its own settings; this module checks, before
anything starts, that they fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from genie_ray.base.settings import Files, build, load_values
from genie_ray.collecting.config import CollectionConfig
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.games.actions import action_names
from genie_ray.playing.config import PlayerConfig
from genie_ray.training.config import RecipeConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig(RecipeConfig, ExplorersConfig):
    """All settings of one exploration loop."""

    collection: CollectionConfig = field(default_factory=CollectionConfig)
    player: PlayerConfig = field(default_factory=PlayerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    finetune_apart: bool = False  # a fine-tuned model for each game (paper, Tab. 5); else one for all (Tab. 12)

    def __post_init__(self) -> None:
        RecipeConfig.__post_init__(self)
        ExplorersConfig.__post_init__(self)
        if self.env.frame_size != self.tokenizer.frame_size:
            raise ValueError(
                f"tokenizer.frame_size = {self.tokenizer.frame_size} but env.frame_size = {self.env.frame_size}: "
                "they must be equal"
            )
        actions = len(action_names(self.env.action_set))
        if self.dynamics.num_actions != actions:
            raise ValueError(
                f"dynamics.num_actions = {self.dynamics.num_actions} but env.action_set = {self.env.action_set!r} has "
                f"{actions} actions: they must be equal"
            )
        if self.collection.large_frame_every:
            sizes = (self.upscaler.frame_size, self.upscaler.large_size)
            if sizes != (self.env.frame_size, self.collection.large_frame_size):
                raise ValueError(
                    f"upscaler.frame_size and scale make {sizes[1]} pixels of {sizes[0]}, but env.frame_size and "
                    f"collection.large_frame_size are {self.env.frame_size} and {self.collection.large_frame_size}"
                )
        longest, rounds = self.dynamics.max_frames, self.exploration.rounds
        if rounds.every and rounds.training.window > longest:
            raise ValueError(
                f"exploration.rounds.training.window = {rounds.training.window}: "
                f"dynamics.max_frames = {longest} is less"
            )
        self.evaluation.require_horizon(longest, "the dynamics (max_frames)")


def load_config(files: Files = None, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a preset, or several (in what they share, the later one counts), and applies overrides.

    Raises:
        ValueError: one line; unknown key (with the nearest known one), wrong type, invalid value, unreadable file.
    """
    return build(RunConfig, load_values(files, overrides))
