"""Jafar's sizes as a preset: laid over GenieRedux's it is Jafar's defaults, as its scripts have them."""

from pathlib import Path

from genie_ray.config import RunConfig, load_config
from genie_ray.games.actions import action_names, action_weights

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def jafar() -> RunConfig:
    return load_config([EXPERIMENTS / "published" / "genie_redux.yaml", EXPERIMENTS / "jafar" / "genie.yaml"])


def test_the_sizes_are_jafars() -> None:
    """train_tokenizer.py, train_lam.py and train_dynamics.py of FLAIROx/jafar."""
    config = jafar()
    tokenizer, dynamics, latent = config.tokenizer, config.dynamics, config.latent_actions
    assert (tokenizer.dim, tokenizer.blocks, tokenizer.heads, tokenizer.patch_size) == (512, 8, 8, 4)
    assert (tokenizer.quantizer.codes, tokenizer.quantizer.code_dim) == (1024, 32)
    assert (latent.dim, latent.blocks, latent.heads, latent.patch_size) == (512, 8, 8, 16)
    assert (latent.quantizer.codes, latent.quantizer.code_dim, latent.apart) == (6, 32, True)
    assert (dynamics.dim, dynamics.blocks, dynamics.heads, dynamics.conditioning) == (512, 12, 8, "latent")
    trained = {name: getattr(config, name) for name in ("train_tokenizer", "train_dynamics")}
    sizes = {name: (one.iterations, one.batch_size, one.window) for name, one in trained.items()}
    assert sizes == {"train_tokenizer": (300_000, 48, 16), "train_dynamics": (200_000, 36, 16)}
    rates = {name: (one.learning_rate * one.warmup_factor, one.learning_rate) for name, one in trained.items()}
    assert rates == {"train_tokenizer": (3e-4, 3e-4), "train_dynamics": (3e-6, 3e-5)}


def test_random_play_presses_every_key_as_often_as_procgens_does() -> None:
    """15 keys, of which nine move the player and six do nothing in CoinRun, like none."""
    names = action_names(jafar().env.action_set)
    weights = dict(zip(names, action_weights("NOOP=7", names), strict=True))
    assert (len(names), sum(weights.values()), weights["NOOP"]) == (9, 15, 1 + 6)
