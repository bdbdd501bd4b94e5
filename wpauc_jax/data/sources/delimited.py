"""Delimited text of any size as blocks of a table.

A block is parsed by Polars. Where Polars or a check refuses it, the block is gone through line by line in Python: that
finds the lines at fault, and under data.bad_rows='skip' keeps the others. So only bad blocks are slow, and memory
holds a few blocks, however long the file.
"""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from wpauc_jax.data.errors import Rejects, shown
from wpauc_jax.data.sources.blocks import Input, ahead, text_blocks
from wpauc_jax.data.times import parsed_times

_UNIT = b"\x1f"  # ASCII's unit separator


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
