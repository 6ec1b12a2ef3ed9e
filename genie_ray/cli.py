"""`genie-ray`: assembles the commands, and prints errors that the user can fix in one line."""

from __future__ import annotations

import os
import sys

import typer

from genie_ray.base.errors import IncompleteError, one_line
from genie_ray.base.session import PATIENT
from genie_ray.commands import playing, reproducing, running, scoring, serving
from genie_ray.commands.checkpoints import checkpoint_app
from genie_ray.commands.data import data_app
from genie_ray.commands.games import games_app
from genie_ray.commands.roms import roms_app
from genie_ray.commands.studies import study_app
from genie_ray.commands.training import train_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="World models that learn games by exploring them. `genie-ray run` runs the whole loop; the other commands are "
    "its stages, each of which reads artefacts and writes one. An interrupted command continues when run again.",
)
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(data_app, name="data")
app.add_typer(games_app, name="games")
app.add_typer(roms_app, name="roms")
app.add_typer(study_app, name="study")
app.add_typer(train_app, name="train")
for command in (
    running.run,
    playing.collect,
    playing.explore,
    serving.serve_rewards,
    running.sweep,
    scoring.evaluate,
    scoring.evaluate_upscaler,
    scoring.rollout,
    serving.play,
    serving.browse,
    running.report,
    reproducing.reproduce,
    running.submit,
):
    app.command()(command)

# When Serve shuts down, Ray reports its controller's unanswered calls as failures, but nothing needs to be done.
# Ray reads this on import, PyTorch `PATIENT`, so they are set before that.
QUIET_RAY = {"RAY_DEDUP_LOGS_SKIP_REGEX": r"Task ServeController\."}

INTERRUPTED = 130  # exit code after SIGINT


def main() -> None:
    """Runs the command line; errors that the user can fix take one line, with exit code 2 (1: some games failed)."""
    for name, value in (QUIET_RAY | PATIENT).items():
        os.environ.setdefault(name, value)
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer prints nothing
            print("interrupted: the same command continues from what was saved", file=sys.stderr)
        raise
    except (ValueError, OSError, IncompleteError) as error:
        if os.environ.get("GENIE_RAY_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, IncompleteError) else 2)
