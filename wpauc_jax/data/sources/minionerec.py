"""The published splits of MiniOneRec and ReRe: three CSV files of samples, and one info file of items.

All files are plain or gzip. `train`, `valid` and `test` are each a file `NAME.csv` in a folder of that name, or the
files `train.csv` and so on. The items are in `NAME.txt` in a folder `info`, or in `info.txt`.

A line of `info` has fields between tabs: semantic id, title and item number (MiniOneRec), or title and item number
(ReRe). A row of a CSV file is a sample. It has `user_id`, `history_item_id` (a list of at most ten item numbers, oldest
first) and `item_id` (the target). In ReRe it also has `timestamp` and `history_timestamp`, in seconds. Without them the
order of rows is the order of time. Rows repeat titles and semantic ids of `info`; these are not read.
`NAME.item.json`, in the folder `index` or beside `info`, may add a description to each item.

The rows of a user are one time line, because the history of a row is the end of what the rows before it hold. The
reader rebuilds this time line. So its samples are the published rows with the published histories. Every item of `info`
is in the catalog, whether a row names it or not. Interactions that only the history of a first row knows are for
training. A user has more than one of them only if `train` is missing.
"""

import ast
import csv
import dataclasses
import hashlib
import io
import json
import pathlib
import re
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any

import polars as pl

from wpauc_jax.data.dataset import SPLITS
from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.folders import visible
from wpauc_jax.data.hashing import read_file, unpacked
from wpauc_jax.data.sources.columns import flat_text, joined
from wpauc_jax.data.sources.samples import Sample, time_lines
from wpauc_jax.data.tables import FilesRead, RawData, ReadOptions, reject_duplicates
from wpauc_jax.data.text import HALF, decoded, has_half, mended
from wpauc_jax.data.times import ACCEPTED, times_of, unit_of

_WHOLE = re.compile("[0-9]{1,18}")
COLUMNS = ("user_id", "history_item_id", "item_id")


def read_minionerec(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set at `path`: the folder that holds the splits and `info`, or one of its CSV files.

    A file chooses among several data sets in one folder: its name is that of the other splits. Its interactions have
    the column `split`. Raises DataError for a missing, ambiguous or malformed file, and for rows that contradict
    one another.
    """
    found = _find_files(path)
    stored = {name: read_file(file) for name, file in found.items()}
    label = str(found["info"])
    items = parse_info(stored["info"], label)
    if "item" in found:
        items = _with_descriptions(items, stored["item"], str(found["item"]))
    known = set(items["item"])
    unit = unit_of(options.time_unit)
    samples: list[Sample] = []
    for split, name in enumerate(SPLITS):
        if name in found:
            rows = _parse_rows(stored[name], str(found[name]), split, known, found["info"].name, unit)
            before = len(samples)
            samples += [dataclasses.replace(row, number=before + place) for place, row in enumerate(rows, start=1)]
    files = FilesRead()
    for name, content in stored.items():
        files.record(found[name].name, found[name], hashlib.sha256(content).hexdigest())
    if not samples:
        raise DataError(f"{path}: {', '.join(found[name].name for name in SPLITS if name in found)} hold no row")
    table, notes = time_lines(samples)
    items = items.with_columns(pl.col("line").cast(pl.Int64), file=pl.lit(label))
    unit = unit if samples[0].times else "order"
    return RawData([table], [items], files, rejects, unit, published=True, notes=notes if "train" in found else [])


def _find_files(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """Where `info`, the splits and, if there is one, the item file are. Raises DataError where one is missing."""
    stem, folder = "", path
    if path.is_file():
        in_split_folder = path.parent.name in SPLITS
        folder, stem = (path.parent.parent, _stem(path)) if in_split_folder else (path.parent, "")
    found = {name: _find(folder, name, ".csv", stem) for name in SPLITS}
    found["info"] = _find(folder, "info", ".txt", stem)
    files = {name: file for name, file in found.items() if file is not None}
    if "info" not in files or len(files) < 2:
        raise DataError(
            f"{folder} holds no MiniOneRec data: it needs train, valid or test (.csv) and info (.txt), each a file or "
            "a folder with one file"
        )
    item = _find_item(folder, _stem(files["info"]))
    return files | ({"item": item} if item else {})


def is_minionerec(path: pathlib.Path) -> bool:
    """Whether `path` is or lies in a folder of this layout."""
    folder = path if path.is_dir() else path.parent.parent if path.parent.name in SPLITS else path.parent
    has = {name: (folder / name).is_dir() or any(folder.glob(f"{name}.[ct][sx][vt]*")) for name in (*SPLITS, "info")}
    return has["info"] and any(has[name] for name in SPLITS)


def _stem(path: pathlib.Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0]


def _find(folder: pathlib.Path, name: str, suffix: str, stem: str) -> pathlib.Path | None:
    """`name.csv`, or the file in the folder `name` that is called `stem`, or the only one there."""
    for flat in (folder / f"{name}{suffix}", folder / f"{name}{suffix}.gz"):
        if flat.is_file():
            return flat
    inside = visible(folder / name) if (folder / name).is_dir() else []
    inside = [file for file in inside if file.name.removesuffix(".gz").endswith(suffix)]
    found = [file for file in inside if not stem or _stem(file) == stem]
    if len(found) > 1:
        raise DataError(
            f"{folder / name} holds several data sets: {', '.join(file.name for file in found)}; "
            "set data.path to one of the .csv files"
        )
    return found[0] if found else None


def _find_item(folder: pathlib.Path, stem: str) -> pathlib.Path | None:
    """`X.item.json` where the data set is called X, X_5_2016-10-2018-11 or the like; or the only one there."""
    found = [file for place in (folder / "index", folder) for file in sorted(place.glob("*.item.json"))]
    named = [file for file in found if stem.startswith(file.name.removesuffix(".item.json"))]
    if named:
        return max(named, key=lambda file: len(file.name))
    return found[0] if len(found) == 1 and stem == "info" else None


def parse_info(stored: bytes, label: str) -> pl.DataFrame:
    """The items in the bytes of an info file: item, title, text, sid (null where the file has none).

    Raises DataError naming the line of what is malformed or described twice.
    """
    rows = []
    for number, content in enumerate(unpacked(stored, label).removeprefix(BOM_UTF8).split(b"\n"), start=1):
        if not content.strip():
            continue
        text = decoded(content.removesuffix(b"\r"))
        if text is None:
            raise DataError(f"{label}, line {number}: not UTF-8 text: {shown(content)}")
        fields = mended(text).split("\t")
        if len(fields) not in (2, 3) or not _WHOLE.fullmatch(fields[-1]):
            raise DataError(f"{label}, line {number}: expected [semantic id,] title and item number between tabs")
        rows.append((number, str(int(fields[-1])), fields[-2] or None, fields[0] if len(fields) == 3 else None))
    schema = {"line": pl.UInt32, "item": pl.String, "title": pl.String, "sid": pl.String}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if not rows:
        raise DataError(f"{label}: the file describes no item")
    reject_duplicates(table, "item", label)
    return table.select("item", "title", text="title", sid="sid", line="line")


def read_codes(path: pathlib.Path) -> pl.DataFrame:
    """The semantic ids in an info file or in an index file `{"0": ["<a_1>", "<b_2>"], ...}`: item_id, sid.

    A sid is its tokens between spaces. Raises DataError for a malformed file.
    """
    label, stored = str(path), read_file(path)
    if not path.name.removesuffix(".gz").endswith(".json"):
        items = parse_info(stored, label)
        if items["sid"].has_nulls():
            raise DataError(f"{label} has no semantic ids, only titles and item numbers")
        spaced = pl.col("sid").str.replace_all("><", "> <", literal=True)
        return items.select(item_id="item", sid=spaced)
    try:
        index = json.loads(unpacked(stored, label))
        rows = [(str(int(item)), " ".join(tokens)) for item, tokens in index.items()]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f'{label}: expected {{"0": ["<a_1>", "<b_2>", ...], ...}} ({error})') from error
    return pl.DataFrame(rows, schema={"item_id": pl.String, "sid": pl.String}, orient="row")


def _with_descriptions(items: pl.DataFrame, stored: bytes, label: str) -> pl.DataFrame:
    try:
        described = json.loads(unpacked(stored, label))
        texts = {str(int(item)): flat_text(fields.get("description")).strip() for item, fields in described.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f'{label}: expected {{"0": {{"title": ..., "description": ...}}, ...}} ({error})') from error
    table = pl.DataFrame({"item": texts.keys(), "description": texts.values()}, schema_overrides={"item": pl.String})
    table = items.join(table, on="item", how="left", maintain_order="left")
    return table.with_columns(text=joined(["title", "description"]))


def _parse_rows(stored: bytes, label: str, split: int, known: set[str], info: str, unit: str) -> Iterator[Sample]:
    raw = unpacked(stored, label).removeprefix(BOM_UTF8)
    content = decoded(raw)
    if content is None:
        line = next(n for n, text in enumerate(raw.split(b"\n"), start=1) if decoded(text) is None)
        raise DataError(f"{label}, line {line}: not UTF-8 text")
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    line = 1  # where the record begins: a quoted title may hold line breaks
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{label}, line 1: the header has no column {missing[0]!r}")
        line = reader.line_num + 1
        for fields in reader:
            yield _parse_row(fields, f"{label}, line {line}", split, known, info, unit)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{label}, line {line}: {error}") from error


def _parse_row(fields: dict[str, str], place: str, split: int, known: set[str], info: str, unit: str) -> Sample:
    if None in fields or None in fields.values():
        raise DataError(f"{place}: not as many fields as the header has")
    if not fields["user_id"]:
        raise DataError(f"{place}: no value for 'user_id'")
    if has_half(fields["user_id"]):
        raise DataError(f"{place}: 'user_id' {HALF}")
    history = [str(item) for item in _numbers(fields["history_item_id"], "history_item_id", place)]
    target = str(_number(fields, "item_id", place))
    if not history:
        raise DataError(f"{place}: the history is empty, so the row is no sample")
    unknown = [item for item in [*history, target] if item not in known]
    if unknown:
        raise DataError(f"{place}: item {unknown[0]} is not in {info}")
    times = None
    if "timestamp" in fields and "history_timestamp" in fields:
        times = _times(fields["history_timestamp"], "history_timestamp", place, unit)
        times += _times(f"[{fields['timestamp']!r}]", "timestamp", place, unit)
        if len(times) != len(history) + 1:
            raise DataError(f"{place}: {len(history)} items but {len(times) - 1} times in the history")
    elif "timestamp" in fields or "history_timestamp" in fields:
        raise DataError(f"{place}: the header has one of 'timestamp' and 'history_timestamp'; times need both")
    return Sample(place, 0, split, fields["user_id"], history, target, times)


def _number(fields: dict[str, str], column: str, place: str) -> int:
    """One whole number."""
    values = _numbers(f"[{fields[column]}]", column, place)
    if len(values) != 1:
        raise DataError(f"{place}: {column!r} is not one whole number: {fields[column][:80]!r}")
    return values[0]


def _times(text: str, column: str, place: str, unit: str) -> list[int]:
    """A list of times as Python or JSON writes it."""
    values = _literal(text)
    if isinstance(values, list):
        whole, rest = times_of(pl.Series([str(value) for value in values], dtype=pl.String), unit)
        if rest is not None:
            raise DataError(
                f"{place}: {column!r} has fractions of data.time_unit={unit}; set a finer one: {shown(text)}"
            )
        if not whole.has_nulls():
            return whole.to_list()
    raise DataError(f"{place}: {column!r} is not made of times: {shown(text)} ({ACCEPTED})")


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _numbers(text: str, column: str, place: str) -> list[int]:
    """A list of whole numbers as Python or JSON writes it."""
    values = _literal(text)
    if not isinstance(values, list) or any(type(value) is not int or abs(value) >= 2**63 for value in values):
        raise DataError(f"{place}: {column!r} is not made of whole numbers: {text[:80]!r}")
    return values
