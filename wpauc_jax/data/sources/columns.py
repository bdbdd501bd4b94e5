"""Tables whose columns are named, in text, Parquet or JSON lines: the columns of a file, and its rows in blocks."""

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.sources.blocks import Input, first_line, first_lines
from wpauc_jax.data.sources.delimited import Layout, delimited_blocks
from wpauc_jax.data.sources.jsonlines import as_text, id_of, json_interactions, json_objects, parse_object
from wpauc_jax.data.sources.parquet import parquet_blocks, parquet_columns
from wpauc_jax.data.tables import LINE, REST, FilesRead
from wpauc_jax.data.text import without_no_words

SEPARATORS = (",", "\t", ";")  # of a table with a header, the first that the header has
BARE_SEPARATORS = ("\t", "::", ",", ";", "|", " ")  # of one without a header
_LOOKED_AT = 100  # lines of JSON whose fields are the columns
_ITEM = "\0item"
_HEADER_WORDS = {"user_id", "item_id", "userid", "itemid", "movieid", "user", "item", "rating", "timestamp"}
_HEADER_WORDS |= {"parent_asin", "asin", "reviewerid", "session_id", "product_id", "business_id"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A file and its columns."""

    source: Input
    kind: str  # "text", "parquet" or "lines" (of JSON)
    columns: tuple[str, ...]
    separator: str = ","
    has_header: bool = True

    @property
    def label(self) -> str:
        """The file in messages."""
        return self.source.label

    def check(self, needed: Sequence[str], settings: str) -> None:
        """Raises DataError if a column is missing or there twice; `settings` are those that name columns."""
        again = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if again is not None:
            raise DataError(f"{self.label}, line 1: the header names a column twice: {shown(again)}")
        missing = [name for name in needed if name not in self.columns]
        if missing:
            raise DataError(
                f"{self.label} has no column {missing[0]!r}; it has {self._names()}; name the columns in {settings}"
            )

    def _names(self) -> str:
        has_blanks = any(name != name.strip() for name in self.columns)
        return listed(map(repr, self.columns) if has_blanks else self.columns)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The columns of interactions to read."""

    user: str
    item: str
    time: str = ""  # "": the order of rows is the order of time
    unit: str = "s"
    history: str = ""  # a column with the items before a row's item, between blanks


def table_of(path: pathlib.Path) -> Table:
    """The table in a file with a header. Raises DataError for one that is absent, empty or damaged."""
    source = Input(path)
    if not path.is_file():
        raise DataError(f"cannot read {path}: there is no such file")
    if is_parquet(path):
        return Table(source, "parquet", tuple(parquet_columns(source)))
    line = first_line(source)
    if line.lstrip().startswith("{"):
        objects = [parse_object(text.encode()) for text in first_lines(source, _LOOKED_AT)]
        if objects[0] is None:
            raise DataError(f"{path}, line 1: not a JSON object: {shown(line)}")
        return Table(source, "lines", tuple(dict.fromkeys(str(name) for found in objects for name in found or {})))
    if line.lstrip().startswith("[") and ".json" in path.name:
        raise DataError(f"{path}, line 1: the file is one JSON array: {shown(line)}; write one object a line instead")
    if "\r" in line:
        raise DataError(f"{path}: lines end in carriage returns alone; save it with line feeds")
    separator = next((sign for sign in SEPARATORS if sign in line), ",")
    try:
        columns = next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise DataError(f"{path}, line 1: not a header of CSV ({error}): {shown(line)}") from error
    return Table(source, "text", tuple(columns), separator)


def bare_table_of(path: pathlib.Path) -> Table:
    """The table in a text file without a header, its columns called by their numbers from 0 on."""
    source = Input(path)
    line = first_line(source)
    separator = next((sign for sign in BARE_SEPARATORS if sign in line), ",")
    quoted = len(separator) == 1
    fields = next(csv.reader([line], delimiter=separator), []) if quoted else line.split(separator)
    names = tuple(str(number) for number in range(len(fields)))
    return Table(source, "text", names, separator, has_header=tuple(fields) == names)  # pandas writes 0,1,2 as a header


def is_parquet(path: pathlib.Path) -> bool:
    """Whether the file begins as Parquet does."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def interactions_of(table: Table, wanted: Wanted, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    """Blocks of user, item, time and, where there is a history, depth. Without times the rows' numbers are times."""
    yield from _INTERACTIONS[table.kind](table, wanted, rejects, files)


def items_of(
    table: Table, item: str, title: str, words: Sequence[str], rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    """Blocks of items; `words` are the columns that say something of an item, the title among them if it has one."""
    yield from _ITEMS[table.kind](table, item, title, words, rejects, files)


def joined(columns: Sequence[str]) -> pl.Expr:
    """The values of `columns` that say something, joined by full stops; null where there is none."""
    if not columns:
        return pl.lit(None, pl.String)
    text = pl.concat_str([without_no_words(name) for name in columns], separator=". ", ignore_nulls=True)
    return pl.when(text != "").then(text)


def _layout(table: Table, **more: Any) -> Layout:
    return Layout(
        table.columns,
        separator=table.separator,
        quoted=len(table.separator) == 1,
        skip_lines=int(table.has_header),
        **more,
    )


def _text_interactions(table: Table, wanted: Wanted, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    layout = _layout(
        table,
        ids=(wanted.user, wanted.item),
        time=wanted.time,
        unit=wanted.unit,
        optional=[wanted.history] if wanted.history else [],
    )
    for block in delimited_blocks(table.source, layout, rejects, files):
        yield _named(block, wanted)


def _parquet_interactions(table: Table, wanted: Wanted, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    history = [wanted.history] if wanted.history else []
    ids = (wanted.user, wanted.item)
    for block in parquet_blocks(table.source, ids, wanted.time, history, wanted.unit, rejects, files):
        yield _named(block, wanted)


def _named(block: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    columns = {"user": pl.col(wanted.user), "item": pl.col(wanted.item), "time": pl.col(wanted.time or LINE)}
    if wanted.history:
        columns["depth"] = pl.col(wanted.history).fill_null("").str.count_matches(r"\S+").cast(pl.Int32)
    return block.select(*(REST for _ in [0] if REST in block.columns), **columns)


def _lines_interactions(table: Table, wanted: Wanted, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    names = (wanted.user, wanted.item, wanted.time)
    yield from json_interactions(table.source, names, wanted.unit, rejects, files)


def _text_items(
    table: Table, item: str, title: str, words: Sequence[str], rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    layout = _layout(table, ids=(item,), optional=words)
    for block in delimited_blocks(table.source, layout, rejects, files):
        yield _described(block, item, title, words, table.label)


def _parquet_items(
    table: Table, item: str, title: str, words: Sequence[str], rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    for block in parquet_blocks(table.source, [item], "", words, "s", rejects, files):
        yield _described(block, item, title, words, table.label)


def _described(block: pl.DataFrame, item: str, title: str, words: Sequence[str], label: str) -> pl.DataFrame:
    name = pl.col(title) if title else pl.lit(None, pl.String)
    return block.select(item=item, title=name, text=joined(words), line=LINE, file=pl.lit(label))


def _lines_items(
    table: Table, item: str, title: str, words: Sequence[str], rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    schema = dict.fromkeys([_ITEM, *words], pl.String) | {LINE: pl.Int64}
    for objects in json_objects(table.source, rejects, files):
        rows = []
        for line, fields in objects:
            name, fault = id_of(fields.get(item), item)
            if fault:
                rejects.add(table.label, line, fault, shown(repr(fields.get(item))))
            else:
                rows.append((name, *(flat_text(fields.get(word)) or None for word in words), line))
        yield _described(pl.DataFrame(rows, schema=schema, orient="row"), _ITEM, title, words, table.label)


def flat_text(value: Any) -> str:
    """Text, or the texts of a list of any depth with blanks between; "" for what is neither."""
    texts, left = [], [value]
    while left:
        one = left.pop()
        if isinstance(one, list):
            left.extend(reversed(one))
        else:
            texts.append(as_text(one))
    return " ".join(filter(None, texts))


def is_header(fields: Sequence[str]) -> bool:
    """Whether the fields of a first line are names of columns."""
    return any(field.strip(' "').lower().partition(":")[0] in _HEADER_WORDS for field in fields)


_INTERACTIONS = {"text": _text_interactions, "parquet": _parquet_interactions, "lines": _lines_interactions}
_ITEMS = {"text": _text_items, "parquet": _parquet_items, "lines": _lines_items}
