"""The first stage of preparation: a data set's blocks to integer columns, its items to files, and both kept.

What a row keeps is two numbers and a time; after the last block its numbers become those of the ids in their order. The
result is written into the folder of the stage, so that a run that is stopped later does not read the data set again.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.data.errors import DataError
from wpauc_jax.data.ids import IdTable
from wpauc_jax.data.sources.blocks import ahead
from wpauc_jax.data.tables import RawData
from wpauc_jax.runtime.files import atomic_path

_DONE = "done.json"
_COLUMNS = ("user", "item", "time", "split")

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Records:
    """n interactions in the order of the files; users and items are numbered in the order of their ids."""

    user_ids: pl.Series
    item_ids: pl.Series
    columns: dict[str, np.ndarray]  # user int32[n], item int32[n], time int64 or float64 [n]; split int8[n] or absent
    items: list[pathlib.Path]  # files of item, title, text, line
    facts: dict[str, Any]  # files (hashes), rejects, outside (the window), time_unit, repeated_items


def read_records(
    open_raw: Callable[[], RawData],
    folder: pathlib.Path,
    key: dict[str, Any],
    window: tuple[int | None, int | None],
    say: Progress,
) -> Records:
    """Reads a data set into `folder`, or takes from there what an earlier run with the same `key` has read.

    `window` is the first second to keep and the first one not to keep. Raises DataError for data that cannot be used.
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


def _read(
    folder: pathlib.Path, key: dict[str, Any], raw: RawData, window: tuple[int | None, int | None], say: Progress
) -> None:
    tables = {"user": IdTable(), "item": IdTable()}
    number = _write_items(folder, raw.items, tables["item"] if raw.published else None)
    blocks, outside = _collect(raw, tables, window, say)

    def store(name: str) -> None:
        if name in tables:
            ids, places = tables.pop(name).finish()
            ids.to_frame("id").write_ipc(folder / f"{name}_ids.arrow")
            _save(folder / f"{name}.npy", blocks.pop(name), np.int32, places.take)
        else:
            has_floats = any(part.dtype.kind == "f" for part in blocks[name])
            whole = np.int8 if name == "split" else np.int64
            _save(folder / f"{name}.npy", blocks.pop(name), np.float64 if has_floats else whole)

    with ThreadPoolExecutor(2) as pool:  # one column is written while another's ids are sorted
        list(pool.map(store, list(blocks)))
    facts = {
        "files": raw.files,
        "rejects": dict(sorted(raw.rejects.counts.items())),
        "first_rejects": dict(sorted(raw.rejects.first.items())),
        "outside": outside,
        "time_unit": raw.time_unit,
        "repeated_items": raw.repeated_items,
        "item_blocks": number,
    }
    with atomic_path(folder / _DONE) as temporary:
        temporary.write_text(json.dumps({"key": key, "facts": facts}))


def _write_items(folder: pathlib.Path, blocks: Iterable[pl.DataFrame], table: IdTable | None) -> int:
    number = 0
    for block in blocks:
        if len(block):
            if table:
                table.add(block["item"])
            block.select("item", "title", "text", pl.col("line").cast(pl.Int64)).write_parquet(
                folder / f"items-{number:05}.parquet", compression="lz4"
            )
            number += 1
    return number


def _collect(
    raw: RawData, tables: dict[str, IdTable], window: tuple[int | None, int | None], say: Progress
) -> tuple[dict[str, list[np.ndarray]], int]:
    """Each column in blocks, ids as the numbers of their tables; and how many interactions lie outside the window."""
    columns: dict[str, list[np.ndarray]] = {"user": [], "item": [], "time": []}
    seen = kept = 0
    with ThreadPoolExecutor(2) as pool:
        for block in ahead(raw.interactions):
            seen += len(block)
            block = _inside(block, window, raw.time_unit)
            kept += len(block)
            if not len(block):
                continue
            for name, numbers in pool.map(lambda n, b=block: (n, tables[n].add(b[n])), tables):
                columns[name].append(numbers)
            columns["time"].append(block["time"].to_numpy())
            if "split" in block.columns:
                columns.setdefault("split", []).append(block["split"].to_numpy())
            if seen // 10_000_000 > (seen - len(block)) // 10_000_000:
                say(f"{seen:,} interactions read")
    if not kept:
        raise DataError(f"there is no interaction{f' in the window: all {seen:,} lie outside' if seen else ''}")
    return columns, seen - kept


def _inside(block: pl.DataFrame, window: tuple[int | None, int | None], unit: str) -> pl.DataFrame:
    scale = 1000 if unit == "ms" else 1
    start, end = (None if bound is None else bound * scale for bound in window)
    if start is not None:
        block = block.filter(pl.col("time") >= start)
    return block if end is None else block.filter(pl.col("time") < end)


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
