"""PPO on the game's own reward: RLlib's stock algorithm and network, acting with an ε-mixture.

It makes test sets: play that gets further than random, mixed with random actions (Savov et al. 2025, section 5, who use
Agent57 instead). PPO: Schulman et al. 2017 (1707.06347).

Axis letters: B batch, H W C frame, A actions.
"""

import dataclasses
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from torch import Tensor

from policies.baselines.config import PPOSettings
from policies.exploration import mixture_log_probs


class EpsilonPPOModule(DefaultPPOTorchRLModule):
    """PPO's default module on uint8 frames, whose exploration is an exact ε-mixture.

    `model_config["epsilon"]` is the share of random actions. The mixture is returned as `ACTION_DIST_INPUTS`, so RLlib
    samples from it and records its log-probabilities.
    """

    def setup(self) -> None:
        super().setup()
        self.set_exploration(epsilon=self.model_config["epsilon"], temperature=1.0)

    def set_exploration(self, *, epsilon: float, temperature: float) -> None:
        """Sets ε and the temperature to act with."""
        self.epsilon, self.temperature = epsilon, temperature

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return super()._forward(_scaled(batch), **kwargs)

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output = super()._forward_exploration(batch, **kwargs)
        output[Columns.ACTION_DIST_INPUTS] = mixture_log_probs(
            output[Columns.ACTION_DIST_INPUTS], epsilon=self.epsilon, temperature=self.temperature
        )
        return output

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return super()._forward_train(_scaled(batch), **kwargs)

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        return super().compute_values(_scaled(batch) if embeddings is None else batch, embeddings)


def _scaled(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch with frames in [0, 1]; RLlib's encoder takes them as [B, H, W, C]."""
    return {**batch, Columns.OBS: batch[Columns.OBS].float() / 255}


class SignOfRewards(ConnectorV2):
    """Learner connector: rewards are −1, 0 or 1 (Mnih et al. 2015), so that one setting fits games of any score."""

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            rewards = np.sign(episode.get_rewards(slice(0, len(episode))))
            self.add_n_batch_items(batch, Columns.REWARDS, rewards, len(episode), episode)
        return batch


def ppo_config(env_name: str, env_config: dict[str, Any], settings: PPOSettings | None = None) -> PPOConfig:
    """RLlib's PPO on a registered environment with uint8 frames and discrete actions.

    Args:
        env_name: name under which the environment is registered with Ray Tune.
        env_config: passed to its creator.
        settings: sizes; the defaults take hours, a preset may be smaller.
    """
    settings = settings or PPOSettings()
    network = DefaultModelConfig(
        conv_filters=[list(layer) for layer in settings.filters],
        conv_activation="relu",
        head_fcnet_hiddens=[settings.hidden],
        head_fcnet_activation="relu",
        vf_share_layers=True,
    )
    return (
        PPOConfig()
        .environment(env_name, env_config=env_config)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=settings.num_envs,
            gym_env_vectorize_mode="async",
            rollout_fragment_length=settings.fragment_length,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=EpsilonPPOModule,
                model_config=dataclasses.asdict(network) | {"epsilon": settings.epsilon},
            )
        )
        .training(
            train_batch_size_per_learner=settings.num_envs * settings.fragment_length,
            minibatch_size=settings.minibatch_size,
            num_epochs=settings.epochs,
            lr=settings.learning_rate,
            gamma=settings.gamma,
            lambda_=settings.lambda_,
            clip_param=settings.clip,
            use_kl_loss=False,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            entropy_coeff=settings.entropy_weight,
            grad_clip=settings.gradient_norm,
            grad_clip_by="global_norm",
        )
        .learners(learner_connector=lambda *args: SignOfRewards())
    )
