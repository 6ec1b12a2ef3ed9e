"""Agent57's networks as an RLlib module: two recurrent Q-networks, and those of the intrinsic reward.

Q_j(x, a) = Q_extrinsic + β_j · Q_intrinsic (Badia et al. 2020b, section 3.1; the identity in place of h, appendix H.3).

Axis letters: B sequences (or environments), T steps, H W C frame, F features, D input of an LSTM, N arms (1 where the
arm is an input), A actions.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from policies.agent57.config import Agent57Settings
from policies.agent57.novelty import Curiosity, NoveltyNets
from policies.agent57.values import greedy_mixture, inverse_transform, transform
from policies.exploration import sample_actions
from policies.play.acting import Act
from policies.torso import scale_frames, strided_convolutions

EXTRINSIC, INTRINSIC = "extrinsic", "intrinsic"
# Columns of a step's inputs beside its frame.
ARM, EPSILON = "arm", "epsilon"
LAST_ACTION, LAST_REWARD, LAST_INTRINSIC = "last_action", "last_reward", "last_intrinsic"  # −1 and 0 at the start
MEMORY = "memory"  # column of a step's state before it, float16 [D]: what replay stores
ESTIMATES = "estimates"  # column of Q of the action taken, and of V, of each stream, float32 [2 · streams]


class Values(NamedTuple):
    """Q-values [B, T, N, A] by stream, and the state after them."""

    by_stream: dict[str, Tensor]
    state: dict[str, Tensor]


class Stream(nn.Module):
    """One Q-network behind its convolutions: LSTM → dueling heads (Wang et al. 2016), one per arm."""

    def __init__(self, features: int, extra: int, heads: int, actions: int, settings: Any) -> None:
        super().__init__()
        self.heads, self.actions = heads, actions
        self.hidden = nn.Sequential(nn.Linear(features, settings.hidden), nn.ReLU())
        self.lstm = nn.LSTM(settings.hidden + extra, settings.lstm_size, batch_first=True)
        self.value = nn.Sequential(
            nn.Linear(settings.lstm_size, settings.head), nn.ReLU(), nn.Linear(settings.head, heads)
        )
        self.advantage = nn.Sequential(
            nn.Linear(settings.lstm_size, settings.head), nn.ReLU(), nn.Linear(settings.head, heads * actions)
        )

    def forward(self, features_BTF: Tensor, extra_BTD: Tensor, h_BD: Tensor, c_BD: Tensor) -> tuple[Tensor, ...]:
        """Q [B, T, N, A], and h and c after it."""
        inputs_BTD = torch.cat([self.hidden(features_BTF), extra_BTD], dim=-1)
        outputs_BTD, (h, c) = self.lstm(inputs_BTD, (h_BD[None].contiguous(), c_BD[None].contiguous()))
        advantage_BTNA = self.advantage(outputs_BTD).unflatten(-1, (self.heads, self.actions))
        value_BTN1 = self.value(outputs_BTD).unsqueeze(-1)
        return value_BTN1 + advantage_BTNA - advantage_BTNA.mean(-1, keepdim=True), h[0], c[0]


class QNetworks(nn.Module):
    """The Q-networks of all streams."""

    def __init__(self, frame_shape: tuple[int, int, int], actions: int, settings: Agent57Settings) -> None:
        super().__init__()
        network = settings.network
        self.actions, self.arms = actions, settings.family.arms
        self.epsilon = settings.learning.transform_epsilon
        self.told = network.arms_as == "input"
        names = [EXTRINSIC, INTRINSIC] if settings.novelty.enabled else [EXTRINSIC]
        torsos = [strided_convolutions(frame_shape, network.filters) for _ in names[: 1 if network.shared_torso else 2]]
        self.torsos = nn.ModuleList(torso for torso, _ in torsos)
        extra = actions + 2 + self.arms * self.told
        heads = 1 if self.told else self.arms
        self.streams = nn.ModuleDict({name: Stream(torsos[0][1], extra, heads, actions, network) for name in names})

    def forward(self, batch: dict[str, Tensor], state: dict[str, Tensor]) -> Values:
        """Args:
        batch: frames [B, T, H, W, C] uint8 and the columns beside them, [B, T] each.
        state: h and c of each stream, [B, D] each.
        """
        pixels_BTCHW = scale_frames(batch[Columns.OBS])
        shape = pixels_BTCHW.shape[:2]
        features = [torso(pixels_BTCHW.flatten(0, 1)).unflatten(0, shape) for torso in self.torsos]
        extra_BTD = self._extra(batch)
        values: dict[str, Tensor] = {}
        after: dict[str, Tensor] = {}
        for index, (name, stream) in enumerate(self.streams.items()):
            q_BTNA, h_BD, c_BD = stream(
                features[min(index, len(features) - 1)], extra_BTD, state[f"{name}_h"], state[f"{name}_c"]
            )
            values[name] = q_BTNA
            after |= {f"{name}_h": h_BD, f"{name}_c": c_BD}
        return Values(values, after)

    def _extra(self, batch: dict[str, Tensor]) -> Tensor:
        """The step before: its action and both rewards, transformed since a game's scores have any size; the arm."""
        last_BT = batch[LAST_ACTION].long()
        columns = [
            nn.functional.one_hot(last_BT.clamp(min=0), self.actions).float() * (last_BT >= 0).unsqueeze(-1),
            transform(batch[LAST_REWARD].float(), self.epsilon).unsqueeze(-1),
            transform(batch[LAST_INTRINSIC].float(), self.epsilon).unsqueeze(-1),
        ]
        if self.told:
            columns.append(nn.functional.one_hot(batch[ARM].long(), self.arms).float())
        return torch.cat(columns, dim=-1)


class Agent57Module(TorchRLModule, InferenceOnlyAPI):
    """`model_config["settings"]` is an Agent57Settings."""

    def setup(self) -> None:
        self.settings: Agent57Settings = self.model_config["settings"]
        shape, actions = self.observation_space.shape, int(self.action_space.n)
        self.online = QNetworks(shape, actions, self.settings)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.novelty = NoveltyNets(shape, actions, self.settings.novelty) if self.settings.novelty.enabled else None
        self.register_buffer("betas_N", torch.tensor(self.settings.weights(), dtype=torch.float32))
        # The arm that plays when the agent is tested: the bandits' best, as of the last iteration.
        self.register_buffer("best_arm", torch.zeros((), dtype=torch.long))
        self.tested_epsilon = 0.0
        # What the intrinsic reward is divided by where it is scaled: its running mean in what is learned from.
        self.register_buffer("intrinsic_mean", torch.zeros(()))

    def set_exploration(self, *, epsilon: float, temperature: float) -> None:
        """Fixes the ε of `start_episode`. A temperature has no meaning here: the rest of play is greedy."""
        self.tested_epsilon = epsilon

    def start_episode(self) -> Act:
        """Plays an episode by the best arm, one frame at a time."""
        state = {key: torch.from_numpy(value)[None] for key, value in self.get_initial_state().items()}
        curiosity, last_action = Curiosity(), -1

        def act(frame: np.ndarray, reward: float) -> tuple[int, float]:
            nonlocal state, last_action
            intrinsic = 0.0
            if self.novelty is not None:
                (intrinsic,) = curiosity.step(["episode"], [last_action < 0], frame[None], self.novelty)
            output = self._forward_exploration(
                {
                    Columns.OBS: torch.from_numpy(frame)[None, None],
                    ARM: self.best_arm.view(1, 1),
                    EPSILON: torch.full((1, 1), self.tested_epsilon),
                    LAST_ACTION: torch.tensor([[last_action]]),
                    LAST_REWARD: torch.tensor([[float(reward)]]),
                    LAST_INTRINSIC: torch.tensor([[intrinsic]]),
                    Columns.STATE_IN: state,
                }
            )
            state, last_action = output[Columns.STATE_OUT], int(output[Columns.ACTIONS])
            return last_action, float(output[Columns.ACTION_LOGP])

        return act

    def get_non_inference_attributes(self) -> list[str]:
        return ["target"]

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """State at an episode's start: zeros [lstm_size] for each stream's h and c."""
        size = self.settings.network.lstm_size
        return {f"{name}_{part}": np.zeros(size, np.float32) for name in self.online.streams for part in "hc"}

    def pack(self, state: dict[str, Tensor]) -> Tensor:
        """State as one row [B, D] per environment."""
        return torch.cat([state[key] for key in self.get_initial_state()], dim=-1)

    def unpack(self, rows_BD: Tensor) -> dict[str, Tensor]:
        """The inverse of `pack`, as float32."""
        keys = list(self.get_initial_state())
        return dict(zip(keys, rows_BD.float().chunk(len(keys), dim=-1), strict=True))

    def combined(self, values: dict[str, Tensor], betas_N: Tensor) -> Tensor:
        """Q_j of each arm (or of a single one, told to the network): Q_extrinsic + β_j · Q_intrinsic, [..., N, A]."""
        if INTRINSIC not in values:
            return values[EXTRINSIC]
        return values[EXTRINSIC] + betas_N.unsqueeze(-1) * values[INTRINSIC]

    def of_arm(self, values: dict[str, Tensor], arms_BT: Tensor) -> Tensor:
        """Q_j [B, T, A] of one arm per step."""
        return self.combined(self.heads_of(values, arms_BT), self.betas_N[arms_BT.long()])

    def heads_of(self, values: dict[str, Tensor], arms_BT: Tensor) -> dict[str, Tensor]:
        """Q [B, T, A] of each stream, of one arm per step."""
        heads_BT = torch.zeros_like(arms_BT.long()) if self.online.told else arms_BT.long()
        return {
            name: q_BTNA.gather(-2, heads_BT[..., None, None].expand(*heads_BT.shape, 1, q_BTNA.shape[-1])).squeeze(-2)
            for name, q_BTNA in values.items()
        }

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Acts ε-greedily by each environment's arm; returns exact log-probabilities, and the state before the step."""
        values, state = self.online(batch, batch[Columns.STATE_IN])
        streams = self.heads_of(values, batch[ARM])
        own_BTA = self.combined(streams, self.betas_N[batch[ARM].long()])
        actions_BT, log_probs_BT = sample_actions(greedy_mixture(own_BTA, batch[EPSILON].float()).log())
        return {
            Columns.ACTIONS: actions_BT,
            Columns.ACTION_LOGP: log_probs_BT,
            Columns.STATE_OUT: state,
            ARM: batch[ARM],
            MEMORY: self.pack(batch[Columns.STATE_IN])[:, None].half(),
            ESTIMATES: self._estimates(streams, own_BTA, actions_BT),
        }

    def _estimates(self, streams: dict[str, Tensor], own_BTA: Tensor, actions_BT: Tensor) -> Tensor:
        learning = self.settings.learning
        policy_BTA = greedy_mixture(own_BTA, learning.target_epsilon)
        columns = []
        for q_BTA in streams.values():
            columns.append(q_BTA.gather(-1, actions_BT[..., None])[..., 0])
            columns.append((policy_BTA * inverse_transform(q_BTA, learning.transform_epsilon)).sum(-1))
        return torch.stack(columns, dim=-1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._forward_exploration(batch)

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return dict(self.online_and_target(batch))

    def online_and_target(self, batch: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
        """Q-values [B, S, N, A] of a replayed batch (`replay.PrioritizedSequences`), by network and stream.

        Both networks begin at the stored state and run through the burn-in without gradient. A row without burn-in
        keeps its stored state, and what stands in its place has no effect.
        """
        stored = self.unpack(batch[MEMORY])
        burn_in = self.settings.learning.burn_in
        columns = (Columns.OBS, LAST_ACTION, LAST_REWARD, LAST_INTRINSIC, ARM)
        before = {column: batch[column][:, :burn_in] for column in columns}
        learned = {column: batch[column][:, burn_in:] for column in columns}
        found = {}
        for name, networks in (("online", self.online), ("target", self.target)):
            state = stored
            if burn_in:
                with torch.no_grad():
                    burned = networks(before, stored).state
                state = {
                    key: torch.where(batch["burned"].bool().unsqueeze(-1), burned[key], stored[key]) for key in stored
                }
            with torch.set_grad_enabled(name == "online" and torch.is_grad_enabled()):
                found[name] = networks(learned, state).by_stream
        return found
