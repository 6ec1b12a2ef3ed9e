"""Making a study: every clip is what the key says, and nothing that a rater sees tells which is which."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from genie_ray.base.settings import build
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.studies.config import TRUTH, StudyConfig
from genie_ray.studies.kit import make, read_key
from genie_ray.web.shipped import SHIPPED
from tests.genie_ray.tiny_world import GAMES, NAMES, guided_model, tiny_dataset, unguided_model
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

DECODING = DecodingConfig(steps=4, temperature=0.0, mode="autoregressive", frames_per_step=1)
CONFIG = StudyConfig(samples=14, truth=4, frames=4, stride=2, precision="fp32")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ReplayDataset:
    return tiny_dataset(tmp_path_factory.mktemp("data"), [30, 10, 15])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GenieReduxG]:
    torch.manual_seed(0)
    return {"mallard": guided_model(), "teal": guided_model()}


@pytest.fixture(scope="module")
def paths(models: dict[str, GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    for label, model in models.items():
        checkpoint.save(model, root / label, provenance={})
    return {label: root / label for label in models}


def expected_clip(
    side: dict[str, Any], sample: dict[str, Any], dataset: ReplayDataset, models: dict[str, GenieReduxG]
) -> np.ndarray:
    """The frames that a side of a sample must show, made without the code under test."""
    episode = dataset.read(next(ref for ref in dataset.episodes if ref.episode_id == sample["episode"]))
    start, window = sample["start"], CONFIG.window
    frames = torch.from_numpy(episode.frames[start : start + window])
    if side["source"] == TRUTH:
        return frames.numpy()
    actions = torch.from_numpy(episode.actions[start : start + window - 1].astype(np.int64))
    if side["action"] is not None:
        actions[1:] = NAMES.index(side["action"])
    predicted = models[side["source"]].rollout(frames[None, :2], actions[None], decoding=DECODING)
    return np.concatenate([frames[:2].numpy(), predicted[0].numpy()])


def check_clips(output: Path, dataset: ReplayDataset, models: dict[str, GenieReduxG]) -> None:
    key = read_key(output)
    assert {path.stem for path in (output / "kit" / "clips").iterdir()} == key["samples"].keys()
    for name, sample in key["samples"].items():
        picture = imageio.imread(output / "kit" / "clips" / f"{name}.png").reshape(CONFIG.window, 16, 32, 3)
        for side, shown in (("left", picture[:, :, :16]), ("right", picture[:, :, 16:])):
            np.testing.assert_array_equal(shown, expected_clip(sample[side], sample, dataset, models))


def test_quality_pairs_are_a_prediction_and_the_recording(
    dataset: ReplayDataset, models: dict[str, GenieReduxG], paths: dict[str, Path], tmp_path: Path
) -> None:
    key = make(tmp_path, "quality", paths, dataset.root, CONFIG)
    check_clips(tmp_path, dataset, models)
    pairs = Counter(
        tuple(sorted(sample[side]["source"] for side in ("left", "right"))) for sample in key["samples"].values()
    )
    assert pairs == {(TRUTH, TRUTH): 4, (TRUTH, "mallard"): 5, (TRUTH, "teal"): 5}
    seen = {
        label: {
            (s["episode"], s["start"])
            for s in key["samples"].values()
            if label in (s["left"]["source"], s["right"]["source"])
        }
        for label in models
    }
    assert seen["mallard"] == seen["teal"]  # the same windows for both
    assert {sample["game"] for sample in key["samples"].values()} == set(GAMES)
    sides = Counter(
        sample["left"]["source"] == TRUTH for sample in key["samples"].values() if sample["left"] != sample["right"]
    )
    assert min(sides.values()) > 1  # on either side
    page = (tmp_path / "kit" / "index.html").read_text()
    assert not [
        told
        for told in (*paths, *map(str, paths.values()), TRUTH + '"', "episode")
        if told in page.split("STUDY =")[1].split("\n")[0]
    ]


def test_action_pairs_hold_the_named_action_and_another(
    dataset: ReplayDataset, models: dict[str, GenieReduxG], paths: dict[str, Path], tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, samples=15, truth=0)
    key = make(tmp_path, "action", paths, dataset.root, config)
    check_clips(tmp_path, dataset, models)
    kinds: Counter[tuple[str, ...]] = Counter()
    for sample in key["samples"].values():
        left, right = sample["left"], sample["right"]
        kinds[tuple(sorted({left["source"], right["source"]}))] += 1
        if left["source"] == right["source"]:
            assert (left["action"] == sample["action"]) != (right["action"] == sample["action"])
        else:
            assert left["action"] == right["action"] == sample["action"]
    assert kinds == {("mallard",): 5, ("teal",): 5, ("mallard", "teal"): 5}
    assert Counter(sample["action"] for sample in key["samples"].values()) == dict.fromkeys(NAMES, 3)


def test_the_same_seed_makes_the_same_study(dataset: ReplayDataset, paths: dict[str, Path], tmp_path: Path) -> None:
    def made(name: str, seed: int) -> tuple[dict[str, Any], str]:
        key = make(
            tmp_path / name, "action", paths, dataset.root, dataclasses.replace(CONFIG, samples=6, truth=0, seed=seed)
        )
        return key, (tmp_path / name / "kit" / "index.html").read_text()

    first, again, other = made("first", 1), made("again", 1), made("other", 2)
    assert first == again
    assert first[0]["samples"].keys() != other[0]["samples"].keys()
    assert first[0]["study"] != other[0]["study"]


def test_the_game_shows_the_named_action_itself(procgen: None, tmp_path: Path) -> None:
    """On the shipped play of CoinRun, beside an emulator that this test plays; button sets are apart."""
    config = StudyConfig(samples=4, truth=2, frames=4, stride=40, actions=("RIGHT", "LEFT", "RIGHT+JUMP"))
    key = make(tmp_path, "action", {"shipped": SHIPPED / "model"}, SHIPPED / "play", config)
    dataset = ReplayDataset(SHIPPED / "play")
    names = dataset.metadata.action_names
    env = make_game("CoinRun", build(EnvConfig, dataset.metadata.config["env"]))
    checked = 0
    for name, sample in key["samples"].items():
        assert (sample["left"]["action"] == "LEFT") != (sample["right"]["action"] == "LEFT")
        if sample["left"]["source"] != TRUTH:
            continue
        episode = dataset.read(next(ref for ref in dataset.episodes if ref.episode_id == sample["episode"]))
        picture = imageio.imread(tmp_path / "kit" / "clips" / f"{name}.png").reshape(6, 64, 128, 3)
        for side, shown in (("left", picture[:, :, :64]), ("right", picture[:, :, 64:])):
            held = names.index(sample[side]["action"])
            frames = [env.reset(options={"level": episode.infos[0]["level"]})[0]]
            for action in [*episode.actions[: sample["start"] + 1], held, held, held, held]:
                frames.append(env.step(int(action))[0])
            np.testing.assert_array_equal(shown, frames[-6:])
            checked += 1
    env.close()
    assert checked == 4


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "quality",
            {"samples": 13},
            "samples − truth is 9: must be a multiple of 2, a share each for game against mallard",
        ),
        (
            "action",
            {"truth": 0},
            "is 14: must be a multiple of 3, a share each for mallard, teal, mallard against teal",
        ),
        (
            "quality",
            {"samples": 124},
            "has 1[0-9] windows of 6 frames of Hero-Atari2600-v0, 2 frames apart: 30 are needed",
        ),
        ("quality", {"games": ("Pong",)}, "has no episode of Pong"),
        ("action", {"samples": 6, "truth": 0, "actions": ("FIRE",)}, "unknown action 'FIRE': allowed are RIGHT, LEFT"),
        ("action", {"samples": 6, "truth": 0, "actions": ("UP",)}, "has the actions UP: must be at least two"),
        ("action", {"samples": 6, "truth": 3}, "cannot show Hero.* as truth is 3 .*does not say in which environment"),
        ("quality", {"frames": 40}, "no window of 42 frames"),
    ],
)
def test_what_cannot_be_made_is_refused(
    dataset: ReplayDataset, paths: dict[str, Path], tmp_path: Path, kind: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "out", kind, paths, dataset.root, dataclasses.replace(CONFIG, **changes))
    assert not (tmp_path / "out").exists()


def test_models_that_do_not_fit_and_a_second_study_are_refused(
    dataset: ReplayDataset, paths: dict[str, Path], tmp_path: Path
) -> None:
    checkpoint.save(unguided_model(), tmp_path / "latent", provenance={})
    config = dataclasses.replace(CONFIG, samples=2, truth=0)
    with pytest.raises(ValueError, match="holds GenieRedux, needed: GenieReduxG"):
        make(tmp_path / "out", "action", {"latent": tmp_path / "latent"}, dataset.root, config)
    with pytest.raises(ValueError, match="a model is labelled 'game'"):
        make(tmp_path / "out", "quality", {TRUTH: paths["mallard"]}, dataset.root, config)
    make(tmp_path / "out", "quality", {"latent": tmp_path / "latent"}, dataset.root, config)
    before = json.loads((tmp_path / "out" / "key.json").read_text())
    with pytest.raises(ValueError, match="has a study already"):
        make(tmp_path / "out", "quality", paths, dataset.root, config)
    assert read_key(tmp_path / "out") == before
    for changes, message in (
        ({"samples": 0}, "samples is 0"),
        ({"truth": 14}, "truth is 14: must be from 0 to 13"),
        ({"fps": 0.5}, "fps is 0.5: must be from 1 to 60"),
        ({"stride": -1}, "stride is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(CONFIG, **changes)
