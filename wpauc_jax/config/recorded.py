"""Settings as an earlier version of this program recorded them, beside those of now.

A record is a nested or flat dict of JSON values whose dotted names are those of the settings, perhaps among other
facts. A setting that the record lacks did not exist then, and counts as its default, or as what held then. A value that
has another spelling now counts as the new one.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from wpauc_jax.config.fields import ConfigError
from wpauc_jax.config.names import check_name, values_of, with_settings
from wpauc_jax.config.run import Config

# What a record that lacks a setting stands for, where that is not the setting's default.
_BEFORE = {"exclude_history": "off"}

# Settings that are gone: the one that has their place, and its values by theirs.
_REPLACED: dict[str, tuple[str, dict[Any, Any]]] = {
    "tensorboard": ("tracking", {False: "none", True: "tensorboard"}),
}


class _Absent:
    """Stands for a fact that is not there."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], *, only: bool = False, leave_out: Collection[str] = ()
) -> list[str]:
    """How two records differ, a line for each name: "sft.loss: 'lm' then, 'catalog' now".

    With `only`, what `before` has beyond the names of `now` does not count. The names `leave_out` never do.
    """
    then, current = _of_today(flat(before)), flat(now)
    names = (name for name in sorted(current if only else then | current) if name not in leave_out)
    pairs = {name: (value_of(then, name), value_of(current, name)) for name in names}
    return [f"{name}: {old!r} then, {new!r} now" for name, (old, new) in pairs.items() if old != new]


def recorded_config(record: Any) -> Config:
    """The settings of an earlier run from its config.json, in today's spelling.

    Raises ConfigError where the record is none, or names a setting that there is no more.
    """
    if not isinstance(record, Mapping):
        raise ConfigError("it holds no settings")
    names = values_of(Config())
    values = _of_today(flat(record))
    for name in values:
        check_name(name, names)
    defaults, _ = _known()
    absent = {name: _BEFORE[name] for name in _BEFORE if name not in values}
    return with_settings(Config(), {name: value_of(values, name) for name in values if name in defaults} | absent)


def remembered_config(folder: pathlib.Path) -> Config:
    """The settings that a run keeps in its work directory. Raises ConfigError, with the file, where it has none."""
    path = folder / "config.json"
    try:
        return recorded_config(json.loads(path.read_text(encoding="utf-8")))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}: {reason})") from error


def unlike_defaults(record: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of a record that are not what `Config()` has: {"rl.anchor": (4, 2)}, its value and the default."""
    settings, defaults = _of_today(flat(record)), flat(dataclasses.asdict(Config()))
    pairs = {name: (value_of(settings, name), defaults[name]) for name in defaults}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def value_of(record: Mapping[str, Any], name: str) -> Any:
    """The value of a dotted name in a flat record, in today's spelling; an object that says "absent" for none."""
    defaults, renamed = _known()
    value = record.get(name, defaults.get(name, _ABSENT))
    return renamed.get(name, {}).get(value, value) if isinstance(value, str) else value


def _of_today(values: dict[str, Any]) -> dict[str, Any]:
    """A flat record in which settings that are gone have given way to those in their place."""
    new = {to: known[values[name]] for name, (to, known) in _REPLACED.items() if values.get(name) in known}
    return new | {name: value for name, value in values.items() if name not in _REPLACED}


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": (1,)}} -> {"a.b": [1]}: dotted names, and values as JSON gives them back."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = json.loads(json.dumps(value))
    return out


@functools.cache
def _known() -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Of every setting by its dotted name: the default, and old spellings of values with their new ones."""
    renamed: dict[str, dict[str, str]] = {}

    def look(settings: Any, prefix: str) -> None:
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            if dataclasses.is_dataclass(value):
                look(value, f"{prefix}{field.name}.")
            elif field.metadata.get("renamed"):
                renamed[prefix + field.name] = field.metadata["renamed"]

    config = Config()
    look(config, "")
    return flat(dataclasses.asdict(config)) | _BEFORE, renamed
