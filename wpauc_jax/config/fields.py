"""How a setting says what it may be: fields with choices and bounds, checked when a dataclass is made.

And how dataclasses of settings become the `ml_collections.ConfigDict`s that a command line can change, and come back.
"""

import dataclasses
import types
import typing
from typing import Any, ClassVar

import ml_collections
from ml_collections import config_dict


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the field, its value and what would do."""


def choice(default: str, *others: str, help: str = "") -> Any:
    """A string field with a closed set of values, the default first."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others), "help": help})


def at_least(default: Any, low: float) -> Any:
    """A number field with a lower bound."""
    return dataclasses.field(default=default, metadata={"low": low})


class Checked:
    """Checks each field's choices and bounds on construction."""

    _section: ClassVar[str] = ""  # how messages prefix a field's name

    def __init_subclass__(cls, section: str = "") -> None:
        cls._section = section

    def __post_init__(self) -> None:
        for field in dataclasses.fields(typing.cast(Any, self)):
            value = getattr(self, field.name)
            name = self._section + field.name
            choices = field.metadata.get("choices")
            if choices and value not in choices:
                raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")
            low = field.metadata.get("low")
            if low is not None and value is not None and value < low:
                raise ConfigError(f"{name}={value!r} must be at least {low}")


def to_config_dict(settings: Any) -> ml_collections.ConfigDict:
    """A locked, typed ConfigDict with the same fields, for `config_flags`."""
    out = ml_collections.ConfigDict()
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = to_config_dict(value)
        elif value is None:
            value = config_dict.placeholder(_without_none(hints[field.name]))
        out[field.name] = value
    return out.lock()


def from_config_dict(config: ml_collections.ConfigDict, kind: type) -> Any:
    """The dataclass `kind` with the values of `config`. Raises ConfigError on an unusable value."""
    hints = typing.get_type_hints(kind)
    unknown = set(config) - set(hints)
    if unknown:
        raise ConfigError(f"unknown settings in {kind.__name__}: {', '.join(sorted(unknown))}")
    values = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            value = from_config_dict(value, hints[name])
        elif typing.get_origin(hints[name]) is tuple:
            value = tuple(value)
        values[name] = value
    return kind(**values)


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint
