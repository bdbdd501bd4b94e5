"""What a check finds, and how it names a row, an item or a user."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset

_SHOWN = 3  # references in a finding


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence about the data, the catalog or a checkpoint, with the rows or items that show it.

    A problem makes results wrong or incomparable and fails the examination; a note is a fact to know when reading them.
    """

    is_problem: bool
    text: str
    references: tuple[str, ...] = ()


def problem(text: str, references: Iterable[str] = ()) -> Finding:
    """A finding that fails the examination."""
    return Finding(True, text, tuple(references))


def note(text: str, references: Iterable[str] = ()) -> Finding:
    """A finding to know."""
    return Finding(False, text, tuple(references))


def rows(dataset: Dataset, positions: np.ndarray) -> tuple[str, ...]:
    """The first few of these flat positions by raw ids; a row counts from 0 through the shards of interactions."""
    chosen = np.asarray(positions, np.int64)[:_SHOWN]
    return tuple(
        f"row {position} (user {dataset.users[user]!r}, item {dataset.item_ids[dataset.item[position]]!r}, "
        f"{SPLITS[dataset.split[position]]})"
        for position, user in zip(chosen, dataset.user_of(chosen), strict=True)
    )


def items(dataset: Dataset, numbers: Iterable[int]) -> tuple[str, ...]:
    """The first few of these items by raw id and title."""
    chosen = list(numbers)[:_SHOWN]
    return tuple(
        f"item {dataset.item_ids[i]!r}" + (f" {dataset.titles[i]!r:.70}" if dataset.titles[i] else "") for i in chosen
    )


def users(dataset: Dataset, numbers: Iterable[int]) -> tuple[str, ...]:
    """The first few of these users by raw id."""
    return tuple(f"user {dataset.users[u]!r}" for u in list(numbers)[:_SHOWN])


def share(part: int, whole: int) -> str:
    """'12 of 4,533 (0.3%)'."""
    return f"{part:,} of {whole:,} ({part / max(whole, 1):.1%})"
