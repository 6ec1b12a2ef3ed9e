"""The replay buffer when it is full."""

import numpy as np

from policies.replay import LEARNED, SequenceReplayBuffer
from tests.policies.episodes import fragment


def test_what_is_stored_stays_consistent_while_the_oldest_goes() -> None:
    """Episodes of uneven runners: the oldest one may be evicted by the very fragment that extended it."""
    rng = np.random.default_rng(0)
    replay = SequenceReplayBuffer(capacity=100, seed=0)
    at = {f"0-{lane}": 0 for lane in range(3)}
    restarted = 0
    for _ in range(300):
        name = str(rng.choice(list(at), p=[0.1, 0.3, 0.6]))
        steps, done = int(rng.integers(1, 20)), bool(rng.random() < 0.2)
        replay.add([fragment(name, at[name], steps, done=done)])
        at[name] += steps
        if done:
            number, lane = name.split("-")
            at = {
                (f"{int(number) + 1}-{lane}" if key == name else key): 0 if key == name else t for key, t in at.items()
            }
        held = [len(episode) for episode in replay.episodes]
        assert replay.get_num_timesteps() == sum(held) == len(replay._indices)
        assert sum(held) <= 100 or len(held) == 1
        assert set(replay._indices) == {
            (replay._num_episodes_evicted + e, t) for e, length in enumerate(held) for t in range(length)
        }
        restarted += sum(episode.t_started > 0 for episode in replay.episodes)
        for sequence in replay.sample_sequences(4, length=5, burn_in=2):
            shown = sequence.get_observations()
            np.testing.assert_array_equal(shown, sequence.t_started + np.arange(len(shown)))
            np.testing.assert_array_equal(sequence.get_actions(), shown[:-1])
            assert sequence.get_extra_model_outputs(LEARNED).any()
    assert restarted  # an unfinished episode was evicted and continued
