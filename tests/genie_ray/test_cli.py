"""The command line: errors that the user can fix take one line, with exit code 2, before anything starts."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genie_ray import cli
from genie_ray.replay.dataset import ReplayDataset

SMOKE = str(Path(__file__).parents[2] / "experiments" / "smoke.yaml")


@pytest.fixture
def refuse(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ray_session: None, tmp_path: Path
) -> "Refuse":
    return Refuse(monkeypatch, capsys, tmp_path)


class Refuse:
    """Runs a command that must fail, and returns its error line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.chdir(directory)

    def __call__(self, *arguments: object) -> str:
        self._monkeypatch.setattr(sys, "argv", ["genie-ray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        (line,) = self._capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "collect",
        "train tokenizer",
        "train decoder",
        "train dynamics",
        "train genie-redux",
        "train upscaler",
        "explore",
        "serve-rewards",
        "sweep",
        "evaluate",
        "evaluate-upscaler",
        "rollout",
        "report",
        "reproduce",
        "checkpoint info",
        "checkpoint import",
        "checkpoint with-tokenizer",
        "data info",
        "data verify",
        "data show",
        "data convert",
        "games list",
        "roms doctor",
        "roms import",
        "roms list",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "genie_ray", *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: " in result.stdout


def test_unknown_game(refuse: Refuse, roms: list[str]) -> None:
    line = refuse("collect", "out", "--steps", 100, "--game", "Kangaro-Atari2600")
    assert "unknown game 'Kangaro-Atari2600'" in line
    assert "Kangaroo-Atari2600-v0" in line


def test_missing_rom(refuse: Refuse) -> None:
    line = refuse("collect", "out", "--steps", 100, "--game", "SuperMarioBros-Nes")
    assert "no ROM for SuperMarioBros-Nes-v0" in line
    assert "genie-ray roms import" in line


def test_a_trained_policy_brings_its_own_hold(refuse: Refuse, roms: list[str]) -> None:
    line = refuse("collect", "out", "--steps", 100, "--policy", "agents", "--hold", 4)
    assert "--hold is 4 and --policy agents: holding is for random play only" in line


def test_run_refuses_wrong_settings(refuse: Refuse, roms: list[str]) -> None:
    assert "nearest: 'dynamics.blocks'" in refuse("run", SMOKE, "dynamics.blokcs=2")
    assert "no such config file" in refuse("run", "absent.yaml")
    assert "no ROM for" in refuse("run", SMOKE, "games=[SuperMarioBros-Nes-v0]")
    latent = ["dynamics.conditioning=latent", "latent_actions.dim=32"]
    assert "conditioning is 'latent', allowed here: 'one_hot'" in refuse("run", SMOKE, *latent)
    assert "GB free" in refuse("run", SMOKE, "collection.random_steps=1000000000000")
    assert not Path("runs").exists()


def test_a_run_directory_keeps_its_settings(refuse: Refuse, roms: list[str]) -> None:
    import yaml

    from genie_ray.base.settings import to_dict
    from genie_ray.config import load_config

    Path("mine").mkdir()
    Path("mine/config.yaml").write_text(yaml.safe_dump(to_dict(load_config(SMOKE))))
    line = refuse("run", SMOKE, "--out", "mine", "seed=5")
    assert "holds a run with other settings (seed: 0 → 5)" in line


def test_damaged_dataset_is_named(refuse: Refuse, replay: ReplayDataset, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(replay.root, copy)
    damaged = next(copy.glob("game=*/shard-00001.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert str(damaged) in refuse("train", "tokenizer", "out", "--data", copy, "-c", SMOKE)
    assert "no replay dataset" in refuse("train", "tokenizer", "out", "--data", tmp_path, "-c", SMOKE)
    assert not Path("out").exists()


def test_wrong_checkpoints_are_named(refuse: Refuse, replay: ReplayDataset, world_model: Path, tmp_path: Path) -> None:
    data = ["--data", replay.root, "-c", SMOKE]
    assert "give either --tokenizer" in refuse("train", "dynamics", "out", *data)
    assert "is not a checkpoint" in refuse("train", "dynamics", "out", *data, "--init", tmp_path)
    assert "needed: Tokenizer" in refuse("train", "dynamics", "out", *data, "--tokenizer", world_model)
    assert "expected LABEL=CHECKPOINT" in refuse("evaluate", "out", *data, "--model", world_model)
    assert "is not a checkpoint" in refuse("evaluate", "out", *data, "--model", f"base={tmp_path}")
    other = ["-c", SMOKE, "env.frame_size=32", "tokenizer.frame_size=32"]
    line = refuse("explore", "out", "--world-model", world_model, *other)
    assert "has frame_size 64; the environments have 32" in line
    fewer = ["-c", SMOKE, "env.action_set=RIGHT,LEFT,JUMP", "dynamics.num_actions=3"]
    line = refuse("explore", "out", "--world-model", world_model, *fewer)
    assert "has num_actions 5; the environments have 3" in line
    assert not Path("out").exists()


def test_wrong_reward_settings_are_told(
    refuse: Refuse, roms: list[str], world_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = ["-c", SMOKE]
    assert "either --world-model or --reward-service" in refuse("explore", "out", *smoke)
    assert "no reward service 'absent' on this cluster" in refuse(
        "explore", "out", "--reward-service", "absent", *smoke
    )
    assert "reward.kind=vae: a running service has its own settings" in refuse(
        "explore", "out", "--reward-service", "absent", *smoke, "reward.kind=vae"
    )
    assert "reward.top_k_fraction is 1.5" in refuse("explore", "out", *smoke, "reward.top_k_fraction=1.5")
    assert "reward.kind = 'fear': input should be 'entropy'" in refuse("explore", "out", *smoke, "reward.kind=fear")
    backwards = ["exploration.network.epsilon_start=0.1", "exploration.network.epsilon_end=0.2"]
    assert "epsilon_end is 0.2" in refuse("explore", "out", *smoke, *backwards)
    ask = ["exploration.algorithm=vtrace", "exploration.learning.old_rewards=ask"]
    assert "must see it only once" in refuse("explore", "out", *ask, "reward.kind=rf")
    assert "must see it only once" in refuse("explore", "out", *ask, "reward.novelty=episodic")
    unread = "learning is set, but algorithm = 'ppo' does not read it"
    assert unread in refuse("explore", "out", *smoke, ask[1])
    assert "ppo is set, but algorithm = 'vtrace'" in refuse("explore", "out", *ask, "exploration.ppo.hold=2")
    serve = ["serve-rewards", "--world-model", world_model, *smoke]
    assert "host is 0.0.0.0 and no token is set" in refuse(*serve, "--host", "0.0.0.0")
    assert "no state directory; needed by kind 'rf'" in refuse(*serve, "reward.kind=rf")
    progress = ["reward.kind=learning_progress", "exploration.rounds.every=1"]
    assert "this service never swaps its weights" in refuse(*serve, *progress)
    monkeypatch.setenv("GENIE_RAY_REWARDS_TOKEN", "short")
    assert "allowed: 16 or more" in refuse(*serve)
    assert not Path("out").exists()


def test_wrong_checkpoint_operations_are_told(
    refuse: Refuse, replay: ReplayDataset, world_model: Path, genie_redux: Path, tmp_path: Path
) -> None:
    from world_model import checkpoint
    from world_model.upscaler import Upscaler, UpscalerConfig

    assert "is not a checkpoint" in refuse("checkpoint", "info", tmp_path)
    (tmp_path / "cut.pt").write_bytes(b"")
    assert "truncated or not a .pt file" in refuse("checkpoint", "import", "out", "--tokenizer", tmp_path / "cut.pt")
    checkpoint.save(checkpoint.load_as(checkpoint.WorldModel, genie_redux).tokenizer, tmp_path / "other", provenance={})
    line = refuse("train", "dynamics", "out", "--data", replay.root, "--init", world_model, "dynamics.blocks=3")
    assert "dynamics.blocks is 3: must be " in line
    line = refuse("checkpoint", "with-tokenizer", "out", "--model", world_model, "--tokenizer", tmp_path / "other")
    assert "the tokenizer does not match the dynamics" in line
    data = ["--data", replay.root, "-c", SMOKE]
    checkpoint.save(Upscaler(UpscalerConfig(channels=(4,))), tmp_path / "large", provenance={})
    assert "latent_actions.dim is 512" in refuse(
        "train", "genie-redux", "out", *data, "--tokenizer", tmp_path / "other"
    )
    assert "holds Upscaler, needed: Tok" in refuse("train", "decoder", "out", *data, "--tokenizer", tmp_path / "large")
    assert not Path("out").exists()


def test_a_report_needs_an_evaluation(refuse: Refuse, tmp_path: Path) -> None:
    assert "is not a run directory" in refuse("report", tmp_path)


def test_a_table_and_its_games_must_be_named_right(refuse: Refuse) -> None:
    assert "unknown table 'tab99': allowed are" in refuse("reproduce", "tab99")
    assert "--games 'few': expected SET=GAME" in refuse("reproduce", "tab4", "--games", "few")


@pytest.mark.parametrize(
    "command",
    [
        "rollout s3://bucket/out --world-model model --data data",
        "data convert data s3://bucket/out --to png",
        "checkpoint onnx model s3://bucket/out",
        "study make quality s3://bucket/out --data data --model a=model",
        "sweep experiments/sweeps/topk_epsilon.yaml --out s3://bucket/out",
        "reproduce tab4 --out s3://bucket/out",
        "serve-rewards --world-model model --state s3://bucket/out",
    ],
)
def test_what_needs_a_disk_refuses_an_object_store(refuse: Refuse, command: str) -> None:
    line = refuse(*command.split())
    assert line == "error: s3://bucket/out is not on a disk: this command writes to a directory only"
