"""Amazon Reviews of 2014, 2018 and 2023 (McAuley Lab): one object a line, plain or gzip.

Reviews have `reviewerID`, `asin`, `unixReviewTime` in seconds (2014, 2018) or `user_id`, `parent_asin`, `timestamp` in
milliseconds (2023). Metadata have `asin` or `parent_asin`, `title`, and of these what there is: `brand` or `store`,
`categories` or `category`, `features` or `feature`, `description`; in 2014 as Python literals, not JSON. The metadata
of `X.json.gz`, `X_5.json.gz`, `reviews_X.json.gz`, `reviews_X_5.json.gz` or `X.jsonl.gz` are the file beside it that is
called `meta_X` with any of these endings.
"""

import html
import pathlib
from collections.abc import Iterator
from typing import Any

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.jsonlines import as_text, json_interactions, json_objects, parse_object
from wpauc_jax.data.tables import RawData, ReadOptions, item_table

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_OLD = ("reviewerID", "asin", "unixReviewTime")
_NEW = ("user_id", "parent_asin", "timestamp")
_DETAILS = ("brand", "store", "categories", "category", "features", "feature", "description")


def read_amazon(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The reviews in the file `path`, or in the only such file of the folder `path`, and their metadata, if any.

    Metadata repeat items; the first description counts. Raises DataError for a missing, ambiguous or malformed file.
    """
    reviews = _find_reviews(path)
    meta = Input(path.parent / options.items_path) if options.items_path else _find_meta(reviews)
    names = _fields(reviews)
    files: dict[str, str] = {}
    return RawData(
        json_interactions(reviews, *names, rejects, files),
        _items(meta, rejects, files) if meta else [],
        files,
        rejects,
        time_unit="ms" if names == _NEW else "s",
        repeated_items=True,
    )


def is_amazon(source: Input) -> bool:
    """Whether the first line is a review."""
    fields = parse_object(first_line(source).encode()) or {}
    return any(set(names) <= set(fields) for names in (_OLD, _NEW))


def _fields(source: Input) -> tuple[str, str, str]:
    line = first_line(source)
    fields = parse_object(line.encode()) or {}
    for names in (_OLD, _NEW):
        if set(names) <= set(fields):
            return names
    raise DataError(
        f"{source.label}, line 1: not an Amazon review, which has {', '.join(_OLD)} or {', '.join(_NEW)}: {shown(line)}"
    )


def _find_reviews(path: pathlib.Path) -> Input:
    if path.is_file():
        return Input(path)
    found = [
        file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES) and not file.name.startswith("meta_")
    ]
    if len(found) != 1:
        what = "several files of reviews: " + ", ".join(file.name for file in found) if found else "no file of reviews"
        raise DataError(f"{path} holds {what} ({', '.join(SUFFIXES)}); set data.path to the one to read")
    return Input(found[0])


def _find_meta(reviews: Input) -> Input | None:
    stem = _stem(reviews.path.name).removeprefix("reviews_")
    stems = {f"meta_{stem}", f"meta_{stem.removesuffix('_5')}"}
    found = [
        file
        for file in sorted(reviews.path.parent.iterdir())
        if file.name.endswith(SUFFIXES) and _stem(file.name) in stems
    ]
    if len(found) > 1:
        raise DataError(f"the metadata of {reviews.label} may be {' or '.join(file.name for file in found)}; keep one")
    return Input(found[0]) if found else None


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".json").removesuffix(".jsonl")


def _items(source: Input, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
    for objects in json_objects(source, rejects, files):
        rows = []
        for line, fields in objects:
            item = as_text(fields.get("parent_asin")) or as_text(fields.get("asin"))
            if not item:
                rejects.add(source.label, line, "no value for 'asin' or 'parent_asin'", shown(repr(fields)))
                continue
            title = _clean(fields.get("title"))
            text = ". ".join(filter(None, [title, *(_clean(fields.get(name)) for name in _DETAILS)]))
            rows.append((item, title, text, line))
        yield item_table(rows)


def _clean(value: Any) -> str:
    """Text, or the texts of a list of any depth, without HTML entities and surplus space."""
    if isinstance(value, list):
        return " ".join(filter(None, map(_clean, value)))
    return " ".join(html.unescape(as_text(value)).split())
