"""A world model as an environment: gymnasium's contract, and the frames that the model itself predicts."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import DictInfoToList

from genie_ray.envs.world_model import (
    WorldModelEnv,
    WorldModelVectorEnv,
    load_world_model,
    register_rllib_world_model_env,
)
from genie_ray.envs.world_model_games import INTERACTIVE, PrimeWindows, WorldModelEnvConfig
from genie_ray.replay.dataset import ReplayDataset
from tests.genie_ray.tiny_world import CODES, FRAMES, GAMES, SIZE, guided_model, tiny_dataset, unguided_model
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

SAMPLED = DecodingConfig(steps=3, temperature=20.0, mode="autoregressive", frames_per_step=1)
ACTIONS = [0, 4, 2, 1, 3, 0, 2, 4]  # longer than a clip, so that it slides


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def model() -> GenieReduxG:
    return guided_model()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    return tiny_dataset(tmp_path_factory.mktemp("dataset"))


def play(env: WorldModelEnv, seed: int | None, **options: Any) -> np.ndarray:
    """An episode's frames [T, H, W, C], including the first observation."""
    frames = [env.reset(seed=seed, options=options)[0]]
    return np.stack(frames + [env.step(action)[0] for action in ACTIONS])


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.parametrize("decoding", [INTERACTIVE, SAMPLED])
def test_passes_gymnasiums_checker(model: GenieReduxG, dataset: ReplayDataset, decoding: DecodingConfig) -> None:
    check_env(WorldModelEnv(model, dataset, WorldModelEnvConfig(decoding=decoding)))


def test_an_episode_goes_on_from_where_its_prime_frames_end(model: GenieReduxG, dataset: ReplayDataset) -> None:
    env = WorldModelEnv(model, dataset, WorldModelEnvConfig(precision="fp32", prime_frames=3, max_episode_steps=3))
    first, info = env.reset(seed=5)
    (ref,) = [ref for ref in dataset.episodes if ref.episode_id == info["episode_id"]]
    recorded, start = dataset.read(ref), info["prime_step"]
    np.testing.assert_array_equal(first, recorded.frames[start + 2])
    np.testing.assert_array_equal(env.render(), first)

    steps = [env.step(action) for action in (4, 0, 4)]
    assert [step[1:4] for step in steps] == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    actions = torch.tensor([[*recorded.actions[start : start + 2], 4, 0, 4]])
    primes = torch.tensor(recorded.frames[None, start : start + 3])
    predicted = model.rollout(primes, actions, decoding=INTERACTIVE)[0]
    np.testing.assert_array_equal(np.stack([step[0] for step in steps]), predicted)
    np.testing.assert_array_equal(env.render(), predicted[-1])

    info = steps[0][4]
    assert (info["episode_id"], info["prime_step"]) == (ref.episode_id, start)
    entropy = model.one_step_logits(primes, actions[:, :3]).log_softmax(-1)
    entropy = -(entropy.exp() * entropy).sum(-1)[0, 0] / np.log(32)
    np.testing.assert_allclose(info["uncertainty"], entropy.reshape(4, 4), atol=1e-5)
    assert info["uncertainty_top_k"] == pytest.approx(np.sort(entropy.numpy())[-4:].mean(), abs=1e-5)


def test_seed_and_actions_decide_everything(model: GenieReduxG, dataset: ReplayDataset) -> None:
    env = WorldModelEnv(model, dataset, WorldModelEnvConfig(precision="fp32", decoding=SAMPLED))
    frames = play(env, 1)
    second = play(env, None)  # the next episode of the same stream
    again = WorldModelEnv(model, dataset, WorldModelEnvConfig(precision="fp32", decoding=SAMPLED))
    np.testing.assert_array_equal(play(again, 1), frames)
    np.testing.assert_array_equal(play(again, None), second)
    assert not np.array_equal(second[0], frames[0])

    primes = {"prime_frames": np.zeros((2, SIZE, SIZE, 3), np.uint8), "prime_actions": np.array([3])}
    given = play(env, 1, **primes)
    np.testing.assert_array_equal(play(env, 1, **primes), given)
    assert not np.array_equal(play(env, 2, **primes), given)  # tokens are drawn from the seed's stream


def test_what_it_returns_is_the_callers(model: GenieReduxG, dataset: ReplayDataset) -> None:
    env = WorldModelEnv(model, dataset)
    frames = play(env, 1)
    observation, _ = env.reset(seed=1)
    for index, action in enumerate(ACTIONS):
        observation[:] = 0  # or the clip, when it slides, would go on from black frames
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(observation, frames[1 + index])


def test_each_stretch_of_each_episode_is_equally_likely(tmp_path: Path) -> None:
    windows = PrimeWindows(tiny_dataset(tmp_path, [4, 1, 3]), None, frames=3)
    rng = np.random.default_rng(0)
    counts = Counter(windows.draw(rng) for _ in range(1_000))
    # 5, 2 and 4 frames hold 3, 0 and 2 stretches of 3
    assert {(ref.episode_id[-1], step) for ref, step in counts} == {("0", 0), ("0", 1), ("0", 2), ("2", 0), ("2", 1)}
    assert all(150 < count < 250 for count in counts.values())


def test_prime_frames_are_of_the_game_that_is_asked_for(model: GenieReduxG, dataset: ReplayDataset) -> None:
    for game in GAMES:
        env = WorldModelEnv(model, dataset, WorldModelEnvConfig(game=game.removesuffix("-v0")))
        assert {env.reset(seed=seed)[1]["episode_id"].split("/")[0] for seed in range(8)} == {game}


@pytest.mark.parametrize(("games", "decoding"), [(3, INTERACTIVE), (1, SAMPLED)])
def test_a_vector_of_games_is_as_many_environments(
    games: int, decoding: DecodingConfig, model: GenieReduxG, dataset: ReplayDataset
) -> None:
    config = WorldModelEnvConfig(precision="fp32", max_episode_steps=8, decoding=decoding)
    vector = DictInfoToList(WorldModelVectorEnv(games, model, dataset, config))
    singles = [WorldModelEnv(model, dataset, config) for _ in range(games)]
    rng = np.random.default_rng(0)
    frames, infos = vector.reset(seed=7)
    over = True
    for step in range(20):  # through two resets
        if over:
            expected = [env.reset(seed=7 + index if step == 0 else None) for index, env in enumerate(singles)]
            np.testing.assert_array_equal(frames, [frame for frame, _ in expected])
            assert infos == [info for _, info in expected]
        actions = rng.integers(5, size=games)
        frames, rewards, terminated, truncated, infos = vector.step(actions)
        assert vector.observation_space.contains(frames)
        assert not rewards.any()
        assert not terminated.any()
        over = step in (8, 17)  # this step's actions were not played: it began the next episodes
        if over:
            assert not truncated.any()
            continue
        for index, (env, action) in enumerate(zip(singles, actions, strict=True)):
            frame, _, _, ended, info = env.step(action)
            np.testing.assert_array_equal(frames[index], frame)
            assert truncated[index] == ended
            assert infos[index].keys() == info.keys()
            assert infos[index]["episode_id"] == info["episode_id"]
            np.testing.assert_allclose(infos[index]["uncertainty"], info["uncertainty"], atol=1e-5)
    np.testing.assert_array_equal(vector.render(), frames)


def test_latent_actions_are_played_and_inferred(dataset: ReplayDataset) -> None:
    model = unguided_model()
    env = WorldModelEnv(model, dataset, WorldModelEnvConfig(precision="fp32", prime_frames=3))
    assert env.action_space.n == CODES
    _, info = env.reset(seed=5)
    (ref,) = [ref for ref in dataset.episodes if ref.episode_id == info["episode_id"]]
    primes = torch.tensor(dataset.read(ref).frames[None, info["prime_step"] : info["prime_step"] + 3])
    codes = torch.cat([model.latent_actions.encode(primes), torch.tensor([[6, 0, 5]])], dim=1)
    predicted = model.rollout(primes, codes, decoding=INTERACTIVE)[0]
    for index, code in enumerate((6, 0, 5)):
        np.testing.assert_array_equal(env.step(code)[0], predicted[index])


@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib")
def test_rllib_plays_one_by_one_and_in_a_batch(tmp_path: Path, model: GenieReduxG, dataset: ReplayDataset) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from policies.baselines.random import RandomModule

    checkpoint.save(model, tmp_path / "model", provenance={})
    env_config = {
        "world_model": tmp_path / "model",
        "dataset": dataset.root,
        "env": WorldModelEnvConfig(max_episode_steps=4),
    }
    played = {}
    for mode in ("sync", "vector_entry_point"):
        config = (
            PPOConfig()  # stands for any algorithm
            .environment(register_rllib_world_model_env(), env_config=env_config)
            .env_runners(num_env_runners=0, num_envs_per_env_runner=2, gym_env_vectorize_mode=mode)
            .rl_module(rl_module_spec=RLModuleSpec(module_class=RandomModule))
            .debugging(seed=0)
        )
        runner = SingleAgentEnvRunner(config=config)
        assert isinstance(runner.env.unwrapped, WorldModelVectorEnv) == (mode == "vector_entry_point")
        played[mode] = runner.sample(num_timesteps=20)
        runner.stop()
    for one, other in zip(*played.values(), strict=True):
        assert (len(one), one.is_truncated) in ((4, True), (2, False))
        np.testing.assert_array_equal(one.get_actions(), other.get_actions())
        np.testing.assert_array_equal(one.get_observations(), other.get_observations())
        assert one.get_infos(-1)["uncertainty"].shape == (4, 4)


def test_datasets_that_do_not_fit_are_refused(tmp_path: Path, model: GenieReduxG, dataset: ReplayDataset) -> None:
    with pytest.raises(ValueError, match=r"holds frames of \(8, 8, 3\), the model takes \(16, 16, 3\)"):
        WorldModelEnv(model, tiny_dataset(tmp_path / "small", size=8))
    with pytest.raises(ValueError, match=r"has 2 actions \(UP, DOWN\), the model takes 5"):
        WorldModelEnv(model, tiny_dataset(tmp_path / "other", names=("UP", "DOWN")))
    with pytest.raises(ValueError, match=r"no episode in .* has 5 prime frames: the longest has 4"):
        WorldModelEnv(model, tiny_dataset(tmp_path / "short", [2, 3]), WorldModelEnvConfig(prime_frames=5))
    with pytest.raises(ValueError, match=f"has no episode of Pong: it has {GAMES[0]}, {GAMES[1]}"):
        WorldModelEnv(model, dataset, WorldModelEnvConfig(game="Pong"))
    WorldModelEnv(unguided_model(), ReplayDataset(tmp_path / "other"))  # whose actions are not the dataset's


def test_settings_that_cannot_be_are_refused(tmp_path: Path, model: GenieReduxG, dataset: ReplayDataset) -> None:
    with pytest.raises(ValueError, match="prime_frames is 0: must be at least 1"):
        WorldModelEnvConfig(prime_frames=0)
    with pytest.raises(ValueError, match="top_k_fraction is 2: must be above 0, up to 1"):
        WorldModelEnvConfig(top_k_fraction=2)
    with pytest.raises(ValueError, match=f"prime_frames is {FRAMES}: the model takes 1 to {FRAMES - 1}"):
        WorldModelEnv(model, dataset, WorldModelEnvConfig(prime_frames=FRAMES))
    with pytest.raises(ValueError, match="num_envs is 0: must be at least 1"):
        WorldModelVectorEnv(0, model, dataset)
    checkpoint.save(model.tokenizer, tmp_path / "tokenizer", provenance={})
    with pytest.raises(ValueError, match="holds Tokenizer, needed: GenieReduxG or GenieRedux"):
        load_world_model(tmp_path / "tokenizer")


BLACK = np.zeros((3, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no prime frames: give a dataset, or prime_frames in the options"),
        ({"frames": BLACK}, "reset options are frames: allowed are prime_frames, prime_actions"),
        ({"prime_frames": BLACK / 255}, r"are float64 \[1, 3, 16, 16, 3\]: must be uint8 \[games: 1, frames: 1 to 5"),
        ({"prime_frames": BLACK[:, ::2]}, r"prime_frames are uint8 \[1, 3, 8, 16, 3\]: must be .* 16, 16, 3\]"),
        ({"prime_frames": BLACK[:0]}, r"prime_frames are uint8 \[1, 0, 16, 16, 3\]"),
        ({"prime_frames": np.concatenate([BLACK, BLACK])}, r"prime_frames are uint8 \[1, 6, 16, 16, 3\]"),
        ({"prime_frames": BLACK}, "prime_actions are missing: must be 2 for 3 prime frames"),
        ({"prime_frames": BLACK, "prime_actions": [1]}, r"actions have shape \[1, 1\], allowed: \[1, 2\]"),
        ({"prime_frames": BLACK, "prime_actions": [1, 5]}, "actions range from 1 to 5, allowed: 0 to 4"),
        ({"prime_frames": BLACK, "prime_actions": [0.5, 1]}, "actions are float64: must be integers"),
    ],
)
def test_prime_frames_that_cannot_be_are_refused(model: GenieReduxG, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldModelEnv(model, None).reset(options=options)


def test_actions_that_cannot_be_are_refused(model: GenieReduxG, dataset: ReplayDataset) -> None:
    env, vector = WorldModelEnv(model, dataset), WorldModelVectorEnv(2, model, dataset)
    env.reset()
    vector.reset()
    with pytest.raises(ValueError, match="actions range from 5 to 5, allowed: 0 to 4"):
        env.step(5)
    with pytest.raises(ValueError, match="actions are float64: must be integers"):
        env.step(0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"actions have shape \[3, 1\], allowed: \[2, 1\]"):
        vector.step(np.zeros(3, np.int64))
