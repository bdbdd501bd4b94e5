"""Small data sets that several tests of the data layer share."""

import gzip
import pathlib

import numpy as np
import polars as pl
import pytest

from wpauc_jax.catalog.items import Catalog, catalog_from_codes
from wpauc_jax.data.dataset import Dataset
from wpauc_jax.data.sources import ReadOptions, read
from wpauc_jax.data.splits import chronological, leave_one_out

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> str:
    """The folder of a shared data set, or a skip."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs the data set {name} in ../shared/data")
    return str(SHARED / name)


def write(path: pathlib.Path, text: str) -> pathlib.Path:
    """`text` in a file, compressed if its name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def atomic(*rows: tuple) -> str:
    """Rows as the text of a RecBole file."""
    return "".join("\t".join(map(str, row)) + "\n" for row in rows)


def circle(folder: pathlib.Path, *, items: int, users: int, shortest: int, longest: int) -> None:
    """`folder`/circle.inter: users walk a circle of items, one step at a time, so that the next item is certain."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        start, length = rng.integers(items), rng.integers(shortest, longest + 1)
        rows += [(f"u{user}", f"i{(start + step) % items}", step) for step in range(length)]
    write(folder / "circle.inter", inter(rows))


def inter(rows: list[tuple]) -> str:
    """(user, item, time) rows as the text of an .inter file."""
    return atomic(("user_id:token", "item_id:token", "timestamp:float"), *rows)


def read_all(source: str, path: pathlib.Path, bad_rows: str = "error", **options):
    """A data set read to the end: interactions, items, and the RawData with its hashes and rejects."""
    raw = read(source, path, ReadOptions(**options), bad_rows)
    items = list(raw.items)
    interactions = pl.concat(raw.interactions, how="diagonal")
    return interactions, pl.concat(items) if items else None, raw


def dataset_of(lengths: list[int], *, num_items: int = 40, seed: int = 0, protocol: str = "leave_one_out") -> Dataset:
    """Users with so many interactions each, of random items at random times with ties."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    user = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([np.sort(rng.integers(0, 50, length)) for length in lengths])
    return Dataset(
        users=[f"u{u}" for u in range(len(lengths))],
        item_ids=[f"i{i}" for i in range(num_items)],
        titles=[""] * num_items,
        texts=[f"topic{i % 7} kind{i % 5} item{i}" for i in range(num_items)],
        item=rng.integers(0, num_items, len(user)).astype(np.int32),
        time=time,
        split=leave_one_out(user) if protocol == "leave_one_out" else chronological(user, time),
        offsets=offsets,
        fingerprint="",
        protocol=protocol,
    )


def ragged_catalog(num_items: int = 40, seed: int = 0) -> Catalog:
    """Items of one to three codes, many of which coincide or begin one another."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 3, (num_items, 3))
    codes[np.arange(3) >= rng.integers(1, 4, num_items)[:, None]] = -1
    return catalog_from_codes(codes, [3, 3, 3])


def clustered_points(seed: int = 0) -> np.ndarray:
    """3 groups of 4 subgroups of 5 points, far, near and very near each other."""
    rng = np.random.default_rng(seed)
    group, sub, noise = (
        rng.normal(size=(3, 1, 1, 6)) * 100,
        rng.normal(size=(1, 4, 1, 6)) * 5,
        rng.normal(size=(3, 4, 5, 6)),
    )
    return (group + sub + noise * 0.01).reshape(60, 6)
