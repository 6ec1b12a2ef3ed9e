"""From Ray's wrapped exceptions back to the one that tells the user what was wrong."""

from __future__ import annotations


class GameError(RuntimeError):
    """A game that does not start, or breaks off."""

    def __init__(self, game: str, reason: str) -> None:
        super().__init__(game, reason)
        self.game, self.reason = game, reason


class IncompleteError(RuntimeError):
    """Not all of what was asked for could be had; the rest is complete."""


def cause_of(error: BaseException) -> BaseException:
    """The exception that a remote task, actor or train worker raised, out of the layers that Ray put around it."""
    failures = getattr(error, "worker_failures", None)  # ray.train.TrainingFailedError
    inner = next(iter(failures.values())) if failures else getattr(error, "cause", None) or error.__cause__
    return cause_of(inner) if isinstance(inner, BaseException) and inner is not error else error


def one_line(error: BaseException) -> str:
    """The message without its line breaks; the kind of error where there is no message."""
    return " ".join(str(error).split()) or type(error).__name__
