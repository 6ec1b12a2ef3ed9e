"""Agent57's learner: Retrace on both streams, for the arm that played or for all arms, and the novelty's own losses.

Axis letters: B sequences, T steps, S = T + 1 frames, N arms (1 where the arm is an input), A actions.
"""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from policies.agent57.config import Agent57Settings
from policies.agent57.module import ARM, EXTRINSIC, INTRINSIC, Agent57Module
from policies.agent57.replay import INTRINSIC_REWARDS, NUMBER, WEIGHT
from policies.agent57.values import greedy_mixture, inverse_transform, priorities, retrace_targets, transform
from policies.cpu import prepare_learner

PRIORITIES = "priorities"
FORGETTING = 0.01  # of the running mean of intrinsic rewards, for each update
EARLY = 1e-8


class Agent57Learner(TorchLearner):
    """One optimiser each for extrinsic values, intrinsic values and novelty, with their own gradient norms."""

    def build(self) -> None:
        super().build()
        prepare_learner(self)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module, learning = self.module[module_id].unwrapped(), config.settings.learning
        parameters = {name: list(stream.parameters()) for name, stream in module.online.streams.items()}
        torsos = list(module.online.torsos)
        parameters[EXTRINSIC] += torsos[0].parameters()
        if len(torsos) > 1:
            parameters[INTRINSIC] += torsos[1].parameters()
        rates = dict.fromkeys(parameters, (learning.learning_rate, learning.adam_epsilon))
        if module.novelty is not None:
            parameters["novelty"] = [each for each in module.novelty.parameters() if each.requires_grad]
            rates["novelty"] = config.settings.novelty.learning_rate, config.settings.novelty.adam_epsilon
        for name, group in parameters.items():
            rate, epsilon = rates[name]
            optimizer = torch.optim.Adam(group, lr=rate, eps=epsilon)
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=optimizer,
                params=group,
                lr_or_lr_schedule=rate,
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        module, settings = self.module[module_id].unwrapped(), config.settings
        mask_BT = batch[Columns.LOSS_MASK].bool()
        errors = td_errors(module, settings, batch, fwd_out)
        own_N = own_arm(batch, errors[EXTRINSIC].shape[-1])
        loss = torch.zeros(())
        combined_BT = torch.zeros_like(batch[Columns.REWARDS])
        for name, errors_BTN in errors.items():
            loss = loss + stream_loss(errors_BTN, own_N, mask_BT, batch[WEIGHT], settings.learning.own_share)
            own_BT = (errors_BTN.detach() * own_N[:, None]).sum(-1)
            beta_B1 = module.betas_N[batch[ARM][:, :1].long()] if name == INTRINSIC else 1.0
            combined_BT = combined_BT + beta_B1 * own_BT
            self._log(module_id, f"{name}_error", own_BT[mask_BT].abs().mean())
        if module.novelty is not None:
            loss = loss + self._novelty_loss(module_id, module, settings, batch, mask_BT)
        found_B = priorities(combined_BT, mask_BT, settings.learning.largest_share)
        self.metrics.log_value(
            (module_id, PRIORITIES), (batch[NUMBER].tolist(), found_B.tolist()), reduce="item_series"
        )
        return loss

    def _novelty_loss(
        self, module_id: str, module: Agent57Module, settings: Agent57Settings, batch: dict[str, Any], mask_BT: Tensor
    ) -> Tensor:
        """Inverse dynamics and the lifelong predictor, on the last steps of each sequence."""
        assert module.novelty is not None
        count, burn_in = settings.novelty.trained_steps, settings.learning.burn_in
        ends_B = mask_BT.sum(1)
        begins_B = (ends_B - count).clamp(min=0)
        index_BT = begins_B[:, None] + torch.arange(count, device=begins_B.device)
        rows_B1 = torch.arange(len(ends_B), device=begins_B.device)[:, None]
        frames_BSHWC = batch[Columns.OBS][
            rows_B1, burn_in + begins_B[:, None] + torch.arange(count + 1, device=begins_B.device)
        ]
        losses = module.novelty.losses(
            frames_BSHWC, batch[Columns.ACTIONS][rows_B1, index_BT], index_BT < ends_B[:, None]
        )
        rewards = batch[INTRINSIC_REWARDS][mask_BT]
        if len(rewards):
            rate = FORGETTING if module.intrinsic_mean > 0 else 1.0
            module.intrinsic_mean += rate * (rewards.mean() - module.intrinsic_mean)
        for name, value in losses.items():
            self._log(module_id, f"{name}_loss", value.detach())
        return torch.stack(list(losses.values())).sum()

    def _log(self, module_id: str, name: str, value: Tensor) -> None:
        self.metrics.log_value((module_id, name), value.item(), window=100)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        for module in self.module.values():
            plain = module.unwrapped()
            if self._weights_seq_no % plain.settings.learning.target_every == 0:
                plain.target.load_state_dict(plain.online.state_dict())


def own_arm(batch: dict[str, Any], heads: int) -> Tensor:
    """One-hot [B, N] of the head of the arm that played."""
    arms_B = batch[ARM][:, 0].long()
    return torch.nn.functional.one_hot(arms_B if heads > 1 else torch.zeros_like(arms_B), heads).float()


def stream_loss(errors_BTN: Tensor, own_BN: Tensor, mask_BT: Tensor, weight_B: Tensor, own_share: float) -> Tensor:
    """½δ², summed over a sequence's steps, averaged over sequences: of the arm that played, and of all (MEME)."""
    squares_BTN = torch.where(mask_BT.unsqueeze(-1), 0.5 * errors_BTN.square(), 0.0)
    shares_BN = own_share * own_BN + (1 - own_share) / own_BN.shape[-1]
    return (weight_B * (squares_BTN.sum(1) * shares_BN).sum(-1)).mean()


def td_errors(
    module: Agent57Module, settings: Agent57Settings, batch: dict[str, Any], found: dict[str, dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Errors h(G) − Q [B, T, N] of transformed Retrace by stream, with gradient through Q only.

    Values are those of the target network; one policy for both streams is that of the online one.

    The policy evaluated is ε-greedy on Q_j: were it each stream's own, the two values would not add up to that of one
    reward r_extrinsic + β_j · r_intrinsic (Badia et al. 2020b, appendix B).
    """
    learning, online, target = settings.learning, found["online"], found["target"]
    h = learning.transform_epsilon
    arms_B = batch[ARM][:, 0].long()
    gammas_N = torch.tensor(settings.family.discounts(), dtype=torch.float32, device=arms_B.device)
    heads = online[EXTRINSIC].shape[-2]
    betas_BN = module.betas_N.expand(len(arms_B), -1) if heads > 1 else module.betas_N[arms_B, None]
    gammas_BN = gammas_N.expand(len(arms_B), -1) if heads > 1 else gammas_N[arms_B, None]
    actions_BT1 = batch[Columns.ACTIONS].long()[..., None, None]

    def of_action(values_BSNA: Tensor) -> Tensor:
        """[B, T, N] of the actions taken."""
        index = actions_BT1.expand(-1, -1, values_BSNA.shape[2], -1)
        return values_BSNA[:, : actions_BT1.shape[1]].gather(-1, index).squeeze(-1)

    with torch.no_grad():
        policy_BSNA = greedy_mixture(module.combined(online, betas_BN[:, None]), learning.target_epsilon)
        ratios_BTN = of_action(policy_BSNA) / batch[Columns.ACTION_LOGP].exp().unsqueeze(-1)
        traces_BTN = learning.trace_decay * ratios_BTN.clamp(max=1.0)
        discounts_BTN = gammas_BN[:, None] * (1 - batch[Columns.TERMINATEDS].float()).unsqueeze(-1)
    errors = {}
    for name, values_BSNA in online.items():
        rewards_BT = batch[Columns.REWARDS if name == EXTRINSIC else INTRINSIC_REWARDS].float()
        if name == INTRINSIC and settings.novelty.scaled:
            rewards_BT = rewards_BT / module.intrinsic_mean.clamp(min=EARLY) * (module.intrinsic_mean > 0)
        with torch.no_grad():
            raw_BSNA = inverse_transform(target[name], h)
            targets_BTN = retrace_targets(
                expected_BSN=(policy_BSNA * raw_BSNA).sum(-1),
                taken_BTN=of_action(raw_BSNA),
                traces_BTN=traces_BTN,
                rewards_BT=rewards_BT,
                discounts_BTN=discounts_BTN,
                mask_BT=batch[Columns.LOSS_MASK].bool(),
            )
        errors[name] = transform(targets_BTN, h) - of_action(values_BSNA)
    return errors
