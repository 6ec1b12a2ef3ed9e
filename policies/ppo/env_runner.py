"""Play of held actions, judged before it is learned from.

A decision is judged once, at its last step: with actions held for four steps, its window is exactly the decision. The
runner waits for its fragment's rewards, so that a policy learns from its own play (PPO is on-policy); several runners
keep the reward service busy meanwhile.
"""

import copy
from typing import Any, NamedTuple

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policies.judged.env_runner import CuriosityEnvRunner, JudgedFragment, Waiting, means
from policies.play.held import STEPS, HeldSteps
from policies.play.recorded import RecordedPlay
from policies.rewards import WINDOW_ACTIONS, RewardAnswer


class HeldEnvRunner(CuriosityEnvRunner):
    """Plays a vector of `HeldEnv(…, record=True)`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._starts: dict[str, np.ndarray] = {}  # by game: the latest episode's first observation

    def hand_on(self, episodes: list[SingleAgentEpisode]) -> JudgedFragment:
        """Waits for the rewards of the play just made."""
        answer = self._receive(self._ask(episodes))
        common: dict[str, Any] = {"metrics": self.get_metrics(), "dropped_in_a_row": self._dropped_in_a_row}
        return JudgedFragment(**common) if answer is None else self._judged(episodes, answer, **common)

    def _ask(self, episodes: list[SingleAgentEpisode], *, remember: bool = True) -> Waiting:
        windows = [(episode.id_, *window) for episode in episodes for window in unfold(episode).windows()]
        future = self._client.submit(
            [frames for _, frames, _ in windows],
            [actions for _, _, actions in windows],
            episodes=[name for name, _, _ in windows],
            remember=remember,
        )
        return Waiting(episodes=episodes, future=future)

    def _judged(self, episodes: list[SingleAgentEpisode], answer: RewardAnswer, **common: Any) -> JudgedFragment:
        last = iter([float(rewards[-1]) for rewards in answer.rewards])  # of each window, its only defined one
        judged, recorded = [], []
        self._starts |= {game_of(each): each.get_observations(0) for each in episodes if not each.t_started}
        for episode in episodes:
            steps = unfold(episode)
            rewards = np.array([next(last) if end >= WINDOW_ACTIONS else np.nan for end in steps.ends], np.float32)
            judged.append(self._with_rewards(episode, rewards))
            recorded.append(record_decisions(episode, steps, rewards))
        return JudgedFragment(
            episodes=judged, recorded=recorded, version=answer.version, statistics=means(answer), **common
        )

    def _with_rewards(self, episode: SingleAgentEpisode, rewards: np.ndarray) -> SingleAgentEpisode:
        """A copy without infos, which shares the frames unless the game ended.

        If returns go on beyond episodes, none counts as terminated: death leads to the start of an episode. The value
        of what was shown at the end would be made up, since no decision is ever made there. A time limit ends an
        episode anywhere, and where it did the value is known from other episodes.
        """
        judged = copy.copy(episode)
        lookback = episode.actions.lookback
        before = np.full(len(episode.actions.data) - len(rewards), np.nan, np.float32)
        judged.rewards = InfiniteLookbackBuffer(np.concatenate([before, rewards]), lookback=lookback)
        judged.infos = InfiniteLookbackBuffer([{}] * len(episode.infos.data), lookback=episode.infos.lookback)
        if episode.is_terminated and not self.config.settings.episodic:
            judged.is_terminated, judged.is_truncated = False, True
            if (start := self._starts.get(game_of(episode))) is not None:
                shown = np.stack([*episode.observations.data[:-1], start])
                judged.observations = InfiniteLookbackBuffer(shown, lookback=episode.observations.lookback)
        return judged


class Unfolded(NamedTuple):
    """The steps of a piece of an episode, and those of the decisions in its lookback.

    `ends[d]` is the number of actions up to and including those of the piece's decision d; `before` that of the
    lookback.
    """

    frames: np.ndarray  # uint8 [n + 1, H, W, C]
    actions: np.ndarray  # int64 [n]
    before: int
    ends: np.ndarray  # int64 [decisions of the piece]

    def windows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Frames and actions of each decision that has a window."""
        return [
            (self.frames[end - WINDOW_ACTIONS : end + 1], self.actions[end - WINDOW_ACTIONS : end])
            for end in self.ends
            if end >= WINDOW_ACTIONS
        ]


def game_of(episode: SingleAgentEpisode) -> str:
    """The game that is played, in an environment of several games; else an empty string."""
    return held_steps(episode)[0].infos[-1].get("game", "")


def held_steps(episode: SingleAgentEpisode) -> list[HeldSteps]:
    """The steps that led to each of a piece's observations, those of its lookback included."""
    return [info[STEPS] for info in episode.infos.data]


def unfold(episode: SingleAgentEpisode) -> Unfolded:
    """A piece of an episode of decisions as an episode of steps."""
    first, *following = held_steps(episode)
    counts = np.array([len(steps.rewards) for steps in following], np.int64)
    frames = np.concatenate([first.frames[-1:], *(steps.frames for steps in following)])
    actions = np.repeat(np.asarray(episode.actions.data, np.int64), counts)
    ends, looked_back = counts.cumsum(), len(counts) - len(episode)
    return Unfolded(frames, actions, int(counts[:looked_back].sum()), ends[looked_back:])


def record_decisions(episode: SingleAgentEpisode, steps: Unfolded, rewards: np.ndarray) -> RecordedPlay:
    """A piece of an episode step by step.

    The action of a decision is drawn at its first step and certain at the others. A reward stands at its last step.
    """
    *_, before = held_steps(episode)[: -len(episode)]
    following = held_steps(episode)[-len(episode) :]
    ends = steps.ends - steps.before
    starts = np.concatenate([[0], ends[:-1]])
    count = int(ends[-1])
    log_probs, by_step = np.zeros(count, np.float32), np.full(count, np.nan, np.float32)
    log_probs[starts] = episode.get_extra_model_outputs(Columns.ACTION_LOGP)
    by_step[ends - 1] = rewards
    return RecordedPlay(
        episode=episode.id_,
        first=following[0].first,
        frames=steps.frames[steps.before :],
        actions=steps.actions[steps.before :].astype(np.int8),
        log_probs=log_probs,
        game_rewards=np.concatenate([held.rewards for held in following]),
        rewards=by_step,
        infos=[before.infos[-1], *(info for held in following for info in held.infos)],
        terminated=episode.is_terminated,
        truncated=episode.is_truncated,
    )
