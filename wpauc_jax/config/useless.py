"""Settings that have no effect beside another one are refused, never ignored."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from wpauc_jax.config.fields import ConfigError, shown


class Useless(NamedTuple):
    """Settings without an effect: where, why, and the one value of each that is let pass there."""

    where: Callable[[Any], bool]
    what: str  # the other setting, as the user gives it
    why: str  # empty where `what` says it
    values: Mapping[str, Any]


def refuse_useless(settings: Any, section: str, cases: Iterable[Useless]) -> None:
    """Raises ConfigError for the first setting of a section that has no effect there, and says what to set it to."""
    for case in cases:
        for name, value in case.values.items() if case.where(settings) else ():
            given = getattr(settings, name)
            if given != value:
                raise ConfigError(
                    f"{section}.{name}={shown(given)} means nothing where {case.what}{case.why and f', {case.why}'}; "
                    f"set {section}.{name}={value!r}"
                )
