"""Range checks of configurations.

Each raises a one-line ValueError that names the field, its value and what is allowed.
"""

from collections.abc import Callable


def check_at_least(minimum: int, config: object, *names: str) -> None:
    """Requires the named fields to be `minimum` or more."""
    _check(config, names, lambda value: value >= minimum, f"{minimum} or more")


def check_positive(config: object, *names: str) -> None:
    """Requires the named fields to be above 0."""
    _check(config, names, lambda value: value > 0, "above 0")


def check_unit_interval(config: object, *names: str) -> None:
    """Requires the named fields to lie in [0, 1]."""
    _check(config, names, lambda value: 0 <= value <= 1, "0 to 1")


def _check(config: object, names: tuple[str, ...], allows: Callable[[float], bool], allowed: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not allows(value):
            raise ValueError(f"{name} is {value}; allowed: {allowed}")
