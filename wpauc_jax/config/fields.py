"""How a setting says what it may be, and how that is checked when a dataclass of settings is made.

A field's type, its choices and its bounds are data: the checks read them, and so does the reference (`reference.py`).
What a field means is the comment beside it or above it, which the reference reads from the source.
`to_config_dict` and `from_config_dict` lead to the `ml_collections.ConfigDict`s that a command line can change, and
back.
"""

import dataclasses
import difflib
import itertools
import math
import numbers
import os
import types
import typing
from typing import Any, ClassVar

import ml_collections
from ml_collections import config_dict

MOST = 2**31 - 1  # of a whole number without a bound of its own: what an int32 on a device can hold
_SHOWN = 80  # characters of a value in a message


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the field, its value and what would do."""


def choice(default: str, *others: str, renamed: dict[str, str] | None = None) -> Any:
    """A string with a closed set of values, the default first. `renamed` holds old spellings and their new ones."""
    metadata = {"choices": (default, *others), "renamed": renamed or {}}
    return dataclasses.field(default=default, metadata=metadata)


def at_least(default: Any, low: float, most: float | None = None) -> Any:
    """A number from `low` to `most`. Of a tuple, every element is such a number."""
    return dataclasses.field(default=default, metadata={"low": low, "most": most})


def above(default: Any, low: float, most: float | None = None) -> Any:
    """A number greater than `low`, up to `most`."""
    return dataclasses.field(default=default, metadata={"above": low, "most": most})


def share(default: float, *, whole: bool = True) -> Any:
    """A number from 0 to 1; without `whole`, 1 itself is refused."""
    return dataclasses.field(default=default, metadata={"low": 0, "most": 1} if whole else {"low": 0, "below": 1})


def a_seed(default: int = 0) -> Any:
    """A seed that NumPy, JAX and scikit-learn take."""
    return at_least(default, 0, 2**32 - 1)


def ascending(default: tuple[int, ...], low: int, most: int, *, empty: bool = False) -> Any:
    """Whole numbers from `low` to `most`, each greater than the one before it."""
    return dataclasses.field(default=default, metadata={"low": low, "most": most, "ascending": True, "empty": empty})


def a_path(default: str = "") -> Any:
    """A file or folder, or a name that may be one. A `~` at its beginning is the home directory."""
    return dataclasses.field(default=default, metadata={"path": True})


class Checked:
    """Checks every field when a dataclass of settings is made, and gives it its plain type.

    A whole number becomes a float where a float is wanted, a list becomes a tuple, and a path's `~` the home directory.
    Nothing else is converted: a float or True where a whole number is wanted is an error.
    """

    _section: ClassVar[str] = ""  # how messages prefix a field's name

    def __init_subclass__(cls, section: str = "") -> None:
        cls._section = section

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(typing.cast(Any, self)):
            name = self._section + field.name
            value = _typed(name, getattr(self, field.name), hints[field.name])
            _check_choice(name, value, field.metadata)
            _check_bounds(name, value, field.metadata)
            if field.metadata.get("path"):
                value = expanded(name, value)
            object.__setattr__(self, field.name, value)  # the dataclass is frozen as soon as it is made


def expanded(name: str, text: str) -> str:
    """A path with its `~` replaced by the home directory. Raises ConfigError naming `name` where there is none."""
    if not text.startswith("~"):
        return text
    found = os.path.expanduser(text)
    if found.startswith("~"):
        raise ConfigError(
            f"{name}={shown(text)} begins with a home directory that is not known; write the path in full"
        )
    return found


def shown(value: Any) -> str:
    """A value as it stands in a message: on one line, and cut where it is long."""
    try:
        text = " ".join(repr(value).split("\n"))
    except Exception:  # whatever a stranger's __repr__ raises
        text = f"a {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


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


def from_config_dict(config: Any, kind: type, *, section: str = "") -> Any:
    """The dataclass `kind` with the values of `config`.

    `section` is where it stands among the settings, as in "sft.optim.". Raises ConfigError on an unusable value.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        what = f"{section.rstrip('.')}={shown(config)}" if section else f"a configuration of {type(config).__name__}"
        raise ConfigError(f"{what} holds no settings; get_config returns to_config_dict(Config(...))")
    hints = typing.get_type_hints(kind)
    unknown = sorted(str(name) for name in set(config) - set(hints))
    if unknown:
        raise ConfigError(f"unknown settings in {kind.__name__}: {', '.join(section + name for name in unknown)}")
    values = {}
    for name in config:
        value = _value_of(config, name, section)
        if dataclasses.is_dataclass(hints[name]):
            value = from_config_dict(value, hints[name], section=f"{section}{name}.")
        values[name] = value
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(f"{whose(error, kind, section)}{error}") from error


def whose(error: ConfigError, kind: type, section: str) -> str:
    """What a message about the settings `kind` lacks in front: settings that SFT and RL both have do not know whose.

    `section` is where they stand, as in "sft.optim.".
    """
    own = getattr(kind, "_section", "")
    return section.removesuffix(own) if str(error).startswith(own) and section.endswith(own) else ""


def _value_of(config: ml_collections.ConfigDict, name: str, section: str) -> Any:
    try:
        return config[name]
    except config_dict.RequiredValueError as error:
        raise ConfigError(f"{section}{name} has no value; give --config.{section}{name}=VALUE") from error


def _typed(name: str, value: Any, hint: Any) -> Any:
    """The value in its field's type. Raises ConfigError where it is of another kind."""
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(name, value, _without_none(hint))
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, typing.cast(type, hint)):
            raise ConfigError(f"{name}={shown(value)} must be a {typing.cast(type, hint).__name__}")
        return value
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple | list):
            raise ConfigError(f"{name}={shown(value)} must be a tuple, as in (1, 5)")
        return tuple(_typed(name, element, typing.get_args(hint)[0]) for element in value)
    return _SCALARS[hint](name, value)


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={shown(value)} must be True or False")
    return value


def _int(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ConfigError(f"{name}={shown(value)} must be a whole number")
    return int(value)


def _float(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ConfigError(f"{name}={shown(value)} must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{name}={shown(value)} must be a finite number")
    return number


def _str(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name}={shown(value)} must be text")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{name}={shown(value)} holds a character that is no text")
    return str(value)


_SCALARS: dict[type, Any] = {bool: _bool, int: _int, float: _float, str: _str}


def _check_choice(name: str, value: Any, metadata: typing.Mapping[str, Any]) -> None:
    choices = metadata.get("choices")
    if choices and value not in choices:
        if value in metadata["renamed"]:
            raise ConfigError(f"{name}={value!r} is now spelled {metadata['renamed'][value]!r}")
        alike = difflib.get_close_matches(value, choices, n=1)
        meant = f"; did you mean {alike[0]!r}? All are: " if alike else "; choose one of "
        raise ConfigError(f"{name}={shown(value)} is unknown{meant}{', '.join(choices)}")


def _check_bounds(name: str, value: Any, metadata: typing.Mapping[str, Any]) -> None:
    elements = value if isinstance(value, tuple) else (value,)
    if metadata.get("ascending"):
        if not elements and not metadata["empty"]:
            raise ConfigError(f"{name}=() must hold at least one number")
        if any(later <= earlier for earlier, later in itertools.pairwise(elements)):
            raise ConfigError(f"{name}={shown(value)} must be in ascending order, each number once")
    for number in elements:
        if isinstance(number, int | float) and not isinstance(number, bool):
            _check_number(f"{name}={shown(value)}", number, metadata)


def _check_number(what: str, number: float, metadata: typing.Mapping[str, Any]) -> None:
    most = metadata.get("most")
    if most is None and isinstance(number, int):
        most = MOST
    if (low := metadata.get("low")) is not None and number < low:
        raise ConfigError(f"{what} must be at least {low}")
    if (limit := metadata.get("above")) is not None and number <= limit:
        raise ConfigError(f"{what} must be above {limit}")
    if (limit := metadata.get("below")) is not None and number >= limit:
        raise ConfigError(f"{what} must be below {limit}")
    if most is not None and number > most:
        raise ConfigError(f"{what} must be at most {most:,}")


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint
