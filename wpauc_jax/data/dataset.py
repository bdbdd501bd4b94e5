"""A prepared directory in memory: every user's interactions in the order of time, in flat arrays.

A sample is a flat position p. Its target is `item[p]`. Its user is the one whose range holds p. Its history is what
stands before p in that range. A sample has this one id, and nothing is looked up by its text.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wpauc_jax.data.errors import DataError
from wpauc_jax.data.hashing import file_digest, read_file

SPLITS = ("train", "valid", "test")  # in the order of time
FORMAT_VERSION = 2
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # units of `time`, where the data have a clock
MANIFEST = "manifest.json"
ITEMS, USERS = "items.parquet", "users.parquet"


class Ids(Sequence[str]):
    """Raw ids in one block of memory, for many: as Python objects ten million take a gigabyte."""

    def __init__(self, ids: pa.Array | pa.ChunkedArray):
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return (each.as_py() for each in self._ids)

    def __getitem__(self, number: Any) -> Any:
        return Ids(self._ids[number]) if isinstance(number, slice) else self._ids[int(number)].as_py()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """U users, I items, n interactions, sorted by user and then by time.

    Within a user the splits are consecutive: a train prefix, then valid, then test.
    """

    users: Sequence[str]  # U raw ids
    item_ids: list[str]  # I raw ids
    titles: list[str]  # I, "" where unknown
    texts: list[str]  # I, "" where unknown
    item: np.ndarray  # int32[n]
    time: np.ndarray  # int64[n]
    split: np.ndarray  # int8[n], an index into SPLITS
    offsets: np.ndarray  # int64[U + 1], user u's range is offsets[u] .. offsets[u + 1] - 1
    fingerprint: str  # sha256 over the hashes of the prepared tables
    protocol: str = "leave_one_out"  # data.split
    ticks: int = 0  # what `time` counts in a second; 0: the data have an order, and no clock

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    def whole(self) -> "Dataset":
        """This data set: see `Items.whole`."""
        return self

    def user_of(self, positions: np.ndarray) -> np.ndarray:
        """The users int32 of flat positions."""
        return (np.searchsorted(self.offsets, positions, side="right") - 1).astype(np.int32)

    def histories(self, positions: np.ndarray, limit: int) -> np.ndarray:
        """The up to `limit` items before each position: int32[B, limit], in time order, -1 behind the last one."""
        positions = np.asarray(positions, np.int64)
        first = np.maximum(self.offsets[self.user_of(positions)], positions - limit)
        return gather_ranges(self.item, first, positions - first, limit)

    def seconds(self, first: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
        """When the `counts` interactions from positions `first` on were, since the first of them: int32[B, width].

        Raises DataError for data without a clock.
        """
        if not self.ticks:
            raise DataError("model.time_buckets needs times, and these data only have an order; set it to 0")
        times = gather_ranges(self.time, first, counts, width)
        since = (times - times[:, :1]) // self.ticks
        return np.where(np.arange(width) < counts[:, None], np.minimum(since, 2**31 - 1), 0).astype(np.int32)

    def train_lengths(self) -> np.ndarray:
        """How many leading interactions of each user are training: int64[U]."""
        before = np.concatenate([[0], np.cumsum(self.split == 0)])
        return before[self.offsets[1:]] - before[self.offsets[:-1]]


@dataclasses.dataclass(frozen=True)
class Items:
    """What a prepared directory says of its items: all that is needed where nothing is trained."""

    folder: pathlib.Path
    item_ids: list[str]  # I raw ids
    titles: list[str]  # I, "" where unknown
    fingerprint: str  # as `Dataset.fingerprint`

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    def whole(self) -> Dataset:
        """The directory's data set, read when it is asked for."""
        return load_dataset(self.folder)


def gather_ranges(values: np.ndarray, first: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """Row b is `values[first[b] : first[b] + counts[b]]`, then -1 up to `width`."""
    column = np.arange(width)
    exists = column < counts[:, None]
    index = np.where(exists, first[:, None] + column, 0)
    return np.where(exists, values[index], -1).astype(values.dtype)


def distinct_counts(rows: np.ndarray) -> np.ndarray:
    """How many different items each row of int[B, M] holds, -1 being none: int32[B]."""
    ordered = np.sort(rows, axis=1)
    new = np.ones(rows.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (new & (ordered >= 0)).sum(1, dtype=np.int32)


def repeats(dataset: Dataset) -> np.ndarray:
    """bool[n]: which interactions are of an item that the same user has earlier."""
    pair = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets)) * dataset.num_items + dataset.item
    order = np.argsort(pair, kind="stable")  # equal pairs in the order of time
    again = np.zeros(len(pair), bool)
    again[order[1:]] = pair[order[1:]] == pair[order[:-1]]
    return again


def positions(dataset: Dataset, split_name: str) -> np.ndarray:
    """The samples int64 of a split ("train", "valid" or "test"): its positions that have a history, ascending."""
    if split_name not in SPLITS:
        raise ValueError(f"split {split_name!r} is unknown; choose one of {', '.join(SPLITS)}")
    chosen = dataset.split == SPLITS.index(split_name)
    chosen[dataset.offsets[:-1]] = False  # a user's first interaction has nothing before it
    return np.flatnonzero(chosen)


def train_rows(dataset: Dataset, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the latest `fraction` of the training samples out of SFT.

    leave_one_out: the latest of each user's samples, rounded down, but at least one of a user with three or more
    training items. chronological, published: the latest on the common time line, rounded down.

    Returns limits int64[U], the number of leading items of each user that SFT may use, and the held-out samples
    int64, ascending. fraction = 0 holds out nothing.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction={fraction} must be at least 0 and below 1")
    held_out = HOLDERS[dataset.protocol](dataset, fraction)
    held = np.bincount(dataset.user_of(held_out), minlength=dataset.num_users)
    return dataset.train_lengths() - held, held_out


def _latest_of_all(dataset: Dataset, fraction: float) -> np.ndarray:
    """The latest training samples on the common time line."""
    samples = positions(dataset, "train")
    in_time = samples[np.argsort(dataset.time[samples], kind="stable")]
    return np.sort(in_time[len(samples) - _share(len(samples), fraction) :])


def _latest_of_each(dataset: Dataset, fraction: float) -> np.ndarray:
    """The latest training samples of each user."""
    lengths = dataset.train_lengths()
    held = _share(np.maximum(lengths - 1, 0), fraction)
    if fraction > 0:
        held = np.where(lengths >= 3, np.maximum(held, 1), held)
    counts = np.diff(dataset.offsets)
    place = np.arange(len(dataset.item)) - np.repeat(dataset.offsets[:-1], counts)
    return np.flatnonzero((place >= np.repeat(lengths - held, counts)) & (dataset.split == 0))


# By data.split: which training samples are kept out of SFT, ascending.
HOLDERS: dict[str, Callable[[Dataset, float], np.ndarray]] = {
    "leave_one_out": _latest_of_each,
    "chronological": _latest_of_all,
    "published": _latest_of_all,
}


def _share(count: Any, fraction: float) -> Any:
    # The tolerance keeps 0.2 * 15 = 3.0000000000000004 and 0.29 * 100 = 28.999999999999996 whole.
    return np.floor(count * fraction + 1e-9).astype(np.int64)


def load_dataset(directory: str | pathlib.Path) -> Dataset:
    """Reads a prepared directory and checks every file against the manifest's hashes.

    Raises DataError for a directory that is not prepared, or a file that is missing or changed.
    """
    folder = pathlib.Path(directory)
    manifest = load_manifest(folder)
    _check_files(folder, manifest["files"])
    interactions = pa.concat_tables([_table(folder / shard["file"]) for shard in manifest["shards"]])
    items, users = _table(folder / ITEMS), _table(folder / USERS)
    counts = np.bincount(interactions["user"].to_numpy(), minlength=len(users))
    return Dataset(
        users=Ids(users["user_id"]),
        item_ids=items["item_id"].to_pylist(),
        titles=_texts(items["title"]),
        texts=_texts(items["text"]),
        item=interactions["item"].to_numpy(),
        time=interactions["time"].to_numpy(),
        split=interactions["split"].to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        fingerprint=fingerprint_of(manifest),
        protocol=manifest["settings"]["split"],
        ticks=PER_SECOND.get(manifest.get("time_unit", ""), 0),
    )


def load_items(directory: str | pathlib.Path) -> Items:
    """The items of a prepared directory, without its interactions. Raises DataError as `load_dataset`."""
    folder = pathlib.Path(directory)
    manifest = load_manifest(folder)
    _check_files(folder, {ITEMS: manifest["files"][ITEMS]})
    items = _table(folder / ITEMS)
    return Items(folder, items["item_id"].to_pylist(), _texts(items["title"]), fingerprint_of(manifest))


def _table(path: pathlib.Path) -> pa.Table:
    return pq.read_table(path, partitioning=None)  # the names of folders are no columns


def _texts(column: pa.ChunkedArray) -> list[str]:
    """The column's texts, "" where there is none."""
    return [text or "" for text in column.to_pylist()]


def _check_files(folder: pathlib.Path, hashes: dict[str, str]) -> None:
    for name, digest in hashes.items():
        if file_digest(folder / name) != digest:
            raise DataError(f"{folder / name} is not what was prepared (its hash differs); delete {folder} and prepare")


def load_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a prepared directory. Raises DataError if there is none, or one of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder} is not a prepared directory: it has no {MANIFEST}")
    try:
        manifest = json.loads(read_file(path))
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged; delete {folder} and prepare again") from error
    if version != FORMAT_VERSION:
        raise DataError(f"{folder} has format {version}, this program reads {FORMAT_VERSION}; delete it and prepare")
    return manifest


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """One hash for the prepared tables."""
    return hashlib.sha256("".join(manifest["files"].values()).encode()).hexdigest()
