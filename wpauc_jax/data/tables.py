"""What every reader returns: a data set's blocks of interactions and of items."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects

# Columns of samples instead of interactions, by those who publish them.
HISTORIES = ("history", "item_id_list", "history_item_id", "history_item_ids", "item_list", "item_seq", "sequence")

# Columns of blocks that no file can have: the number of a row's line, and what is left of its time, in nanoseconds.
LINE, REST = "\0line", "\0rest"


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """What a reader may need to know besides the path; the names are those of `data.` settings."""

    user_column: str = "user_id"
    item_column: str = "item_id"
    time_column: str = "timestamp"
    title_column: str = "title"
    items_path: str = ""
    time_unit: str = "auto"


class FilesRead(dict[str, str]):
    """The files that were read: name to the sha256 of the bytes as stored. `paths` has each one's place on the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[str, pathlib.Path] = {}

    def record(self, name: str, path: pathlib.Path, digest: str) -> None:
        """Takes in a file. Of two of one name the second goes by its folder, too."""
        if self.paths.get(name, path) != path:
            name = f"{path.parent.name}/{name}"
        self[name] = digest
        self.paths[name] = path


@dataclasses.dataclass(frozen=True)
class RawData:
    """One data set as its files have it, before any filter.

    interactions: blocks of user str, item str, time int64 and, in a block that needs it, REST int32, to be gone through
        once; equal times keep the order in which they come. With `published` blocks may have `depth` int32, how many
        interactions of the user a row's own history knows.
    items: blocks of item str, title str or null, text str or null (all that is known of the item, for embeddings), line
        int64, file str, likewise.
    files: what was read; complete when the blocks are used up.
    rejects: the rows left out while the blocks were read.
    time_unit: what times count since 1970, a key of times.PER_SECOND; "rows": times are numbers of rows, which are in
        the order of time; "order": times only order one user's interactions.
    published: whether the data set comes with its splits and its catalog: interactions have the column split int8
        (0 train, 1 valid, 2 test), and an item without an interaction is an item.
    repeated_items: whether the format is known to describe items more than once; then the first description counts.
    notes: what the user should know about how the files were understood, a line each.
    """

    interactions: Iterable[pl.DataFrame]
    items: Iterable[pl.DataFrame]
    files: FilesRead
    rejects: Rejects
    time_unit: str = "s"
    published: bool = False
    repeated_items: bool = False
    notes: Sequence[str] = ()


def item_table(rows: Sequence[tuple[str, str | None, str | None, int]], label: str) -> pl.DataFrame:
    """A block of items of the file `label` from (item, title, text, line); empty texts become null."""
    schema = {"item": pl.String, "title": pl.String, "text": pl.String, "line": pl.Int64}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return table.with_columns(pl.col("title", "text").replace("", None), file=pl.lit(label))


def reject_duplicates(table: pl.DataFrame, column: str, label: str) -> None:
    """Raises DataError naming the first line whose `column` was seen on an earlier line."""
    again = table.filter(~pl.col(column).is_first_distinct())
    if len(again):
        raise DataError(f"{label}, line {again['line'][0]}: {column} {again[column][0]!r} appears a second time")
