"""RecBole atomic files: tab-separated, a typed header `name:type`, optionally gzip.

`.inter` needs `user_id` and `item_id`; without `timestamp` the order of lines is the order of time. `.item` is
optional and needs `item_id`; its title is the field `title` or the first one whose name ends so, its text all its
fields of type `token` or `token_seq`, in the order of the header. Other fields are ignored.
"""

import hashlib
import pathlib

import polars as pl

from wpauc_jax.data.sources.tables import (
    INTERACTION_COLUMNS,
    DataError,
    RawData,
    no_items,
    parsed_time,
    read_delimited,
    read_file,
    reject_duplicates,
    require,
    unpacked,
)


def read_recbole(path: str | pathlib.Path) -> RawData:
    """The data set at `path`: a folder that holds one `.inter` file, or that file itself.

    Its `.item` file is the one beside it with the same stem, or else the only one in the folder.
    Raises DataError for a missing, ambiguous or malformed file.
    """
    inter = find_inter(pathlib.Path(path))
    stored = read_file(inter)
    files = [(inter.name, hashlib.sha256(stored).hexdigest())]
    interactions = parse_inter(stored, str(inter))
    items = no_items()
    item = _find_item(inter)
    if item is not None:
        stored = read_file(item)
        files.append((item.name, hashlib.sha256(stored).hexdigest()))
        items = parse_item(stored, str(item))
    return RawData(interactions, items, tuple(files))


def find_inter(path: pathlib.Path) -> pathlib.Path:
    """The `.inter` or `.inter.gz` file that `path` is or holds. Raises DataError for none or several."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"data.path={str(path)!r} does not exist; set it, or data.root to the folder that holds it")
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


def parse_inter(stored: bytes, label: str) -> pl.DataFrame:
    """The interactions in the bytes of an `.inter` file, as RawData has them. Raises DataError naming the line."""
    table, _ = parse_atomic(stored, label, ["user_id", "item_id"])
    if not len(table):
        raise DataError(f"{label}: no interaction after the header")
    time = pl.Series("time", table["line"].cast(pl.Int64))
    if "timestamp" in table.columns:
        require(table, ["timestamp"], label)
        time = parsed_time(table, "timestamp", label).alias("time")
    return table.rename({"user_id": "user", "item_id": "item"}).with_columns(time).select(INTERACTION_COLUMNS)


def parse_item(stored: bytes, label: str) -> pl.DataFrame:
    """The items in the bytes of an `.item` file, as RawData has them. Raises DataError naming the line."""
    table, types = parse_atomic(stored, label, ["item_id"])
    reject_duplicates(table, "item_id", label)
    words = [name for name, kind in types.items() if kind in ("token", "token_seq") and name != "item_id"]
    titles = [name for name in words if name == "title"] + [name for name in words if name.endswith("title")]
    return table.select(
        item="item_id",
        title=pl.col(titles[0]) if titles else pl.lit(None, pl.String),
        text=joined(words),
    )


def joined(columns: list[str]) -> pl.Expr:
    """The non-empty values of `columns`, joined by full stops; null where there is none."""
    if not columns:
        return pl.lit(None, pl.String)
    text = pl.concat_str(columns, separator=". ", ignore_nulls=True)
    return pl.when(text != "").then(text)


def parse_atomic(stored: bytes, label: str, needed: list[str]) -> tuple[pl.DataFrame, dict[str, str]]:
    """The bytes of any atomic file as a table of strings with a column `line`, and the type of each field.

    Raises DataError for an untyped header, a missing field, and a line without one of the `needed` values.
    """
    content = unpacked(stored, label)
    table = read_delimited(content, label, separator="\t")
    names = table.columns[1:]
    types = {}
    for column in names:
        name, colon, kind = column.partition(":")
        if not colon:
            raise DataError(f"{label}, line 1: the header field {column!r} lacks its type, as in 'user_id:token'")
        if name in types:
            raise DataError(f"{label}, line 1: the header names {name!r} twice")
        types[name] = kind
    missing = [name for name in needed if name not in types]
    if missing:
        raise DataError(f"{label}, line 1: the header has no field {missing[0]!r}; it has {', '.join(types)}")
    table = table.rename(dict(zip(names, types, strict=True)))
    require(table, needed, label)
    return table, types
