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
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, TypeVar

import polars as pl

from wpauc_jax.data.sources.tables import DataError, Rejects, parsed_times, shown

BLOCK = 1 << 24  # bytes; large enough to keep cores busy, small enough that memory is reused, not returned
_T = TypeVar("_T")
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
                with zipfile.ZipFile(self.path) as archive, _member(archive, self.member) as member:
                    yield member
        except (OSError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
            raise DataError(f"cannot read {self.label}: {error}") from error


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return archive.open(name)
    except RuntimeError as error:  # encrypted, or of a kind that Python does not unpack
        raise zipfile.BadZipFile(str(error)) from error


class _Hashing:
    """Hashes the bytes that are read from a stream."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self.sha256.update(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        size = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        self.sha256.update(buffer[:size])
        return size


def text_blocks(source: Input, files: dict[str, str], *, quoted: bool = False) -> Iterator[tuple[int, bytes]]:
    """The number of a block's first line, and the block: whole lines of a file, which may be gzip.

    `quoted`: a line break between double quotes ends no line. `files` receives the file's hash at the end.
    Raises DataError for a damaged file and for a line that does not end.
    """
    with source.open() as stored:
        hashing = _Hashing(stored)
        try:
            yield from _whole_lines(_unpacking(stored, hashing), quoted, source.label)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{source.label}: damaged gzip file ({error}); fetch it again") from error
        while hashing.read(BLOCK):  # what may stand behind a gzip stream
            pass
        files[source.name] = hashing.sha256.hexdigest()


def _unpacking(stored: BinaryIO, hashing: Any) -> Any:
    """What to read the text from: `hashing`, which reads from `stored`, or what is packed in it."""
    packed = stored.read(2) == b"\x1f\x8b"
    stored.seek(0)
    return gzip.GzipFile(fileobj=hashing) if packed else hashing


def _whole_lines(stream: Any, quoted: bool, label: str) -> Iterator[tuple[int, bytes]]:
    """Blocks that end with a line. One buffer is filled again and again: fresh memory would cost more than reading."""
    buffer, filled, number = bytearray(BLOCK), 0, 1
    while True:
        size = stream.readinto(memoryview(buffer)[filled:])
        filled += size
        end = filled if not size else _last_end(buffer, filled, quoted)
        if not size and quoted and buffer.count(b'"', 0, filled) % 2:
            raise DataError(f"{label}: a quoted field does not end, in or after line {number}")
        if end:
            block = bytes(memoryview(buffer)[:end])
            yield number, block
            number += block.count(b"\n")
            buffer[: filled - end] = buffer[end:filled]
            filled -= end
        if not size:
            return
        if filled == len(buffer):
            if filled >= LONGEST_LINE:
                raise DataError(
                    f"{label}, line {number}: longer than {LONGEST_LINE >> 20} MiB; this is no line of text"
                )
            buffer.extend(bytes(len(buffer)))


def _last_end(buffer: bytearray, filled: int, quoted: bool) -> int:
    """Behind the last line break, with `quoted` the last one that no quote encloses; 0 if there is none."""
    end = buffer.rfind(b"\n", 0, filled) + 1
    if not quoted or b'"' not in buffer:
        return end
    is_inside = buffer.count(b'"', 0, end) % 2 == 1
    while is_inside and end:
        before = buffer.rfind(b"\n", 0, end - 1) + 1
        is_inside = buffer.count(b'"', before, end) % 2 == 0
        end = before
    return end


def ahead(blocks: Iterable[_T]) -> Iterator[_T]:
    """The blocks, the next one being read while one is in use."""
    iterator = iter(blocks)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, iterator, None)
        while (block := future.result()) is not None:
            future = pool.submit(next, iterator, None)
            yield block


def first_line(source: Input) -> str:
    """The first line of a file, as far as it is one. Raises DataError for a file that is empty or not UTF-8 there."""
    with source.open() as stored:
        stream = _unpacking(stored, stored)
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
    for number, block in ahead(text_blocks(source, files, quoted=layout.quoted)):
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
    if b"\0" in block or (layout.quoted and b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return None
    schema: dict[str, Any] = dict.fromkeys(layout.header, pl.String)  # all columns: else surplus fields pass unseen
    if layout.time:
        schema[layout.time] = pl.Int64
    try:
        table = _parsed(block, layout, schema)
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema={name: schema[name] for name in layout.kept} | {"line": pl.Int64})
    except pl.exceptions.PolarsError:
        return None
    table = table.select(layout.kept)
    if any(table[name].has_nulls() for name in layout.needed):
        return None
    return table.with_columns(pl.int_range(number, number + len(table), dtype=pl.Int64).alias("line"))


def _parsed(block: bytes, layout: Layout, schema: dict[str, Any]) -> pl.DataFrame:
    """The block by Polars; times that are not all whole numbers are read as text first."""
    options = {"has_header": False, "separator": layout.sign, "quote_char": '"' if layout.quoted else None}
    try:
        return pl.read_csv(block, schema=schema, **options)  # type: ignore[arg-type]
    except pl.exceptions.ComputeError:
        if not layout.time:
            raise
    table = pl.read_csv(block, schema=schema | {layout.time: pl.String}, **options)  # type: ignore[arg-type]
    return table.with_columns(parsed_times(table[layout.time]).alias(layout.time))


def _slow(block: bytes, layout: Layout, number: int, label: str, rejects: Rejects) -> pl.DataFrame:
    """The sound rows of the block; the others go to `rejects`."""
    kept = layout.kept
    rows: list[list[Any]] = []
    for line, fields, text in _records(block, layout, number):
        if fields is None:
            rejects.add(label, line, "not CSV", shown(text))
            continue
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


def _records(block: bytes, layout: Layout, number: int) -> Iterator[tuple[int, list[str] | None, str]]:
    """The line, the fields and the text of each record; bytes that are not UTF-8 become lone surrogates.

    Of a line that is no CSV the fields are None, and the text is the parser's complaint.
    """
    text = block.decode(errors="surrogateescape")
    if not layout.quoted:
        for line, record in enumerate(text.split("\n"), start=number):
            record = record.removesuffix("\r")
            yield line, record.split(layout.sign), record
        return
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=layout.sign)
    line = number
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a carriage return within a line, for example
            yield line, None, str(error)
        else:
            yield line, fields, layout.separator.join(fields)
        line = number + reader.line_num
