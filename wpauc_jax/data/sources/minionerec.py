"""The published splits of MiniOneRec and ReRe: three CSV files of samples and one info file of items.

Layout, plain or gzip: `train`, `valid` and `test`, each a file `NAME.csv` in a folder of that name, or itself called
`train.csv` and so on; and the items in a folder `info` as `NAME.txt`, or in `info.txt`. A line of `info` is, between
tabs, semantic id, title and item number (MiniOneRec) or title and item number (ReRe). A row of a CSV file is a sample:
`user_id`, `history_item_id` (a list of at most ten item numbers, oldest first) and `item_id` (the target); with
`timestamp` and `history_timestamp` in seconds (ReRe) the rows have times, without them the order of rows is the order
of time. Titles and semantic ids in the rows are those of `info` and are not read. `NAME.item.json`, in the folder
`index` or beside `info`, may add a description to each item.

Each user's rows are one time line: a row's history is the end of what the rows before it hold. So the time line is
rebuilt from the rows, its samples are exactly the published rows, with the published histories, and every item of
`info` belongs to the catalogue whether or not a row names it. Interactions that only a first row's history knows are
training interactions; there is more than one of them for a user only where `train` is missing.
"""

import ast
import csv
import dataclasses
import hashlib
import io
import json
import pathlib
import re
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.hashing import read_file, unpacked
from wpauc_jax.data.tables import SPLITS, RawData, ReadOptions, reject_duplicates

_WHOLE = re.compile("[0-9]{1,18}")
COLUMNS = ("user_id", "history_item_id", "item_id")


def read_minionerec(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set at `path`: the folder that holds the splits and `info`, or one of its CSV files.

    A file chooses among several data sets in one folder: its name is that of the other splits. Its interactions have
    the column `split`. Raises DataError for a missing, ambiguous or malformed file, and for rows that contradict
    one another.
    """
    files = _find_files(path)
    stored = {name: read_file(file) for name, file in files.items()}
    items = parse_info(stored["info"], str(files["info"]))
    if "item" in files:
        items = _with_descriptions(items, stored["item"], str(files["item"]))
    known = set(items["item"])
    rows = [
        row
        for split, name in enumerate(SPLITS)
        if name in files
        for row in _parse_rows(stored[name], str(files[name]), split, known, files["info"].name)
    ]
    digests = {files[name].name: hashlib.sha256(content).hexdigest() for name, content in stored.items()}
    if not rows:
        raise DataError(f"{path}: {', '.join(files[name].name for name in SPLITS if name in files)} hold no row")
    unit = "s" if rows and rows[0].times else "order"
    return RawData([_time_lines(rows)], [items], digests, rejects, unit, published=True)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A sample as its file has it. `place` names file and line."""

    place: str
    split: int
    user: str
    history: list[str]
    target: str
    times: list[int] | None  # of the history and then of the target


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
    inside = sorted((folder / name).glob(f"*{suffix}")) + sorted((folder / name).glob(f"*{suffix}.gz"))
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
    for number, content in enumerate(unpacked(stored, label).split(b"\n"), start=1):
        if not content.strip():
            continue
        try:
            fields = content.removesuffix(b"\r").decode().split("\t")
        except UnicodeDecodeError as error:
            raise DataError(f"{label}, line {number}: not UTF-8 text: {shown(content)}") from error
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
        texts = {str(int(item)): str(fields.get("description") or "").strip() for item, fields in described.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f'{label}: expected {{"0": {{"title": ..., "description": ...}}, ...}} ({error})') from error
    table = pl.DataFrame({"item": texts.keys(), "description": texts.values()}, schema_overrides={"item": pl.String})
    joined = items.join(table, on="item", how="left", maintain_order="left")
    words = [pl.col(name).replace("", None) for name in ("title", "description")]
    return joined.with_columns(text=pl.concat_str(words, separator=". ", ignore_nulls=True).replace("", None))


def _parse_rows(stored: bytes, label: str, split: int, known: set[str], info: str) -> Iterator[_Row]:
    try:
        content = unpacked(stored, label).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{label}, line {line}: not UTF-8 text") from error
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    line = 1  # where the record begins: a quoted title may hold line breaks
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{label}, line 1: the header has no column {missing[0]!r}")
        line = reader.line_num + 1
        for fields in reader:
            yield _parse_row(fields, f"{label}, line {line}", split, known, info)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{label}, line {line}: {error}") from error


def _parse_row(fields: dict[str, str], place: str, split: int, known: set[str], info: str) -> _Row:
    if None in fields or None in fields.values():
        raise DataError(f"{place}: not as many fields as the header has")
    if not fields["user_id"]:
        raise DataError(f"{place}: no value for 'user_id'")
    history = [str(item) for item in _numbers(fields["history_item_id"], "history_item_id", place)]
    target = str(_number(fields, "item_id", place))
    if not history:
        raise DataError(f"{place}: the history is empty, so the row is no sample")
    unknown = [item for item in [*history, target] if item not in known]
    if unknown:
        raise DataError(f"{place}: item {unknown[0]} is not in {info}")
    times = None
    if "timestamp" in fields and "history_timestamp" in fields:
        times = _numbers(fields["history_timestamp"], "history_timestamp", place)
        times.append(_number(fields, "timestamp", place))
        if len(times) != len(history) + 1:
            raise DataError(f"{place}: {len(history)} items but {len(times) - 1} times in the history")
    return _Row(place, split, fields["user_id"], history, target, times)


def _number(fields: dict[str, str], column: str, place: str) -> int:
    """One whole number."""
    values = _numbers(f"[{fields[column]}]", column, place)
    if len(values) != 1:
        raise DataError(f"{place}: {column!r} is not one whole number: {fields[column][:80]!r}")
    return values[0]


def _numbers(text: str, column: str, place: str) -> list[int]:
    """A list of whole numbers as Python or JSON writes it."""
    try:
        values = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    if not isinstance(values, list) or any(type(value) is not int or abs(value) >= 2**63 for value in values):
        raise DataError(f"{place}: {column!r} is not made of whole numbers: {text[:80]!r}")
    return values


def _time_lines(rows: list[_Row]) -> pl.DataFrame:
    """Every user's interactions once. Raises DataError for a history that does not continue the user's rows before."""
    longest = max(len(row.history) for row in rows)
    lines: dict[str, list[str]] = {}
    out: list[tuple[str, str, int, int]] = []
    for number, row in enumerate(rows, start=1):
        line = lines.get(row.user)
        if line is None:
            line = lines[row.user] = list(row.history)
            times = row.times or [0] * len(line)
            out.extend((row.user, item, time, 0) for item, time in zip(line, times[: len(line)], strict=True))
        elif line[-longest:] != row.history:
            raise DataError(
                f"{row.place}: the history of user {row.user!r} does not continue the rows before it; the files "
                "belong to different data sets, or their order was changed"
            )
        line.append(row.target)
        out.append((row.user, row.target, row.times[-1] if row.times else number, row.split))
    schema = {"user": pl.String, "item": pl.String, "time": pl.Int64, "split": pl.Int8}
    return pl.DataFrame(out, schema=schema, orient="row").with_row_index("line", offset=1)
