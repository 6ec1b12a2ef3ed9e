"""Config dataclasses from the plain values that a checkpoint's JSON holds."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

LONGEST = 200  # characters of what a file holds, in a message


def config_from_dict(config_class: type, values: Mapping[str, Any]) -> Any:
    """Rebuilds a config dataclass, including nested ones and tuples, from its JSON form.

    Raises ValueError if it is none: another setting, or a value of another type.
    """
    types = typing.get_type_hints(config_class)
    if not isinstance(values, dict):
        raise ValueError(f"{repr(values)[:LONGEST]} is not a {config_class.__name__}")

    def rebuild(name: str, value: Any) -> Any:
        if name not in types:
            raise ValueError(f"{config_class.__name__} has no {name[:LONGEST]!r}")
        if dataclasses.is_dataclass(types[name]):
            return config_from_dict(types[name], value)
        try:
            return TypeAdapter(types[name]).validate_python(
                tuple(value) if isinstance(value, list) else value, strict=True
            )
        except ValidationError as error:
            raise ValueError(f"{name} is {repr(value)[:LONGEST]}: {error.errors()[0]['msg'].lower()}") from error

    return config_class(**{name: rebuild(name, value) for name, value in values.items()})
