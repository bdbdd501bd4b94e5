"""Reads delimited text of any size as blocks of a table.

Polars parses a block. If Polars or a check refuses the block, Python goes through it line by line. It finds the lines
that are wrong. Under data.bad_rows='skip' it keeps the others. So only bad blocks are slow. Memory holds a few blocks,
however long the file is.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, shown, shown_around
from wpauc_jax.data.sources.blocks import Input, ahead, text_blocks
from wpauc_jax.data.sources.quotes import (
    could_be_rows,
    fields_of,
    quotes_are_sound,
    records,
    records_of_lines,
)
from wpauc_jax.data.tables import LINE, REST, FilesRead
from wpauc_jax.data.text import HALF, decoded, has_half, mended
from wpauc_jax.data.times import ACCEPTED, times_of

_UNIT = b"\x1f"  # ASCII's unit separator


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a delimited file is read: its columns, and which of them every row must have."""

    header: Sequence[str]  # the columns of the file
    ids: Sequence[str]  # those that name users and items
    time: str = ""  # the column that holds times
    needed: Sequence[str] = ()  # further columns without which a row is no row
    optional: Sequence[str] = ()  # further columns to keep
    separator: str = ","
    quoted: bool = False  # whether double quotes hold a field together
    encoding: str = "utf-8"
    skip_lines: int = 0  # before the first row
    unit: str = "s"  # of the times

    @property
    def sign(self) -> bytes:
        """What stands between fields when a block is parsed."""
        return self.separator.encode() if len(self.separator) == 1 else _UNIT

    @property
    def must(self) -> list[str]:
        """The columns that every row must have."""
        return [*self.ids, *([self.time] if self.time else []), *self.needed]

    @property
    def kept(self) -> list[str]:
        """The columns to keep, once each, in the order of the file."""
        wanted = {*self.must, *self.optional}
        return [name for name in self.header if name in wanted]


def delimited_blocks(source: Input, layout: Layout, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    """Blocks of text columns, of times (int64, and REST where a block needs it), and of LINE (int64).

    Empty fields are null, blank lines skipped, trailing fields that a line lacks null. Raises DataError for a damaged
    file; rows that cannot be used go to `rejects`.
    """
    for number, block in ahead(text_blocks(source, files, layout.sign if layout.quoted else b"")):
        if number == 1 and layout.skip_lines:
            *head, block = block.split(b"\n", layout.skip_lines)
            number += len(head)
        if layout.encoding != "utf-8":
            block = block.decode(layout.encoding).encode()
        if len(layout.separator) > 1:  # Polars splits at single bytes
            block = block.replace(layout.separator.encode(), _UNIT)
        table = _fast(block, layout, number, source.label)
        yield _slow(block, layout, number, source.label, rejects) if table is None else table


def _fast(block: bytes, layout: Layout, number: int, label: str) -> pl.DataFrame | None:
    """The block as a table, or None where something in it is wrong or only may be."""
    if b"\0" in block or (layout.quoted and not _is_plain(block, layout, number, label)):
        return None
    schema: dict[str, Any] = dict.fromkeys(layout.header, pl.String)  # all columns: else surplus fields pass unseen
    if layout.time:
        schema[layout.time] = pl.Int64
    try:
        table = _parsed(block, layout, schema)
    except pl.exceptions.NoDataError:
        return pl.DataFrame(schema={name: schema[name] for name in layout.kept} | {LINE: pl.Int64})
    except pl.exceptions.PolarsError:
        return None
    if any(table[name].has_nulls() for name in layout.must):
        return None
    if layout.quoted and b'"' in block and any(_is_odd_id(table[name]) for name in layout.ids):
        return None
    return table.with_columns(pl.int_range(number, number + len(table), dtype=pl.Int64).alias(LINE))


def _is_plain(block: bytes, layout: Layout, number: int, label: str) -> bool:
    """Whether Polars reads the quotes of the block as they are meant."""
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return False
    if b'"' not in block:
        return True
    if not quotes_are_sound(block, layout.sign):
        return False
    for start, end in records_of_lines(block):
        _check_lines(block[start:end], layout, number + block.count(b"\n", 0, start), label)
    return True


def _check_lines(record: bytes, layout: Layout, line: int, label: str) -> None:
    """Raises DataError for a record of several lines that may as well be a row a line."""
    ids = [layout.header.index(name) for name in layout.ids]
    time = layout.header.index(layout.time) if layout.time else None
    if could_be_rows(record, layout.sign, len(layout.header), ids, time):
        last = line + record.count(b"\n", 0, len(record) - 1)
        raise DataError(
            f"{label}, lines {line} to {last}: one row whose quoted field has line breaks, or a row a line with a "
            f"quote left open: {shown(record)}; close the quote, or write a quote that is text twice"
        )


def _is_odd_id(ids: pl.Series) -> bool:
    """Whether an id is quoted nothing, or has a line break."""
    return bool(((ids == "") | ids.str.contains("\n", literal=True)).any())


def _parsed(block: bytes, layout: Layout, schema: dict[str, Any]) -> pl.DataFrame:
    """The block by Polars; times that are not all whole numbers are read as text first."""
    options = {"has_header": False, "separator": layout.sign.decode(), "quote_char": '"' if layout.quoted else None}
    try:
        return pl.read_csv(block, schema=schema, **options).select(layout.kept)  # type: ignore[arg-type]
    except pl.exceptions.ComputeError:
        if not layout.time:
            raise
    table = pl.read_csv(block, schema=schema | {layout.time: pl.String}, **options)  # type: ignore[arg-type]
    return _with_times(table.select(layout.kept), layout)


def _with_times(table: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    whole, rest = times_of(table[layout.time], layout.unit)
    table = table.with_columns(whole.alias(layout.time))
    return table if rest is None else table.with_columns(rest.alias(REST))


def _slow(block: bytes, layout: Layout, number: int, label: str, rejects: Rejects) -> pl.DataFrame:
    """The sound rows of the block; the others go to `rejects`."""
    kept = layout.kept
    rows: list[list[Any]] = []
    faults: list[tuple[int, str, str, str]] = []
    for line, fields, fault, excerpt in _rows(block, layout, number, label):
        row: dict[str, str | None] = {}
        if not fault:
            if not any(fields):
                continue
            row, fault, excerpt = _read(fields, layout)
        if fault:
            faults.append((line, fault, excerpt, ""))
        else:
            rows.append([*(row.get(name) for name in kept), line])
    table = pl.DataFrame(rows, schema={name: pl.String for name in kept} | {LINE: pl.Int64}, orient="row")
    if layout.time:
        texts = table[layout.time]
        table = _with_times(table, layout)
        for place in table[layout.time].is_null().arg_true():
            reason = f"{layout.time!r} is not a time"
            faults.append((table[LINE][place], reason, shown(texts[place]), ACCEPTED))
        table = table.filter(pl.col(layout.time).is_not_null())
    for line, reason, excerpt, hint in sorted(faults):
        rejects.add(label, line, reason, excerpt, hint)
    return table


def _rows(block: bytes, layout: Layout, number: int, label: str) -> Iterator[tuple[int, list[bytes], str, str]]:
    """Line, fields, and what is wrong with the quotes and where. Raises DataError where rows cannot be told apart."""
    if not layout.quoted:
        for line, content in enumerate(block.split(b"\n"), start=number):
            yield line, content.removesuffix(b"\r").split(layout.sign), "", ""
        return
    for record in records(block, layout.sign, number):
        content = block[record.start : record.end]
        excerpt = shown_around(content, record.at - record.start)
        if record.fault and not record.is_line:
            raise DataError(
                f"{label}, line {record.line}: {record.fault}: {excerpt}; where the row ends cannot be told: double a "
                "quote that is text, and close one that opens a field"
            )
        if record.fault:
            yield record.line, [], record.fault, excerpt
        elif b"\r" in content.rstrip(b"\r\n") and b'"' not in content:
            yield record.line, [], "a carriage return within a line", shown_around(content, content.index(b"\r"))
        else:
            if b"\n" in content[:-1]:
                _check_lines(content, layout, record.line, label)
            yield record.line, fields_of(content, layout.sign), "", ""


def _read(fields: list[bytes], layout: Layout) -> tuple[dict[str, str | None], str, str]:
    """The values by name; what is wrong with one, if anything is, and the field at fault."""
    if len(fields) > len(layout.header):
        surplus = b",".join(fields[len(layout.header) :])
        return {}, f"more than the {len(layout.header)} fields expected", f"{shown(surplus)} is too many"
    row: dict[str, str | None] = {}
    for name, raw in zip(layout.header, fields, strict=False):
        if b"\0" in raw:
            return {}, "a NUL byte", shown_around(raw, raw.index(b"\0"))
        text = decoded(raw)
        if text is None:
            return {}, "not UTF-8 text", shown_around(raw, _first_bad(raw))
        if name in layout.ids and has_half(text):
            return {}, f"{name!r} {HALF}", shown(raw)
        if name in layout.ids and "\n" in text:
            return {}, f"{name!r} has a line break", shown(repr(text))
        row[name] = mended(text) or None
    for name in layout.must:
        if row.get(name) is None:
            return {}, f"no value for {name!r}", shown(layout.separator.encode().join(fields))
    return row, "", ""


def _first_bad(raw: bytes) -> int:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0
