"""The settings by their dotted names, as in rl.optim.b1: what there is, what is nearest, and settings in place."""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from wpauc_jax.config.fields import ConfigError, shown, whose
from wpauc_jax.config.run import Config


def setting_names(kind: Any = Config, prefix: str = "") -> list[str]:
    """Every setting's full name, as in rl.optim.b1."""
    names = []
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            names += setting_names(hint, f"{prefix}{name}.")
        elif not name.startswith("_"):
            names.append(prefix + name)
    return names


def nearest(name: str, known: Iterable[str], prefix: str) -> str:
    """What may have been meant: names that are spelled alike, in whole or in their last part."""
    known = list(known)
    last = {one: one.rpartition(".")[2] for one in known}
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    ends = difflib.get_close_matches(name.rpartition(".")[2], set(last.values()), n=2, cutoff=0.75)
    alike += sorted((one for one in known if last[one] in ends and one not in alike), key=lambda one: len(one))
    listed = ", ".join(prefix + one for one in alike[:4])
    return f"; did you mean {listed}?" if alike else "; docs/settings.md lists all settings, --help all flags"


def check_name(name: str, known: Iterable[str], prefix: str = "") -> None:
    """Raises ConfigError for a name that is no setting, with the names that are nearest."""
    known = list(known)
    if name in known:
        return
    inside = [one for one in known if one.startswith(f"{name}.")]
    if inside:
        raise ConfigError(f"{name} is a group of settings; give one of them, as in {prefix}{inside[0]}=VALUE")
    raise ConfigError(f"there is no setting {shown(name)}{nearest(name, known, prefix)}")


def values_of(settings: Any, prefix: str = "") -> dict[str, Any]:
    """{"rl.optim.b1": 0.9, ...}: every setting's value by its full name."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            values |= values_of(value, f"{prefix}{field.name}.")
        else:
            values[prefix + field.name] = value
    return values


def changes_between(before: Config, after: Config) -> dict[str, Any]:
    """The settings of `after` that `before` has other values for, by full names."""
    old = values_of(before)
    return {name: value for name, value in values_of(after).items() if value != old[name]}


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with other values for some settings, by full names.

    Raises ConfigError for an unknown name, with the nearest ones, and for an unusable value or combination.
    """
    known = setting_names()
    for name in settings:
        check_name(name, known)
    return _replaced(config, settings, "")


def _replaced(settings: Any, changes: Mapping[str, Any], section: str) -> Any:
    groups: dict[str, dict[str, Any]] = {}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            groups.setdefault(first, {})[rest] = value
        else:
            values[first] = value
    inside = {name: _replaced(getattr(settings, name), group, f"{section}{name}.") for name, group in groups.items()}
    try:
        return dataclasses.replace(settings, **values, **inside)
    except ConfigError as error:
        raise ConfigError(f"{whose(error, type(settings), section)}{error}") from error
