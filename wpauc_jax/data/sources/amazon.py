"""Amazon Reviews of 2014, 2018 and 2023 (McAuley Lab): a line holds one object; files are plain or gzip.

Reviews of 2014 and 2018 have `reviewerID`, `asin`, and `unixReviewTime` in seconds. Reviews of 2023 have `user_id`,
`parent_asin`, and `timestamp` in milliseconds.

Metadata have `asin` or `parent_asin`, and `title`. They may also have `brand` or `store`, `categories` or `category`,
`features` or `feature`, and `description`. In 2014 a line is a Python literal, not JSON. Reviews lie in `X.json.gz`,
`X_5.json.gz`, `reviews_X.json.gz`, `reviews_X_5.json.gz` or `X.jsonl.gz`. Their metadata lie beside them, in `meta_X`
with any of these endings.

The tables of 2023 are read, too. `X.csv` has `user_id`, `parent_asin`, `rating` and `timestamp`. The benchmark files
`X.train.csv`, `X.valid.csv` and `X.test.csv` are published splits, with or without a column `history`.
"""

import dataclasses
import html
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.folders import ending, split_files, visible
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.columns import flat_text, is_parquet
from wpauc_jax.data.sources.jsonlines import id_of, json_interactions, json_objects, parse_object
from wpauc_jax.data.sources.tabular import read_splits, read_tabular
from wpauc_jax.data.tables import FilesRead, RawData, ReadOptions, item_table
from wpauc_jax.data.text import mended
from wpauc_jax.data.times import unit_of

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_CSV = (".csv",)
_OLD = ("reviewerID", "asin", "unixReviewTime")
_NEW = ("user_id", "parent_asin", "timestamp")
_UNITS = {_OLD: "s", _NEW: "ms"}
_DETAILS = ("brand", "store", "categories", "category", "features", "feature", "description")
_COLUMNS = {"user_column": "user_id", "item_column": "parent_asin", "time_column": "timestamp", "title_column": ""}


def read_amazon(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The reviews in the file `path`, or in the only such file of the folder `path`, and their metadata, if any.

    Metadata repeat items; the first description counts. Raises DataError for a missing, ambiguous or malformed file.
    """
    table = _find_table(path)
    if table:
        return _read_table(table, options, rejects)
    reviews = _find_reviews(path)
    meta = _metadata(reviews[0].path, options)
    names = {_fields(source) for source in reviews}
    if len(names) > 1:
        raise DataError(f"{listed(source.label for source in reviews)} are reviews of different years")
    (fields,) = names
    unit = unit_of(options.time_unit, _UNITS[fields])
    files = FilesRead()
    interactions = (block for source in reviews for block in json_interactions(source, fields, unit, rejects, files))
    items = _items(meta, rejects, files) if meta else []
    notes = [f"one table in {len(reviews)} files ({listed(s.name for s in reviews)})"] if len(reviews) > 1 else []
    return RawData(interactions, items, files, rejects, unit, repeated_items=True, notes=notes)


def _read_table(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """A table of 2023, or its three benchmark files."""
    unit = unit_of(options.time_unit, "ms")
    columns = ReadOptions(time_unit=unit, **_COLUMNS)
    splits = split_files(path, _CSV)
    raw = read_splits(splits, columns, rejects, None, unit) if splits else read_tabular(path, columns, rejects)
    meta = _metadata(splits["train"] if splits else path, options)
    items = _items(meta, rejects, raw.files) if meta else []
    return dataclasses.replace(raw, items=items, repeated_items=True)


def is_amazon(source: Input) -> bool:
    """Whether the first line is a review, or the header of a table of 2023."""
    if is_parquet(source.path):
        return False
    if _find_table(source.path):
        return True
    fields = parse_object(first_line(source).encode()) or {}
    return any(set(names) <= set(fields) for names in (_OLD, _NEW))


def _find_table(path: pathlib.Path) -> pathlib.Path | None:
    """The CSV file with the columns of 2023, one of three benchmark files for all; None if there is none."""
    if path.is_dir():
        found = [file for file in visible(path) if ending(file, _CSV)]
        return found[0] if found and (len(found) == 1 or split_files(path, _CSV)) and _find_table(found[0]) else None
    header = "" if is_parquet(path) else first_line(Input(path))
    return path if set(_NEW) <= set(header.replace('"', "").split(",")) else None


def _fields(source: Input) -> tuple[str, str, str]:
    line = first_line(source)
    fields = parse_object(line.encode()) or {}
    for names in (_OLD, _NEW):
        if set(names) <= set(fields):
            return names
    raise DataError(
        f"{source.label}, line 1: not an Amazon review, which has {', '.join(_OLD)} or {', '.join(_NEW)}: {shown(line)}"
    )


def _find_reviews(path: pathlib.Path) -> list[Input]:
    """The file of reviews, or all of them where their names say that they are parts of one."""
    if path.is_file():
        return [Input(path)]
    found = [file for file in visible(path) if file.name.endswith(SUFFIXES) and not file.name.startswith("meta_")]
    if not found or (len(found) > 1 and len({_whole_name(file.name) for file in found}) > 1):
        what = "several files of reviews: " + listed(file.name for file in found) if found else "no file of reviews"
        raise DataError(f"{path} holds {what} ({', '.join(SUFFIXES)}); set data.path to the one to read")
    return [Input(file) for file in found]


def _whole_name(name: str) -> str:
    """The name that parts of one table share, as part-00000.jsonl and X-00001-of-00004.jsonl."""
    return re.sub(r"(?<=[-_.])[0-9]+(-of-[0-9]+)?", "", _stem(name)) if re.search("^part|-of-", name) else name


def _metadata(reviews: pathlib.Path, options: ReadOptions) -> Input | None:
    """The file that describes the items."""
    if options.items_path:
        path = (reviews if reviews.is_dir() else reviews.parent) / options.items_path
        if not path.is_file():
            raise DataError(f"cannot read {path}: there is no such file (data.items_path)")
        return Input(path)
    stem = _stem(reviews.name).removeprefix("reviews_")
    stems = {f"meta_{stem}", f"meta_{stem.removesuffix('_5')}", f"meta_{stem.removesuffix('.train')}"}
    found = [file for file in visible(reviews.parent) if file.name.endswith(SUFFIXES) and _stem(file.name) in stems]
    if len(found) > 1:
        raise DataError(f"the metadata of {reviews} may be {' or '.join(file.name for file in found)}; keep one")
    return Input(found[0]) if found else None


def _stem(name: str) -> str:
    name = name.removesuffix(".gz")
    return name.removesuffix(".json").removesuffix(".jsonl").removesuffix(".csv")


def _items(source: Input, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    for objects in json_objects(source, rejects, files):
        rows = []
        for line, fields in objects:
            name = next((name for name in ("parent_asin", "asin") if fields.get(name) not in (None, "")), "")
            item, fault = id_of(fields.get(name), name) if name else ("", "no value for 'asin' or 'parent_asin'")
            if fault:
                rejects.add(source.label, line, fault, f"it has {listed(map(repr, fields))}")
                continue
            title = _clean(fields.get("title"))
            text = ". ".join(filter(None, [title, *(_clean(fields.get(name)) for name in _DETAILS)]))
            rows.append((item, title, text, line))
        yield item_table(rows, source.label)


def _clean(value: Any) -> str:
    """Text, or the texts of a list, without HTML entities and surplus space."""
    return mended(" ".join(html.unescape(flat_text(value)).split()))
