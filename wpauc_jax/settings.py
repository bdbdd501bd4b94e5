"""How a setting says what it may be: fields with choices and bounds, checked when a dataclass is made."""

import dataclasses
import typing
from typing import Any, ClassVar


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
