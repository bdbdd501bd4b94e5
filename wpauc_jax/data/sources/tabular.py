"""Tables whose columns the settings name: CSV, Parquet or JSON lines, as one file or a folder of part files.

`data.user_column` and `data.item_column` must be there. `data.time_column` holds numbers of `data.time_unit` since
1970, or dates. If the setting is empty, there are no times, and the order of rows is the order of time.

Titles come from a second table, `data.items_path`, with `data.item_column` and `data.title_column`. All its columns but
the id are the text for embeddings. Without such a table, a column `data.title_column` of the interactions has the
titles.

CSV is UTF-8, plain or gzip. Commas separate fields; if the header has tabs or semicolons and no comma, these do. Double
quotes hold a field together. The columns of a file without a header are named by their numbers. The numbers count from
0 if one of them is 0, and otherwise from 1.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.folders import TABLES, parts_of, split_files
from wpauc_jax.data.sources.blocks import first_line
from wpauc_jax.data.sources.columns import Table, Wanted, bare_table_of, interactions_of, is_header, items_of, table_of
from wpauc_jax.data.tables import HISTORIES, FilesRead, RawData, ReadOptions
from wpauc_jax.data.text import without_no_words
from wpauc_jax.data.times import unit_of

_NAMES = "data.user_column, data.item_column and data.time_column"


def read_tabular(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The interactions in the file or folder `path`; or those in train, valid and test files, which then are splits.

    Raises DataError for a missing or ambiguous column or file, and for a malformed one.
    """
    folder = path if path.is_dir() else path.parent
    items = folder / options.items_path if options.items_path else None
    splits = split_files(path, TABLES)
    if splits:
        return read_splits(splits, options, rejects, items, unit_of(options.time_unit))
    paths, notes = _files(path, items)
    if _is_bare(paths[0], options):
        tables, wanted, note = _bare(paths, options)
        notes.append(note)
    else:
        tables = tables_of(paths)
        wanted = Wanted(options.user_column, options.item_column, options.time_column, unit_of(options.time_unit))
        _check_columns(tables[0], options)
    files = FilesRead()
    described, repeated, note = _items(items, tables, wanted, options, rejects, files)
    notes += [note] if note else []
    unit = wanted.unit if wanted.time else "rows"
    blocks = _in_turn(tables, wanted, rejects, files)
    return RawData(blocks, described, files, rejects, unit, repeated_items=repeated, notes=notes)


def read_splits(
    splits: dict[str, pathlib.Path], options: ReadOptions, rejects: Rejects, items: pathlib.Path | None, unit: str
) -> RawData:
    """The tables of train, valid and test as one data set, each row in the split of its file.

    A column `history`, as Amazon's benchmark files have it, is compared with the rows before a row in preparation.
    """
    tables = tables_of(list(splits.values()))
    wanted = Wanted(options.user_column, options.item_column, options.time_column, unit)
    if "history" in tables[0].columns and tables[0].kind != "lines":
        wanted = dataclasses.replace(wanted, history="history")
    _check_columns(tables[0], options, known=("history",) if wanted.history else ())
    files = FilesRead()
    described, repeated, note = _items(items, tables, wanted, options, rejects, files)
    blocks = (
        block.with_columns(split=pl.lit(number, pl.Int8))
        for number, table in enumerate(tables)
        for block in _in_turn([table], wanted, rejects, files, before=tables[:number])
    )
    notes = [f"published splits: {', '.join(path.name for path in splits.values())}", *([note] if note else [])]
    return RawData(blocks, described, files, rejects, unit if wanted.time else "rows", True, repeated, notes)


def tables_of(paths: Sequence[pathlib.Path]) -> list[Table]:
    """The tables in files that are parts of one. Raises DataError where their columns differ."""
    tables = [table_of(path) for path in paths]
    for table in tables:
        if table.kind != "lines" and table.columns != tables[0].columns:
            raise DataError(
                f"{tables[0].label} has the columns {listed(tables[0].columns)}, {table.label} has "
                f"{listed(table.columns)}: these are no parts of one table; set data.path to the file of interactions, "
                "and data.items_path to that of the items"
            )
    return tables


def _files(path: pathlib.Path, items: pathlib.Path | None) -> tuple[list[pathlib.Path], list[str]]:
    """The files of a table, and what to say of them."""
    if not path.is_dir():
        return [path], []
    paths, aside = parts_of(path, [items] if items else [])
    note = f"{path}: one table in {len(paths)} file{'s' if len(paths) > 1 else ''} ({listed(p.name for p in paths)})"
    return paths, [note + (f"; left aside: {listed(aside)}" if aside else "")]


def _check_columns(table: Table, options: ReadOptions, known: Sequence[str] = ()) -> None:
    named = [options.user_column, options.item_column, *([options.time_column] if options.time_column else [])]
    if len(set(named)) < len(named):
        raise DataError(f"{table.label}: {_NAMES} name one column twice: {', '.join(named)}")
    table.check(named, _NAMES)
    bare = {name.partition(":")[0] for name in table.columns}  # RecBole's names have a type behind them
    histories = [name for name in HISTORIES if name in bare and name not in (*named, *known)]
    if histories:
        raise DataError(
            f"{table.label}, line 1: the column {histories[0]!r} says that a row is a sample with its history, not one "
            "interaction; such rows are read from train, valid and test files that lie together (NAME.train.csv and so "
            "on), or name the columns of a table of interactions"
        )


def _in_turn(
    tables: Sequence[Table], wanted: Wanted, rejects: Rejects, files: FilesRead, before: Sequence[Table] = ()
) -> Iterator[pl.DataFrame]:
    """The blocks of one table after the other; where rows' numbers are times, they go on from table to table."""
    offset = len(before) << 40  # more than the lines of any file
    for number, table in enumerate(tables):
        for block in interactions_of(table, wanted, rejects, files):
            yield block if wanted.time else block.with_columns(pl.col("time") + (offset + (number << 40)))


def _items(
    path: pathlib.Path | None,
    tables: Sequence[Table],
    wanted: Wanted,
    options: ReadOptions,
    rejects: Rejects,
    files: FilesRead,
) -> tuple[Iterator[pl.DataFrame] | list[pl.DataFrame], bool, str]:
    """The items, whether their descriptions repeat, and what to say of them."""
    title = options.title_column
    if path is None:
        if title not in ("", ReadOptions().title_column) and title not in tables[0].columns:
            raise DataError(
                f"{tables[0].label} has no column {title!r} (data.title_column), and data.items_path is empty"
            )
        if not title or title not in tables[0].columns:
            return [], False, ""
        note = f"{tables[0].label}: its column {title!r} has the titles (data.title_column='' leaves them out)"
        return _own_titles(tables, wanted.item, title, rejects, files), True, note
    paths = parts_of(path)[0] if path.is_dir() else [path]
    described = tables_of(paths)
    settings = "data.item_column and data.title_column, or leave data.items_path empty"
    described[0].check([wanted.item, *([title] if title else [])], settings)
    columns = [name for name in described[0].columns if name not in (wanted.item, title)]
    words = [*([title] if title else []), *columns]
    blocks = (block for table in described for block in items_of(table, wanted.item, title, words, rejects, files))
    return blocks, {table.label for table in described} <= {table.label for table in tables}, ""


def _own_titles(
    tables: Sequence[Table], item: str, title: str, rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    """The items of a table of interactions, each once. Raises DataError for an item with two titles."""
    titles: dict[str, tuple[str, int]] = {}
    silent = Rejects("skip")  # what is wrong with a row is said when its interaction is read
    for table in tables:
        for block in items_of(table, item, title, [title], silent, FilesRead()):
            block = block.with_columns(title=without_no_words("title"))
            new = block.drop_nulls("title").unique(["item", "title"], maintain_order=True)
            fresh = []
            for row in new.iter_rows(named=True):
                known, line = titles.setdefault(row["item"], (row["title"], row["line"]))
                if known != row["title"]:
                    raise DataError(
                        f"{table.label}, line {row['line']}: item {row['item']!r} has the title {shown(row['title'])}, "
                        f"and {shown(known)} in line {line}; if {title!r} is no title of items, set "
                        "data.title_column=''"
                    )
                if line == row["line"]:
                    fresh.append(row)
            yield pl.DataFrame(fresh, schema=block.schema)


def _is_bare(path: pathlib.Path, options: ReadOptions) -> bool:
    """Whether the settings give numbers of columns."""
    numbers = [name.isascii() and name.isdigit() for name in (options.user_column, options.item_column)]
    if any(numbers) and not all(numbers):
        raise DataError(
            f"{path}: data.user_column={options.user_column!r} and data.item_column={options.item_column!r}: name "
            "both, or give the numbers of both"
        )
    return all(numbers)


def _bare(paths: Sequence[pathlib.Path], options: ReadOptions) -> tuple[list[Table], Wanted, str]:
    """The tables of files without a header, the columns by their numbers, and how the first line is understood."""
    tables = [bare_table_of(path) for path in paths]
    count = len(tables[0].columns)
    given = {"user": options.user_column, "item": options.item_column}
    if options.time_column and options.time_column != ReadOptions().time_column:
        given["time"] = options.time_column
    if not all(name.isascii() and name.isdigit() for name in given.values()):
        raise DataError(
            f"{paths[0]}: data.time_column={options.time_column!r}: give its number, as for the other columns"
        )
    if "time" not in given and options.time_column:
        raise DataError(
            f"{paths[0]}: give data.time_column its number, too; or '' if the order of rows is that of time"
        )
    base = 0 if "0" in given.values() or tables[0].has_header else 1
    numbers = {name: int(text) - base for name, text in given.items()}
    line = first_line(tables[0].source)
    if max(numbers.values()) >= count or len(set(numbers.values())) < len(numbers):
        raise DataError(
            f"{paths[0]}: data.user_column, data.item_column and data.time_column are {', '.join(given.values())}, but "
            f"the first line has {count} fields: {shown(line)}"
        )
    fields = line.split(tables[0].separator)
    if is_header(fields):
        raise DataError(f"{paths[0]}, line 1: this is a header: {shown(line)}; name the columns in {_NAMES}")
    unit = unit_of(options.time_unit)
    wanted = Wanted(str(numbers["user"]), str(numbers["item"]), str(numbers["time"]) if "time" in numbers else "", unit)
    if tables[0].has_header:
        return tables, wanted, f"{paths[0]}: the header is 0, 1, 2, ...; columns go by these names"
    seen = ", ".join(f"{name} {shown(fields[place])}" for name, place in numbers.items())
    return tables, wanted, f"{paths[0]}: no header; columns count from {base}, so that the first row is {seen}"
