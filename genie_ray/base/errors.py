"""The package's errors, and finding the original error inside Ray's wrappers."""

from __future__ import annotations


class GameError(RuntimeError):
    """A game that fails to start or breaks during play."""

    def __init__(self, game: str, reason: str) -> None:
        super().__init__(game, reason)
        self.game, self.reason = game, reason


class IncompleteError(RuntimeError):
    """Part of what was requested is missing; the rest is complete."""


def cause_of(error: BaseException) -> BaseException:
    """The exception that a remote task, actor or train worker raised, without the layers that Ray wraps around it.

    It may have been raised again `from` its wrapper, whose cause it is: then the two name each other.
    """
    chain = [error]
    while (inner := _wrapped(chain[-1]) or chain[-1].__cause__) and not any(inner is outer for outer in chain):
        chain.append(inner)
    return next((each for each in reversed(chain) if _wrapped(each) is None), chain[-1])


def _wrapped(error: BaseException) -> BaseException | None:
    """What an error of Ray's is about."""
    failures = getattr(error, "worker_failures", None)  # ray.train.WorkerGroupError
    names = ("cause", "controller_failure", "health_check_failure")  # the latter two: ray.train's
    found = [next(iter(failures.values()))] if failures else [getattr(error, name, None) for name in names]
    return next((inner for inner in found if isinstance(inner, BaseException) and inner is not error), None)


def is_loss(error: BaseException) -> bool:
    """Whether Ray's error tells of a process or node that died, not of something that its code raised.

    When one of several train workers dies, the others' errors are of lost connections: one death is enough.
    """
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    failures = getattr(error, "worker_failures", None) or {0: error}
    deaths = RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError
    return any(isinstance(cause_of(failure), deaths) for failure in failures.values())


def one_line(error: BaseException) -> str:
    """The message on one line; the error's class name if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__
