"""Checks of shapes, options and constant settings, which fail before any array is computed."""

import numbers
from collections.abc import Collection
from typing import Any


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")


def check_number(name: str, value: Any, *, low: float, high: float = float("inf"), open_low: bool = False) -> None:
    """Raises ValueError unless `low <= value <= high` (`low < value` with `open_low`). Traced values pass unchecked."""
    if not isinstance(value, numbers.Real):
        return
    number = float(value)
    if not (low < number if open_low else low <= number) or number > high:
        bound = f"above {low:g}" if open_low else f"at least {low:g}"
        limit = "" if high == float("inf") else f" and at most {high:g}"
        raise ValueError(f"{name}={value!r} must be {bound}{limit}")


def check_shape(name: str, value: Any, shape: tuple[int, ...], like: str) -> None:
    """Raises ValueError unless `value` is None or has exactly `shape`, the shape of `like`."""
    if value is not None and value.shape != shape:
        raise ValueError(f"{name} has shape {value.shape}, but {like} asks for {shape}")
