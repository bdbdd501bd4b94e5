"""What every reader returns, and the strict reading of delimited text that readers share."""

import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Iterator

import polars as pl

INTERACTION_COLUMNS = ("user", "item", "time", "line")
ITEM_COLUMNS = ("item", "title", "text")


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the line or the item, and what to do."""


@dataclasses.dataclass(frozen=True)
class RawData:
    """One data set as its files have it, before any filter.

    interactions: user str, item str, time int64 or float64, line uint32 (the order of equal times); and, where the
        data set comes with its splits, split int8 (0 train, 1 valid, 2 test). Then `items` is its whole catalogue.
    items: item str (unique), title str or null, text str or null (all that is known of the item, for embeddings).
    files: what was read, as (label, sha256 of the bytes as stored), for the manifest.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    files: tuple[tuple[str, str], ...]


def no_items() -> pl.DataFrame:
    """The items table of a data set that describes no item."""
    return pl.DataFrame(schema={name: pl.String for name in ITEM_COLUMNS})


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of a file. Raises DataError if there is none."""
    try:
        return path.read_bytes()
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


def text_lines(content: bytes, label: str) -> Iterator[tuple[int, str]]:
    """The lines of UTF-8 text that are not blank, with their numbers. Raises DataError naming one that is not UTF-8."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{label}, line {number}: not UTF-8 text: {_shown(line)}") from error


def read_delimited(
    content: bytes, label: str, *, separator: str, header: list[str] | None = None, encoding: str = "utf-8"
) -> pl.DataFrame:
    """A table of strings with a column `line`, the 1-based line number in the file; blank lines are skipped.

    Fields are split at `separator` and nothing else: quotes have no meaning. Trailing fields that a line lacks are
    null. `header` names the columns of a file that has no header line.

    Raises DataError naming the line that has too many fields or bytes that are not `encoding`.
    """
    if encoding != "utf-8":
        content = content.decode(encoding).encode()
    first_line = 2
    if header is not None:
        content = separator.join(header).encode() + b"\n" + content
        first_line = 1
    try:
        table = pl.read_csv(
            content,
            separator=separator,
            quote_char=None,
            infer_schema=False,
            row_index_name="line",
            row_index_offset=first_line,
        )
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{label}: the file is empty") from error
    except pl.exceptions.PolarsError as error:
        raise DataError(_first_fault(content, label, separator, first_line) or f"{label}: {error}") from error
    return table.filter(~pl.all_horizontal(pl.exclude("line").is_null()))


def _first_fault(content: bytes, label: str, separator: str, first_line: int) -> str | None:
    """The first line that the fast reader cannot have accepted, in words."""
    header, *lines = content.split(b"\n")
    width = header.count(separator.encode()) + 1
    for number, line in enumerate(lines, start=first_line):
        fields = line.count(separator.encode()) + 1
        if fields > width:
            return f"{label}, line {number}: {fields} fields where {width} are expected: {_shown(line)}"
        try:
            line.decode()
        except UnicodeDecodeError:
            return f"{label}, line {number}: not UTF-8 text: {_shown(line)}"
    return None


def _shown(line: bytes, limit: int = 80) -> str:
    text = line.rstrip(b"\r").decode(errors="backslashreplace")
    return repr(text if len(text) <= limit else text[:limit] + "...")


def require(table: pl.DataFrame, columns: list[str], label: str) -> None:
    """Raises DataError naming the first line of `table` where one of `columns` is empty."""
    for name in columns:
        absent = table.filter(pl.col(name).is_null())
        if len(absent):
            raise DataError(f"{label}, line {absent['line'][0]}: no value for {name!r}")


def parsed_time(table: pl.DataFrame, column: str, label: str) -> pl.Series:
    """`column` as int64 where every value is whole, else float64. Raises DataError naming the line of a bad value."""
    whole = table[column].cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole
    real = table[column].cast(pl.Float64, strict=False)
    bad = table.filter(real.is_null() | ~(real.abs() < 2.0**63))  # NaN compares greater than any number
    if len(bad):
        value = bad[column][0]
        raise DataError(f"{label}, line {bad['line'][0]}: {column!r} is {value!r}, which is not a time")
    return real


def reject_duplicates(table: pl.DataFrame, column: str, label: str) -> None:
    """Raises DataError naming the first line whose `column` was seen on an earlier line."""
    again = table.filter(~pl.col(column).is_first_distinct())
    if len(again):
        raise DataError(f"{label}, line {again['line'][0]}: {column} {again[column][0]!r} appears a second time")
