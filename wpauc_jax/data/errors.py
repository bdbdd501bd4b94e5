"""What every reader returns, and what readers do with a row that cannot be used."""

import collections
import dataclasses
import gzip
import hashlib
import pathlib
import zlib
from collections.abc import Iterable, Sequence

import polars as pl

SPLITS = ("train", "valid", "test")  # in the order of time


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the line or the item, and what to do."""


class Rejects:
    """What happens to a row that cannot be used: `data.bad_rows` says whether it is an error or a counted skip."""

    def __init__(self, policy: str = "error"):
        self.policy = policy
        self.counts: collections.Counter[str] = collections.Counter()  # by reason, for the manifest
        self.first: dict[str, str] = {}  # the first row of each reason, in words

    def add(self, label: str, line: int, reason: str, shown: str) -> None:
        """Raises DataError with the file, the line and what stands there, or counts the row under its reason."""
        if self.policy == "error":
            raise DataError(f"{label}, line {line}: {reason}: {shown}; mend it, or set data.bad_rows='skip'")
        self.counts[reason] += 1
        self.first.setdefault(reason, f"{label}, line {line}: {shown}")


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


_DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")  # UTC


def parsed_times(values: pl.Series) -> pl.Series:
    """Numbers or dates in text as times: int64 where every one is whole, else float64; null for what is no time."""
    whole = values.cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole
    dates = [values.str.to_datetime(form, strict=False).dt.epoch("s") for form in _DATES]
    whole = pl.select(pl.coalesce(whole, *dates)).to_series()
    if not whole.has_nulls():
        return whole
    real = values.cast(pl.Float64, strict=False)
    sound = (real.abs() < 2.0**63).fill_null(False)  # NaN compares greater than any number
    return pl.select(pl.coalesce(real.set(~sound, None), whole)).to_series()


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of a file. Raises DataError if there is none."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def file_digest(path: pathlib.Path) -> str:
    """The sha256 of a file. Raises DataError if there is none."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def unpacked(stored: bytes, label: str) -> bytes:
    """`stored`, decompressed if it is gzip. Raises DataError for a damaged or cut archive."""
    if not stored.startswith(b"\x1f\x8b"):
        return stored
    try:
        return gzip.decompress(stored)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{label}: damaged gzip file ({error}); fetch it again") from error


def reject_duplicates(table: pl.DataFrame, column: str, label: str) -> None:
    """Raises DataError naming the first line whose `column` was seen on an earlier line."""
    again = table.filter(~pl.col(column).is_first_distinct())
    if len(again):
        raise DataError(f"{label}, line {again['line'][0]}: {column} {again[column][0]!r} appears a second time")


def listed(names: Iterable[str]) -> str:
    """Names for a message, as many and as much of them as one can take in."""
    names = [name if len(name) <= 40 else name[:40] + "..." for name in names]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def shown(line: bytes | str, limit: int = 80) -> str:
    """The beginning of a line for a message."""
    text = line if isinstance(line, str) else line[: limit * 4].decode(errors="backslashreplace")
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")
