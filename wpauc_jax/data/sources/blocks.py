"""Text files of any size as blocks of whole lines, and delimited text as blocks of a table.

A block is parsed by Polars. Where Polars or a check refuses it, the block is gone through line by line in Python: that
finds the lines at fault, and under data.bad_rows='skip' keeps the others. So only bad blocks are slow, and memory
holds a few blocks, however long the file.
"""

import contextlib
import csv
import dataclasses
import gzip
import hashlib
import io
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import polars as pl

from wpauc_jax.data.sources.tables import DataError, Rejects, parsed_times, shown

BLOCK = 1 << 25  # bytes; large enough to keep two cores busy, small enough that a few fit anywhere
_UNIT = b"\x1f"  # ASCII's unit separator
LONGEST_LINE = 1 << 26  # bytes; what is longer is no text


@dataclasses.dataclass(frozen=True)
class Input:
    """A file, or with `member` a file in a zip archive."""

    path: pathlib.Path
    member: str = ""

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.member.rpartition("/")[2] or self.path.name

    @property
    def label(self) -> str:
        """The file in messages."""
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes as stored. Raises DataError if there are none to read."""
        try:
            if not self.member:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                    yield member  # type: ignore[misc]
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {self.label}: {error}") from error


class _Hashing(io.RawIOBase):
    """Passes bytes on and keeps their hash."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self.sha256.update(content)
        buffer[: len(content)] = content
        return len(content)


def text_blocks(source: Input, files: dict[str, str], *, quoted: bool = False) -> Iterator[tuple[int, bytes]]:
    """The number of a block's first line, and the block: whole lines of a file, which may be gzip.

    `quoted`: a line break between double quotes ends no line. `files` receives the file's hash at the end.
    Raises DataError for a damaged file and for a line that does not end.
    """
    number = 1
    with source.open() as stored:
        hashing = _Hashing(stored)
        stream = _unpacking(io.BufferedReader(hashing, BLOCK))
        try:
            while block := stream.read(BLOCK):
                block += _rest_of_line(stream, f"{source.label}, line {number + block.count(10)}")
                while quoted and block.count(b'"') % 2:
                    more = stream.readline(LONGEST_LINE)
                    block += more
                    if not more or len(block) > BLOCK + LONGEST_LINE:
                        raise DataError(f"{source.label}: a quoted field does not end, in or after line {number}")
                yield number, block
                number += block.count(b"\n")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{source.label}: damaged gzip file ({error}); fetch it again") from error
        while hashing.read(BLOCK):  # what may stand behind a gzip stream
            pass
        files[source.name] = hashing.sha256.hexdigest()


def _unpacking(stream: io.BufferedReader) -> Any:
    """The stream, or what is packed in it."""
    return gzip.GzipFile(fileobj=stream) if stream.peek(2).startswith(b"\x1f\x8b") else stream


def _rest_of_line(stream: Any, place: str) -> bytes:
    rest = stream.readline(LONGEST_LINE)
    if len(rest) == LONGEST_LINE:
        raise DataError(f"{place}: longer than {LONGEST_LINE >> 20} MiB; this is no text with one record a line")
    return rest


def first_line(source: Input) -> str:
    """The first line of a file, as far as it is one. Raises DataError for a file that is empty or not UTF-8 there."""
    with source.open() as stored:
        stream = _unpacking(io.BufferedReader(stored))  # type: ignore[arg-type]
        try:
            line = stream.readline(LONGEST_LINE)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{source.label}: damaged gzip file ({error}); fetch it again") from error
    if not line:
        raise DataError(f"{source.label}: the file is empty")
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{source.label}, line 1: not UTF-8 text: {shown(line)}") from error


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a delimited file is read: its columns, and which of them every row must have."""

    header: Sequence[str]  # the columns of the file
    needed: Sequence[str]  # those without which a row is no row
    time: str = ""  # the column that holds times, one of those needed
    optional: Sequence[str] = ()  # further columns to keep
    separator: str = ","
    quoted: bool = False  # whether double quotes hold a field together
    encoding: str = "utf-8"
    skip_lines: int = 0  # before the first row

    @property
    def sign(self) -> str:
        """What stands between fields when a block is parsed."""
        return self.separator if len(self.separator) == 1 else _UNIT.decode()

    @property
    def kept(self) -> list[str]:
        """The columns to keep, once each, in the order of the file."""
        wanted = {*self.needed, *self.optional}
        return [name for name in self.header if name in wanted]


def delimited_blocks(source: Input, layout: Layout, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
    """Blocks of text columns, of times (int64, or float64 in a block with a fraction), and of `line` (int64).

    Empty fields are null, blank lines skipped, trailing fields that a line lacks null. Raises DataError for a damaged
    file; rows that cannot be used go to `rejects`.
    """
    for number, block in text_blocks(source, files, quoted=layout.quoted):
        if number == 1 and layout.skip_lines:
            *head, block = block.split(b"\n", layout.skip_lines)
            number += len(head)
        if layout.encoding != "utf-8":
            block = block.decode(layout.encoding).encode()
        if len(layout.separator) > 1:  # Polars splits at single bytes
            block = block.replace(layout.separator.encode(), _UNIT)
        table = _fast(block, layout, number)
        yield _slow(block, layout, number, source.label, rejects) if table is None else table


def _fast(block: bytes, layout: Layout, number: int) -> pl.DataFrame | None:
    """The block as a table, or None where something in it is wrong or only may be."""
    if b"\0" in block:
        return None
    kept = layout.kept
    try:
        table = pl.read_csv(
            block,
            has_header=False,
            schema=dict.fromkeys(layout.header, pl.String),  # all columns: else surplus fields pass unseen
            separator=layout.sign,
            quote_char='"' if layout.quoted else None,
        )
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema={name: pl.String for name in kept} | {"line": pl.Int64})
    except pl.exceptions.PolarsError:
        return None
    table = table.select(kept)
    if any(table[name].has_nulls() for name in layout.needed):
        return None
    if layout.time:
        times = parsed_times(table[layout.time])
        if times.has_nulls():
            return None
        table = table.with_columns(times.alias(layout.time))
    return table.with_columns(pl.int_range(number, number + len(table), dtype=pl.Int64).alias("line"))


def _slow(block: bytes, layout: Layout, number: int, label: str, rejects: Rejects) -> pl.DataFrame:
    """The sound rows of the block; the others go to `rejects`."""
    kept = layout.kept
    rows: list[list[Any]] = []
    for line, fields, text in _records(block, layout, number):
        if not any(fields):
            continue
        row = dict(zip(layout.header, (field or None for field in fields), strict=False))
        fault = _fault(fields, row, text, layout)
        if fault:
            rejects.add(label, line, fault, shown(text.encode(errors="surrogateescape")))
        else:
            rows.append([*(row.get(name) for name in kept), line])
    table = pl.DataFrame(rows, schema={name: pl.String for name in kept} | {"line": pl.Int64}, orient="row")
    return table.with_columns(parsed_times(table[layout.time]).alias(layout.time)) if layout.time else table


def _fault(fields: list[str], row: dict[str, str | None], text: str, layout: Layout) -> str:
    if any("\udc80" <= sign <= "\udcff" for sign in text):
        return "not UTF-8 text"
    if "\0" in text:
        return "a NUL byte"
    if len(fields) > len(layout.header):
        return f"more than the {len(layout.header)} fields expected"
    for name in layout.needed:
        if row.get(name) is None:
            return f"no value for {name!r}"
    if layout.time and parsed_times(pl.Series([row[layout.time]], dtype=pl.String)).has_nulls():
        return f"{layout.time!r} is not a time"
    return ""


def _records(block: bytes, layout: Layout, number: int) -> Iterator[tuple[int, list[str], str]]:
    """The line, the fields and the text of each record; bytes that are not UTF-8 become lone surrogates."""
    text = block.decode(errors="surrogateescape")
    if not layout.quoted:
        for line, record in enumerate(text.split("\n"), start=number):
            record = record.removesuffix("\r")
            yield line, record.split(layout.sign), record
        return
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=layout.sign)
    line = number
    for fields in reader:
        yield line, fields, layout.separator.join(fields)
        line = number + reader.line_num
