"""The first stage of preparation: it reads a data set block by block and writes integer columns and items to files.

Two numbers and a time are kept of each row. After the last block the numbers are changed to those of the sorted ids.
The result stays in the folder of the stage. If a run is stopped later, it does not read the data set again.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.data.dataset import PER_SECOND
from wpauc_jax.data.errors import DataError, listed
from wpauc_jax.data.ids import IdTable
from wpauc_jax.data.period import Period
from wpauc_jax.data.sources.blocks import ahead
from wpauc_jax.data.tables import REST, FilesRead, RawData
from wpauc_jax.data.text import NO_WORDS, without_no_words
from wpauc_jax.runtime.files import atomic_path

_DONE = "done.json"
_KINDS = {"split": np.int8, "depth": np.int32}  # columns that only some data sets have
_COLUMNS = ("user", "item", "time", *_KINDS)
_NANOS = 10**9

Progress = Callable[[str], None]
Window = tuple[int | None, int | None]  # the first second to keep and the first one not to keep


@dataclasses.dataclass(frozen=True)
class Records:
    """n interactions in the order of the files; users and items are numbered in the order of their ids."""

    user_ids: pl.Series
    item_ids: pl.Series
    columns: dict[str, np.ndarray]  # user int32[n], item int32[n], time int64[n]; split int8[n], depth int32[n] or not
    items: list[pathlib.Path]  # files of item, title, text, line, file
    facts: dict[str, Any]  # files (hashes), paths, rejects, outside (the window), time_unit, dates, notes and so on


def read_records(
    open_raw: Callable[[], RawData],
    folder: pathlib.Path,
    key: dict[str, Any],
    window: Window,
    say: Progress,
) -> Records:
    """Reads a data set into `folder`, or takes from there what an earlier run with the same `key` has read.

    Raises DataError for data that cannot be used.
    """
    if _is_done(folder, key):
        say("what is read already is not read again")
    else:
        _clear(folder)
        _read(folder, key, open_raw(), window, say)
    return _load(folder)


def _is_done(folder: pathlib.Path, key: dict[str, Any]) -> bool:
    try:
        return json.loads((folder / _DONE).read_text())["key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _clear(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()


def _read(folder: pathlib.Path, key: dict[str, Any], raw: RawData, window: Window, say: Progress) -> None:
    tables = {"user": IdTable(), "item": IdTable()}
    number, notes = _write_items(folder, raw.items, tables["item"] if raw.published else None)
    columns = _collect(raw, tables, window, say)
    unit = _finest(columns.rests, raw.time_unit)
    no_times = ["there are no times: the order of rows is taken for that of time"] * (raw.time_unit == "rows")
    notes = [*raw.notes, *notes, *_twice(raw.files), *no_times, *columns.said(window)]

    def store(name: str) -> None:
        if name in tables:
            ids, places = tables.pop(name).finish()
            notes.extend(_odd_ids(name, ids))
            ids.to_frame("id").write_ipc(folder / f"{name}_ids.arrow")
            _save(folder / f"{name}.npy", columns.blocks.pop(name), np.int32, places.take)
        elif name == "time":
            _save(folder / f"{name}.npy", _times(columns, raw.time_unit, unit), np.int64)
        else:
            _save(folder / f"{name}.npy", columns.blocks.pop(name), _KINDS[name])

    with ThreadPoolExecutor(2) as pool:  # one column is written while another's ids are sorted
        list(pool.map(store, list(columns.blocks)))
    facts = {
        "files": raw.files,
        "paths": {name: str(path) for name, path in raw.files.paths.items()},
        "rejects": dict(sorted(raw.rejects.counts.items())),
        "first_rejects": dict(sorted(raw.rejects.first.items())),
        "outside": columns.outside,
        "time_unit": unit,
        "dates": columns.dates,
        "notes": notes,
        "repeated_items": raw.repeated_items,
        "item_blocks": number,
    }
    with atomic_path(folder / _DONE) as temporary:
        temporary.write_text(json.dumps({"key": key, "facts": facts}))


def _write_items(folder: pathlib.Path, blocks: Iterable[pl.DataFrame], table: IdTable | None) -> tuple[int, list[str]]:
    """Writes the items in blocks; how many blocks, and what to say of their titles."""
    number = silent = 0
    for block in blocks:
        if len(block):
            if table:
                table.add(block["item"])
            before = block["title"].is_not_null() & (block["title"].str.strip_chars() != "")
            block = block.select(
                "item", "text", "file", title=without_no_words("title"), line=pl.col("line").cast(pl.Int64)
            )
            silent += int((before & block["title"].is_null()).sum())
            block.write_parquet(folder / f"items-{number:05}.parquet", compression="lz4")
            number += 1
    note = f"{silent:,} titles are words for a missing value, such as 'nan', 'None' or 'NULL': they are no titles"
    return number, [note] if silent else []


@dataclasses.dataclass
class _Columns:
    """The interactions in blocks: numbers of ids, times in the unit of the data set and what is left of them."""

    blocks: dict[str, list[np.ndarray]]
    rests: list[np.ndarray | None]
    outside: int  # of the window
    seen: Period | None  # all that was read; None where times are no dates
    kept: Period | None  # what lies in the window

    @property
    def dates(self) -> dict[str, str] | None:
        """The first and the last day, of all that was read and of what is kept."""
        if self.seen is None or self.kept is None:
            return None
        (first, last), (kept_first, kept_last) = self.seen.dates, self.kept.dates
        return {"first": first, "last": last, "first_kept": kept_first, "last_kept": kept_last}

    def said(self, window: Window) -> list[str]:
        """What to say of the times. Raises DataError for a window over times that count another unit."""
        if self.seen is None or self.dates is None:
            return []
        first, last, *kept = self.dates.values()
        inside = f"; in the window from {kept[0]} to {kept[1]}" if window != (None, None) else ""
        warning = self.seen.warning()
        if warning and self.seen.better_unit and inside:
            raise DataError(f"data.start and data.end cannot be applied: {warning}")
        return [f"times go from {first} to {last}{inside}", *([f"warning: {warning}"] if warning else [])]


def _collect(raw: RawData, tables: dict[str, IdTable], window: Window, say: Progress) -> _Columns:
    """Goes through the interactions once."""
    has_dates = raw.time_unit in PER_SECOND
    periods = [Period(raw.time_unit) if has_dates else None for _ in range(2)]
    columns = _Columns({"user": [], "item": [], "time": []}, [], 0, *periods)
    seen = kept = 0
    with ThreadPoolExecutor(2) as pool:
        for block in ahead(raw.interactions):
            seen += len(block)
            if columns.seen:
                columns.seen.add(block["time"].to_numpy())
            block = _inside(block, window, raw.time_unit)
            kept += len(block)
            if not len(block):
                continue
            for name, numbers in pool.map(lambda n, b=block: (n, tables[n].add(b[n])), tables):
                columns.blocks[name].append(numbers)
            columns.blocks["time"].append(block["time"].to_numpy())
            columns.rests.append(block[REST].to_numpy() if REST in block.columns else None)
            if columns.kept:
                columns.kept.add(columns.blocks["time"][-1])
            for name in _KINDS.keys() & set(block.columns):
                columns.blocks.setdefault(name, []).append(block[name].to_numpy())
            if seen // 10_000_000 > (seen - len(block)) // 10_000_000:
                say(f"{seen:,} interactions read")
    if not kept and seen and columns.seen:
        first, last = columns.seen.dates
        warning = columns.seen.warning()
        raise DataError(
            f"there is no interaction in the window: all {seen:,} lie outside, which go from {first} to {last}"
            + (f"; {warning}" if warning else "")
        )
    if not kept:
        raise DataError("there is no interaction")
    columns.outside = seen - kept
    return columns


def _inside(block: pl.DataFrame, window: Window, unit: str) -> pl.DataFrame:
    start, end = (None if bound is None else bound * PER_SECOND[unit] for bound in window)
    if start is not None:
        block = block.filter(pl.col("time") >= start)
    return block if end is None else block.filter(pl.col("time") < end)


def _finest(rests: list[np.ndarray | None], unit: str) -> str:
    """The coarsest unit that keeps all times as they are."""
    present = [rest for rest in rests if rest is not None]
    if not present:
        return unit
    finer = [name for name in PER_SECOND if PER_SECOND[name] > PER_SECOND[unit]]
    for name in finer[:-1]:
        if all(not (rest % (_NANOS // PER_SECOND[name])).any() for rest in present):
            return name
    return finer[-1]


def _times(columns: _Columns, unit: str, finest: str) -> list[np.ndarray]:
    """The times in the finest unit; uses up the blocks. Raises DataError for times too far from 1970 for it."""
    blocks = columns.blocks.pop("time")
    if unit == finest:
        return blocks
    ratio, nanos = PER_SECOND[finest] // PER_SECOND[unit], _NANOS // PER_SECOND[finest]
    most = (2**63 - 1) // ratio - 1
    if any(int(block.max()) > most or int(block.min()) < -most for block in blocks):
        first, last = columns.kept.dates if columns.kept else ("", "")
        raise DataError(
            f"times go from {first} to {last}, and some have fractions that only {finest!r} can hold, in which the "
            "first or the last does not fit; mend those that cannot be true"
        )
    rests = columns.rests
    return [block * ratio + (0 if rest is None else rest // nanos) for block, rest in zip(blocks, rests, strict=True)]


def _twice(files: FilesRead) -> list[str]:
    """Files of the same bytes, such as a copy that lies beside its original."""
    names: dict[str, list[str]] = {}
    for name, digest in files.items():
        names.setdefault(digest, []).append(name)
    return [
        f"warning: {listed(same)} hold the same bytes, and their rows count more than once"
        for same in names.values()
        if len(same) > 1
    ]


def _odd_ids(name: str, ids: pl.Series) -> list[str]:
    """Ids that look as if a program had written a missing value; many rows may share one."""
    odd = ids.filter(ids.is_in(NO_WORDS))
    return [f"warning: {name} ids that look like missing values: {listed(odd)}"] if len(odd) else []


def _save(
    path: pathlib.Path, blocks: list[np.ndarray], kind: type, change: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> None:
    """A file of NumPy's with one array of all blocks, changed; the blocks are used up, as memory may be short."""
    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (sum(map(len, blocks)),)}
    with path.open("wb") as out, ThreadPoolExecutor() as pool:
        np.lib.format.write_array_header_1_0(out, header)
        changed = pool.map(change, blocks)
        blocks.clear()
        for block in changed:
            out.write(block.astype(kind, copy=False).data)


def _load(folder: pathlib.Path) -> Records:
    facts = json.loads((folder / _DONE).read_text())["facts"]
    return Records(
        user_ids=pl.read_ipc(folder / "user_ids.arrow")["id"],
        item_ids=pl.read_ipc(folder / "item_ids.arrow")["id"],
        columns={
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _COLUMNS
            if (folder / f"{name}.npy").exists()
        },
        items=[folder / f"items-{number:05}.parquet" for number in range(facts["item_blocks"])],
        facts=facts,
    )
