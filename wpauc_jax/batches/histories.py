"""The input of mode=recommend: users' histories by raw item ids."""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.data.dataset import Dataset
from wpauc_jax.data.errors import DataError, Rejects, read_file, unpacked
from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.sources.recbole import inter_blocks

History = tuple[str, np.ndarray]  # a user's name, items int32[n] in time order, n of at least 1


def read_histories(path: str | os.PathLike[str], dataset: Dataset) -> list[History]:
    """The histories in a file, in the order in which users first appear.

    JSON lines of {"user": ..., "history": [raw item ids, the latest last]}, each line a history of its own; or, by its
    name, a RecBole `.inter` file, of which a user's lines are one history, sorted by time, equal times as they stand.
    Either may be gzip.

    Raises DataError naming the file and line of what is malformed, empty or not in the catalog.
    """
    path = pathlib.Path(path)
    is_inter = path.name.removesuffix(".gz").endswith(".inter")
    rows = _inter_rows(path) if is_inter else _json_rows(unpacked(read_file(path), str(path)), str(path))
    number_of = {raw: number for number, raw in enumerate(dataset.item_ids)}
    histories = [(user, _numbers(user, items, number_of, str(path))) for user, items in rows]
    if not histories:
        raise DataError(f"{path}: the file holds no history")
    return histories


Row = tuple[str, list[tuple[str, int]]]  # a user, and each item with the number of its line


def _inter_rows(path: pathlib.Path) -> list[Row]:
    table = pl.concat(inter_blocks(Input(path), Rejects(), {}), how="vertical_relaxed")
    users = table["user"].unique(maintain_order=True)
    histories: dict[str, list[tuple[str, int]]] = {user: [] for user in users}
    for user, item, line in table.sort("time", "line").select("user", "item", "line").iter_rows():
        histories[user].append((item, line))
    return list(histories.items())


def _json_rows(content: bytes, label: str) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:  # also of bytes that are not UTF-8
            raise DataError(f"{label}, line {number}: not JSON ({error})") from error
        if not isinstance(value, dict) or not _is_id(value.get("user")) or not isinstance(value.get("history"), list):
            raise DataError(
                f'{label}, line {number}: expected {{"user": id, "history": [item ids]}}, got {value!r:.80}'
            )
        user, items = str(value["user"]), value["history"]
        if not items:
            raise DataError(f"{label}, line {number}: the history of user {user!r} is empty; remove the line")
        for item in items:
            if not _is_id(item):
                raise DataError(f"{label}, line {number}: item {item!r} of user {user!r} is not a string or an integer")
        yield user, [(str(item), number) for item in items]


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _numbers(user: str, items: list[tuple[str, int]], number_of: dict[str, int], label: str) -> np.ndarray:
    for item, line in items:
        if item not in number_of:
            raise DataError(
                f"{label}, line {line}: item {item!r} of user {user!r} is not among the {len(number_of)} items "
                "of the prepared data; remove it from the history"
            )
    return np.array([number_of[item] for item, _ in items], np.int32)
