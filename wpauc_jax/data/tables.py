"""What every reader returns: a data set's blocks of interactions and of items."""

import dataclasses
from collections.abc import Iterable, Sequence

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects

SPLITS = ("train", "valid", "test")  # in the order of time


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What a reader may need to know besides the path; the names are those of `data.` settings."""

    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    title_column: str = "title"
    items_path: str = ""
    time_unit: str = "s"


@dataclasses.dataclass(frozen=True)
class RawData:
    """One data set as its files have it, before any filter.

    interactions: blocks of user str, item str, time int64 or float64, to be gone through once; equal times keep the
        order in which they come.
    items: blocks of item str, title str or null, text str or null (all that is known of the item, for embeddings), line
        int64, likewise.
    files: what was read, label to sha256 of the bytes as stored; complete when the blocks are used up.
    rejects: the rows left out while the blocks were read.
    time_unit: "s" or "ms" since 1970, or "order": times that only order one user's interactions.
    published: whether the data set comes with its splits and its catalogue: interactions have the column split int8
        (0 train, 1 valid, 2 test), and an item without an interaction is an item.
    repeated_items: whether the format is known to describe items more than once; then the first description counts.
    """

    interactions: Iterable[pl.DataFrame]
    items: Iterable[pl.DataFrame]
    files: dict[str, str]
    rejects: Rejects
    time_unit: str = "s"
    published: bool = False
    repeated_items: bool = False


def interaction_table(users: list[str], items: list[str], times: pl.Series) -> pl.DataFrame:
    """A block of interactions."""
    return pl.DataFrame(
        {"user": pl.Series(users, dtype=pl.String), "item": pl.Series(items, dtype=pl.String), "time": times}
    )


def item_table(rows: Sequence[tuple[str, str | None, str | None, int]]) -> pl.DataFrame:
    """A block of items from (item, title, text, line); empty texts become null."""
    schema = {"item": pl.String, "title": pl.String, "text": pl.String, "line": pl.Int64}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.col("title", "text").replace("", None))


def reject_duplicates(table: pl.DataFrame, column: str, label: str) -> None:
    """Raises DataError naming the first line whose `column` was seen on an earlier line."""
    again = table.filter(~pl.col(column).is_first_distinct())
    if len(again):
        raise DataError(f"{label}, line {again['line'][0]}: {column} {again[column][0]!r} appears a second time")
