"""The published presets: they set what they claim themselves, whatever the defaults become."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from genie_ray.base.settings import to_dict
from genie_ray.config import RunConfig, load_config
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.networks import NETWORKS
from genie_ray.evaluating.published_figures import read_figures, read_lines
from genie_ray.games.actions import action_names
from world_model.dynamics import DynamicsConfig
from world_model.latent_actions import LatentActionConfig
from world_model.maskgit import DecodingConfig
from world_model.tokenizer import TokenizerConfig

PUBLISHED = Path(__file__).parents[2] / "experiments" / "published"

CODEBOOK = {"kind": "cosine", "codes": 1024, "code_dim": 32, "commitment": 0.25, "levels": [8, 5, 5, 5]}
STACK = {"dim": 512, "heads": 8, "head_dim": 64, "max_frames": 16}
AUTOENCODER = {**STACK, "frame_size": 64, "patch_size": 4, "blocks": 8}
TOKENIZER = {**AUTOENCODER, "quantizer": CODEBOOK, "mean_frame": False, "decoder_mean_frame": False}
DYNAMICS = {**STACK, "blocks": 12, "num_actions": 5, "actions_at": "input", "alignment": "shifted"}
OURS = ("changed_weight", "hidden_past", "past_noise", "self_decoded", "inverse_weight", "action_dropout")
DYNAMICS |= dict.fromkeys(OURS, 0.0)
DYNAMICS |= {"masking": "clip", "head": "codes", "embedding_std": 1.0}
GUIDED = {**DYNAMICS, "conditioning": "one_hot", "token_input_scale": 10.0, "tdce_weight": 3.0}
COINRUN = {**DYNAMICS, "num_actions": 7, "token_input_scale": 0.0, "tdce_weight": 0.0}
UNGUIDED, COINRUN_GUIDED = ({**COINRUN, "conditioning": name} for name in ("latent", "one_hot"))
LATENT_ACTIONS = {**AUTOENCODER, "quantizer": {**CODEBOOK, "codes": 7}, "apart": False}
RECIPE = {
    "window": 16,
    "learning_rate": 1e-4,
    "schedule": "cosine",
    "final_learning_rate": 5e-5,
    "warmup_iterations": 5_000,
    "warmup_factor": 0.5,
    "betas": [0.9, 0.99],
    "weight_decay": 1e-4,
    "clip_norm": 10.0,
    "precision": "auto",
}
TOKENIZER_RECIPE = {**RECIPE, "iterations": 150_000, "batch_size": 112}
DYNAMICS_RECIPE = {**RECIPE, "iterations": 185_000, "batch_size": 80}
COINRUN_RECIPES = {
    "train_tokenizer": {**TOKENIZER_RECIPE, "batch_size": 84, "iterations": 100_000},
    "train_dynamics": {**DYNAMICS_RECIPE, "batch_size": 84, "iterations": 150_000},
}
COINRUN_ENV = {"frame_size": 64, "frame_skip": 1, "action_set": "coinrun"}
DECODING = {
    "steps": 25,
    "temperature": 1.0,
    "schedule": "cosine",
    "mode": "one_go",
    "frames_per_step": 2,
    "guidance": 0.0,
}
PROTOCOL = {
    "prime_frames": 2,
    "predicted_frames": 10,
    "stride": 20,
    "windows_per_game": 0,
    "delta_psnr_frame": 4,
    "random_actions": "all",
    "black_corner": [0, 0],
    "ceiling": True,
    "inverse_dynamics": {"updates": 0},
    "decoding": DECODING,
    "published_figures": "experiments/published/figures.csv",
}
AUTOEXPLORE = {
    "num_envs": 8,
    "steps_per_epoch": 200,
    "updates_per_epoch": 200,
    "sequences_per_update": 128,
    "newest_share": 0.0,  # none is published
    "reward_scaling": "none",
    "sequence_length": 20,
    "gamma": 0.995,
    "lambda_": 0.95,
    "entropy_weight": 0.001,
    "prior_weight": 0.0,
    "learning_rate": 1e-4,
    "gradient_norm": 10.0,
    "evaluation_every": 20,
    "evaluation_temperature": 0.5,
}
CLAIMS: dict[str, dict[str, dict[str, Any]]] = {
    "train": {
        "tokenizer": TOKENIZER,
        "dynamics": GUIDED,
        "train_tokenizer": TOKENIZER_RECIPE,
        "train_dynamics": DYNAMICS_RECIPE,
        "finetune": {**RECIPE, "iterations": 10_000, "batch_size": 160},
        "tune_decoder": {**TOKENIZER_RECIPE, "iterations": 1_000, "warmup_iterations": 100},
    },
    "genie_redux": {
        "tokenizer": TOKENIZER,
        "dynamics": UNGUIDED,
        "latent_actions": LATENT_ACTIONS,
        "env": COINRUN_ENV,
        **COINRUN_RECIPES,
    },
    "genie_redux_g_coinrun": {
        "tokenizer": TOKENIZER,
        "dynamics": COINRUN_GUIDED,
        "env": COINRUN_ENV,
        **COINRUN_RECIPES,
    },
    "explore": {
        "reward": {"kind": "entropy", "top_k_fraction": 0.25},
        "exploration": {
            "algorithm": "vtrace",
            "epochs": 300,
            "num_env_runners": 1,
            "network": {
                "channels": [32, 32, 64, 64],
                "lstm_size": 512,
                "temperature": 1.0,
                "epsilon_start": 0.1,
                "epsilon_end": 0.01,
                "epsilon_steps": 150 * 8 * 200,
            },
            "learning": AUTOEXPLORE,
            "rounds": {"every": 0},
        },
    },
    "evaluate": {"evaluation": PROTOCOL, "env": {"frame_size": 64, "max_episode_steps": 700}},
}


@pytest.mark.parametrize("preset", CLAIMS)
def test_a_preset_sets_what_it_claims(preset: str) -> None:
    """In the file itself, and as loaded: nothing depends on defaults."""
    path = PUBLISHED / f"{preset}.yaml"
    written, loaded = yaml.safe_load(path.read_text()), to_dict(load_config(path))
    for section, claims in CLAIMS[preset].items():
        assert written[section] == claims
        assert _claimed(loaded[section], claims) == claims


def _claimed(loaded: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """The claimed settings' values in a loaded config, including nested parts."""
    return {
        key: _claimed(loaded[key], value) if isinstance(value, dict) else loaded[key] for key, value in claims.items()
    }


@pytest.mark.parametrize("preset", PUBLISHED.glob("*.yaml"), ids=lambda path: path.stem)
def test_every_preset_is_tested(preset: Path) -> None:
    assert set(yaml.safe_load(preset.read_text())) <= {*CLAIMS[preset.stem], "env", "collection"}


def test_coinrun_is_collected_as_its_models_expect() -> None:
    collected = load_config(PUBLISHED.parent / "coinrun" / "collect.yaml")
    assert len(action_names(collected.env.action_set)) == collected.dynamics.num_actions == 7
    for preset in ("genie_redux", "genie_redux_g_coinrun"):
        model = load_config(PUBLISHED / f"{preset}.yaml")
        assert {key: getattr(model.env, key) for key in COINRUN_ENV} == {
            key: getattr(collected.env, key) for key in COINRUN_ENV
        }


def test_no_choice_is_left_to_a_default() -> None:
    """A new field of a model, its decoding or its protocol must also be set in the presets."""
    for config, claims in (
        (TokenizerConfig, TOKENIZER),
        (DynamicsConfig, GUIDED),
        (DynamicsConfig, UNGUIDED),
        (DynamicsConfig, COINRUN_GUIDED),
        (LatentActionConfig, LATENT_ACTIONS),
        (DecodingConfig, DECODING),
    ):
        assert {field.name for field in dataclasses.fields(config)} == set(claims)
    ours = {"batch_size", "film_strips", "pictures", "precision", "seed", *NETWORKS}
    assert {field.name for field in dataclasses.fields(EvaluationConfig)} - ours == set(PROTOCOL)
    assert load_config(PUBLISHED / "evaluate.yaml").collection.test_steps == 1_000 * 700


def test_the_papers_figures_are_read() -> None:
    figures = {row["label"]: row for row in read_figures(str(PUBLISHED / "figures.csv"))}
    assert figures["Kazemi 2024, CoinRun random: GenieRedux-G"] == {
        "label": "Kazemi 2024, CoinRun random: GenieRedux-G",
        "psnr_mean": 33.41,
        "ssim": 0.92,
        "delta_psnr_mean": None,
        "fid": 18.88,
    }
    assert figures["Savov 2025, Smurfs: fine-tuned on explored play"]["delta_psnr_mean"] == 1.55
    doubted = {label.partition(" (")[0]: row for label, row in figures.items() if "probably misprinted" in label}
    smurfs = doubted["Savov 2025, Smurfs: from scratch"]
    assert (smurfs["psnr_mean"], smurfs["ssim"], len(doubted)) == (35.42, 0.80, 3)


def test_the_papers_figures_are_whole_and_agree_where_two_tables_share_them() -> None:
    """A test set and a model are one line; better models of a game have, in the papers' words, better figures."""
    lines = read_lines(str(PUBLISHED / "figures.csv"))
    figures = {(line["test_set"], line["model"]): line for line in lines}
    assert len(figures) == len(lines) == 61
    assert all(line["table"] and line["source"] for line in lines)
    games = ("Adventure Island II", "Super Mario Bros", "Smurfs", "three games together")
    for game in games:
        explored, random = (figures[game, f"{play}; autoregressive decoding"] for play in ("explored", "random"))
        assert explored["psnr_mean"] > figures[game, "fine-tuned on explored play"]["psnr_mean"]
        assert explored["psnr_mean"] > random["psnr_mean"] > figures[game, "pre-trained"]["psnr_mean"]
        assert explored["fid"] < random["fid"]
    means = [figures["three games together", "fine-tuned on explored play"][key] for key in ("psnr_mean", "ssim")]
    of_each = [figures[game, "fine-tuned on explored play"] for game in games[:3]]
    assert means == pytest.approx([sum(one[key] for one in of_each) / 3 for key in ("psnr_mean", "ssim")], abs=0.2)


def test_figures_may_say_their_table_and_what_is_doubted(tmp_path: Path) -> None:
    """A file without these two columns is read as before."""
    path = tmp_path / "figures.csv"
    path.write_text("paper,test_set,model,psnr_mean,ssim,delta_psnr_mean,fid\nA,b,c,20,,,\n")
    assert read_figures(str(path)) == [
        {"label": "A, b: c", "psnr_mean": 20.0, "ssim": None, "delta_psnr_mean": None, "fid": None}
    ]
    assert read_lines(str(path))[0]["suspect"] == ""
    head = "paper,table,test_set,model,psnr_mean,ssim,delta_psnr_mean,fid,suspect"
    path.write_text(f"{head}\nA,Tab. 1,b,c,20,,,,psnr_mean\n")
    assert read_figures(str(path))[0]["label"] == "A, b: c (probably misprinted: psnr_mean)"
    path.write_text(f"{head}\nA,Tab. 1,b,c,20,,,,psnr\n")
    with pytest.raises(ValueError, match="suspect is 'psnr'; allowed: psnr_mean, ssim"):
        read_figures(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "no such file"),
        ("", "not a CSV with the columns paper, test_set, model"),
        ("paper,psnr\na,1\n", "not a CSV with the columns paper, test_set, model"),
        (
            "paper,test_set,model,psnr_mean,ssim,delta_psnr_mean,fid\na,b,c,high,,,\n",
            "could not convert string to float: 'high'",
        ),
    ],
)
def test_what_are_no_figures_is_refused(text: str | None, told: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=told):
        read_figures(str(path))


def test_latent_conditioning_asks_for_fitting_latent_actions() -> None:
    with pytest.raises(ValueError, match=r"latent_actions\.dim is 512, allowed: dynamics\.dim 64"):
        load_config(None, ["dynamics.conditioning=latent", "dynamics.dim=64", "dynamics.token_input_scale=0"])
    assert RunConfig().tune_decoder.iterations == 1_000
