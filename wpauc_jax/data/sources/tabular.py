"""CSV and Parquet files with a header, whose columns are named in the settings.

`data.user_column` and `data.item_column` are needed. `data.time_column` holds seconds (or, by `data.time_unit`,
milliseconds) since 1970, or dates such as `2018-07-07 22:09:11` in UTC; an empty setting says that there are no times
and the order of rows is the order of time. Items come from a second file of either kind, `data.items_path`, with
`data.item_column` and `data.title_column`; all its columns but the id together are the text for embeddings. CSV: UTF-8,
plain or gzip, separated by commas, or by tabs or semicolons where the header has these and no comma; double quotes hold
a field together.
"""

import csv
import pathlib
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.delimited import Layout, delimited_blocks
from wpauc_jax.data.sources.parquet import parquet_columns, parquet_table_blocks
from wpauc_jax.data.sources.recbole import joined
from wpauc_jax.data.tables import RawData, ReadOptions


def read_tabular(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The interactions in the file `path` and the items in `data.items_path`, which may stand beside it.

    Raises DataError for a missing column or a malformed file.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; set data.path to the CSV or Parquet file with the interactions")
    files: dict[str, str] = {}
    items = _items(Input(path.parent / options.items_path), options, rejects, files) if options.items_path else []
    return RawData(_interactions(Input(path), options, rejects, files), items, files, rejects, options.time_unit)


def _interactions(
    source: Input, options: ReadOptions, rejects: Rejects, files: dict[str, str]
) -> Iterator[pl.DataFrame]:
    ids = [options.user_column, options.item_column]
    time = options.time_column
    for block in _blocks(source, [*ids, *([time] if time else [])], time, [], rejects, files):
        yield block.select(user=ids[0], item=ids[1], time=time or "line")


def _items(source: Input, options: ReadOptions, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
    item, title = options.item_column, options.title_column
    columns = columns_of(source)
    if title not in columns:
        raise DataError(f"{source.label} has no column {title!r} (data.title_column); it has {listed(columns)}")
    words = [title, *(name for name in columns if name not in (item, title))]
    for block in _blocks(source, [item], "", words, rejects, files):
        yield block.select(item=item, title=title, text=joined(words), line="line")


def _blocks(
    source: Input, needed: list[str], time: str, optional: list[str], rejects: Rejects, files: dict[str, str]
) -> Iterator[pl.DataFrame]:
    columns = columns_of(source)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(
            f"{source.label} has no column {missing[0]!r}; it has {listed(columns)}; name the columns in "
            "data.user_column, data.item_column and data.time_column"
        )
    if is_parquet(source.path):
        return parquet_table_blocks(source, needed, time, optional, rejects, files)
    separator = _separator(first_line(source))
    layout = Layout(columns, needed, time, optional, separator=separator, quoted=True, skip_lines=1)
    return delimited_blocks(source, layout, rejects, files)


def is_parquet(path: pathlib.Path) -> bool:
    """Whether the file begins as Parquet does."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def columns_of(source: Input) -> list[str]:
    """The columns of a file. Raises DataError for one that is absent, empty or damaged."""
    if not source.path.is_file():
        raise DataError(f"cannot read {source.label}: there is no such file")
    if is_parquet(source.path):
        return parquet_columns(source)
    line = first_line(source)
    try:
        columns = next(csv.reader([line], delimiter=_separator(line)), [])
    except csv.Error as error:
        raise DataError(f"{source.label}, line 1: not a header of CSV ({error}): {shown(line)}") from error
    if len(set(columns)) < len(columns):
        raise DataError(f"{source.label}, line 1: the header names a column twice: {line!r:.80}")
    return columns


def _separator(header: str) -> str:
    return next((sign for sign in (",", "\t", ";") if sign in header), ",")
