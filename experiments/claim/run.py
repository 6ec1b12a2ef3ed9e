"""The comparison that counts: does exploring teach the world model more than chance does?

    python -m experiments.claim.run experiments/claim/config.yaml --out runs/claim
    python -m experiments.claim.run experiments/claim/config.yaml --out runs/claim-tiny --tiny

For each game and seed one base model learns from random play. Each arm then gets new play: random, random with held
actions (the fair baseline), that of explorers, that of the test agents (`oracle`: what there is to win), or another
arm's with its episodes ranked. The base model is fine-tuned on each arm's play as the loop does it, decoder first, then
dynamics, with equal numbers of steps, iterations and frames. An explorer's play is all play of its training. The models
are scored together on one test set
that none has seen: play of agents trained on the game's own reward, mixed with random actions, in CoinRun on other
levels. Whether these agents are visibly better than chance is checked and told.

Settings: plan.py and config.yaml. Writes to OUT/<game>/seed-N the base model, the arms, the test set, its evaluation
and `result.json`; to OUT `results.json`, `results.md` and `results.png`, of all results so far. A repeated command
continues where it was stopped and repeats nothing. A directory with other settings is refused before anything starts.
`--only ARM`, `--game GAME` and `--seed N` are repeatable; random play is always made, since the others are compared
with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from experiments.claim.draw import draw
from experiments.claim.plan import Arm, Comparison, Plan, check_plan, plan_files, read_plan
from experiments.claim.table import PARTS, document, measures
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import console
from genie_ray.base.results import Row
from genie_ray.base.seeding import seed_of
from genie_ray.base.session import ray_session
from genie_ray.collecting.collection import collect
from genie_ray.collecting.plan import Policy
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import COPY
from genie_ray.exploring.explorers import train_explorers
from genie_ray.exploring.recorder import PLAY
from genie_ray.playing.depth import depth, outcome
from genie_ray.playing.players import train_player
from genie_ray.replay.coverage import Seen, seen
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.training.finetuning import finetuning_steps
from genie_ray.training.train import train_world_model

BASE = "base model"
REFERENCES = (BASE, COPY)
RESULT = "result.json"
PLAYED_BY = {"random": "chance", "player": "test agent", "explorer": "explorer in training"}


class Maker:
    """Makes what a comparison needs, in its directory; what is there is not made again. Needs a running Ray."""

    def __init__(self, comparison: Comparison, out: Path) -> None:
        self.comparison, self.out = comparison, out
        self.directory = comparison.directory(out)
        self.base_play, self.test = self.directory / "base" / "play", self.directory / "test"
        self._config, self._game = comparison.base, comparison.game

    def play(self, output: Path, policy: Policy, steps: int, purpose: str, *, on_test_env: bool = False) -> Path:
        """Collects play; its seed depends on the purpose, so that no two datasets share episodes."""
        config = self._config
        env = self.comparison.test_env if on_test_env else config.env
        seed = seed_of(config.seed, purpose)
        return collect(output, policy, [self._game], steps, config.collection, env, seed=seed)

    def base_model(self) -> Path:
        """The model that all arms are fine-tuned from."""
        self.play(self.base_play, Policy(name="random"), self._config.collection.random_steps, "base")
        return train_world_model(self._config, self.base_play, self.directory / "base", self._config.ray)

    def player(self) -> Policy:
        """The test agent, trained on the game's own reward, mixed with random actions."""
        directory, config = self.directory / "player", self._config
        train_player(directory / self._game, self._game, config.player, config.env, config.ray, seed=config.seed)
        return Policy(name="player", directory=directory, epsilon=config.collection.test_epsilon)

    def arm_play(self, arm: Arm) -> Path:
        """The play that an arm's model is fine-tuned on."""
        if arm.play_of:
            return self.arm_play(self.comparison.arms[arm.play_of])
        directory, collection = self.comparison.arm_directory(arm, self.out), arm.config.collection
        if arm.source == "random":
            policy = Policy(name="random" if arm.hold == 1 else "held", hold=arm.hold)
        elif arm.source == "player":
            policy = self.player()
        else:
            agents = directory / "agents"
            for _ in train_explorers(agents, [self._game], self.directory / "base" / "dynamics" / "best", arm.config):
                pass
            return agents / self._game / PLAY
        return self.play(directory / "play", policy, collection.finetune_steps, arm.name)

    def model(self, arm: Arm, play: Path) -> Path:
        """The base model fine-tuned on an arm's play."""
        directory, base = self.comparison.arm_directory(arm, self.out), self.directory / "base"
        steps = finetuning_steps(
            arm.config,
            play,
            arm.config.ray,
            base=base / "dynamics" / "best",
            decoder=directory / "decoder",
            finetuned=directory / "finetuned",
        )
        for step in steps:
            if not step.artefact.exists():
                step.run()
        return directory / "finetuned" / "best"

    def result(self, arms: Sequence[str]) -> Row:
        """Trains and scores these arms; those that were scored before are scored with them."""
        comparison, config = self.comparison, self._config
        names = [name for name in comparison.arms if name in {*arms, *stored_arms(comparison, self.out)}]
        chosen = [comparison.arms[name] for name in names]
        comparison.keep(chosen, self.out)
        base = self.base_model()
        models, plays = {BASE: base}, dict[str, Path]()
        for arm in chosen:
            begin = time.perf_counter()
            plays[arm.name] = self.arm_play(arm)
            models[arm.name] = self.model(arm, plays[arm.name])
            told = f"{comparison.game}, seed {comparison.seed}: {arm.name}"
            console.print(f"{told}: {time.perf_counter() - begin:.0f} s", soft_wrap=True)
        self.play(self.test, self.player(), config.collection.test_steps, "test", on_test_env=True)
        by_chance = [self.base_play, *(plays[arm.name] for arm in chosen if arm.source == "random" and not arm.play_of)]
        evaluation = self.directory / "evaluation"
        found = evaluate(models, self.test, evaluation, config.evaluation, config.ray, reached_by=by_chance)["models"]
        scores = {name: found[name][comparison.game] for name in (*REFERENCES, *names)}
        longest = config.env.max_episode_steps
        return {
            "game": comparison.game,
            "seed": comparison.seed,
            "windows": scores[BASE]["windows"],
            "unreached_windows": (scores[BASE]["unreached"] or {"windows": 0})["windows"],
            "depth": depth(outcome(self.test, longest), outcome(self.base_play, longest)),
            "references": {name: summary(scores[name]) for name in REFERENCES},
            "arms": {
                arm.name: {
                    "played_by": PLAYED_BY[arm.source],
                    **asdict(self._seen(plays[arm.name])),
                    **summary(scores[arm.name]),
                    "curves": {part: part_of(scores[arm.name], part, "curves") for part in PARTS},
                }
                for arm in chosen
            },
        }

    def _seen(self, play: Path) -> Seen:
        dataset = ReplayDataset(play)
        return seen(map(dataset.read, dataset.episodes), self._config.collection.finetune_steps)


def summary(scores: Row) -> Row:
    """The compared scores on each part of the test windows."""
    return {"all": measures(scores), "unreached": measures(scores["unreached"])}


def part_of(scores: Row, part: str, key: str) -> Any:
    """PSNR over the horizon on a part of the test windows; None for a part without windows."""
    row = scores if part == "all" else scores[part]
    return None if row is None else row[key]["psnr"]


def stored_result(comparison: Comparison, out: Path) -> Row | None:
    """A comparison's result, if there is one."""
    file = comparison.directory(out) / RESULT
    return json.loads(file.read_text()) if file.exists() else None


def stored_arms(comparison: Comparison, out: Path) -> list[str]:
    """The arms that a comparison's result has."""
    return list((stored_result(comparison, out) or {"arms": {}})["arms"])


def stored_seeds(out: Path) -> list[int]:
    """The seeds that have results, so that all are shown, whichever the command names."""
    return sorted({int(file.parent.name.removeprefix("seed-")) for file in out.glob(f"*/seed-*/{RESULT}")})


def run(plan: Plan, chosen: Sequence[Comparison], arms: Sequence[str], out: Path, digest: str) -> None:
    """Makes what is missing of the chosen comparisons, and writes all results so far after each."""
    pending = [each for each in chosen if not set(arms) <= set(stored_arms(each, out))]
    if pending:
        with ray_session(plan.comparisons[0].base.ray):
            for comparison in pending:
                row = Maker(comparison, out).result(arms)
                write_json(comparison.directory(out) / RESULT, row)
                write_results(plan, out, digest)
    write_results(plan, out, digest)


def write_results(plan: Plan, out: Path, digest: str) -> None:
    """Writes the results so far, of the whole plan."""
    rows: dict[str, list[Row]] = {}
    for comparison in plan.comparisons:
        if (row := stored_result(comparison, out)) is not None:
            rows.setdefault(comparison.game, []).append(row)
    write_json(out / "results.json", rows)
    text = document(rows, plan, digest)
    write_atomically(out / "results.md", lambda path: path.write_text(text))
    draw(rows, plan, out / "results.png")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file as a whole."""
    write_atomically(path, partial(Path.write_text, data=json.dumps(value, indent=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path, help="YAML file with games, seeds and arms, see plan.py")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--tiny", action="store_true", help="checks in about two minutes that every part runs")
    parser.add_argument("--seed", action="append", type=int, default=[], help="repeatable; default: the file's")
    parser.add_argument("--game", action="append", default=[], help="repeatable; default: all")
    parser.add_argument("--only", action="append", default=[], metavar="ARM", help="repeatable; default: all")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    try:
        seeds = [*arguments.seed, *stored_seeds(out)]
        plan = read_plan(arguments.config, tiny=arguments.tiny, seeds=seeds)
        chosen, arms = plan.selected(arguments.game, arguments.seed), plan.chosen(arguments.only)
        check_plan(plan, chosen, out)
    except (ValueError, OSError, yaml.YAMLError) as error:
        parser.error(str(error))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in plan_files(arguments.config))).hexdigest()
    run(plan, chosen, arms, out, digest)
    print((out / "results.md").read_text())


if __name__ == "__main__":
    main()
