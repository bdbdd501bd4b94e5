"""RecBole atomic files: tab-separated, a typed header `name:type`, optionally gzip.

`.inter` needs `user_id` and `item_id`; without `timestamp` the order of lines is the order of time. `.item` is
optional and needs `item_id`; its title is the field `title` or the first one whose name ends so, its text all its
fields of type `token` or `token_seq`, in the order of the header. Other fields are ignored.
"""

import pathlib
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.delimited import Layout, delimited_blocks
from wpauc_jax.data.tables import RawData, ReadOptions


def read_recbole(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set at `path`: a folder that holds one `.inter` file, or that file itself.

    Its `.item` file is the one beside it with the same stem, or else the only one in the folder.
    Raises DataError for a missing, ambiguous or malformed file.
    """
    inter = _find_inter(path)
    item = _find_item(inter)
    files: dict[str, str] = {}
    items = item_blocks(Input(item), rejects, files) if item else []
    return RawData(inter_blocks(Input(inter), rejects, files), items, files, rejects)


def _find_inter(path: pathlib.Path) -> pathlib.Path:
    if path.is_file():
        return path
    found = _with_suffix(path, ".inter")
    if len(found) != 1:
        what = "several .inter files: " + ", ".join(p.name for p in found) if found else "no .inter or .inter.gz file"
        raise DataError(f"{path} holds {what}; set data.path to the file to read")
    return found[0]


def _find_item(inter: pathlib.Path) -> pathlib.Path | None:
    found = _with_suffix(inter.parent, ".item")
    stem = inter.name.removesuffix(".gz").removesuffix(".inter")
    same = [path for path in found if path.name.removesuffix(".gz") == f"{stem}.item"]
    if len(same) > 1 or (not same and len(found) > 1):
        raise DataError(f"{inter.parent} holds several .item files: {', '.join(p.name for p in found)}; keep one")
    return next(iter(same or found), None)


def _with_suffix(folder: pathlib.Path, suffix: str) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(suffix))


def inter_blocks(source: Input, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
    """The interactions of an `.inter` file, as RawData has them, and their `line`. Raises DataError naming the line."""
    types = _header(source, ["user_id", "item_id"])
    time = "timestamp" if "timestamp" in types else ""
    needed = ["user_id", "item_id", *([time] if time else [])]
    layout = Layout(list(types), needed, time, separator="\t", skip_lines=1)
    for block in delimited_blocks(source, layout, rejects, files):
        yield block.select(user="user_id", item="item_id", time=time or "line", line="line")


def item_blocks(source: Input, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
    """The items of an `.item` file, as RawData has them. Raises DataError naming the line."""
    types = _header(source, ["item_id"])
    words = [name for name, kind in types.items() if kind in ("token", "token_seq") and name != "item_id"]
    titles = [name for name in words if name == "title"] + [name for name in words if name.endswith("title")]
    layout = Layout(list(types), ["item_id"], optional=words, separator="\t", skip_lines=1)
    for block in delimited_blocks(source, layout, rejects, files):
        title = pl.col(titles[0]) if titles else pl.lit(None, pl.String)
        yield block.select(item="item_id", title=title, text=joined(words), line="line")


def sid_table(source: Input) -> pl.DataFrame:
    """item_id, sid and line of a `.sid` file. Raises DataError naming the line of what is missing or malformed."""
    layout = Layout(list(_header(source, ["item_id", "sid"])), ["item_id", "sid"], separator="\t", skip_lines=1)
    return pl.concat(delimited_blocks(source, layout, Rejects(), {}))


def joined(columns: list[str]) -> pl.Expr:
    """The non-empty values of `columns`, joined by full stops; null where there is none."""
    if not columns:
        return pl.lit(None, pl.String)
    text = pl.concat_str(columns, separator=". ", ignore_nulls=True)
    return pl.when(text != "").then(text)


def _header(source: Input, needed: list[str]) -> dict[str, str]:
    """Each field and its type. Raises DataError for an untyped header and for a field that is needed and missing."""
    types: dict[str, str] = {}
    for column in first_line(source).split("\t"):
        name, colon, kind = column.partition(":")
        if not colon:
            raise DataError(
                f"{source.label}, line 1: the header field {shown(column)} lacks its type, as in 'user_id:token'"
            )
        if name in types:
            raise DataError(f"{source.label}, line 1: the header names {shown(name)} twice")
        types[name] = kind
    missing = [name for name in needed if name not in types]
    if missing:
        raise DataError(f"{source.label}, line 1: the header has no field {missing[0]!r}; it has {listed(types)}")
    return types
