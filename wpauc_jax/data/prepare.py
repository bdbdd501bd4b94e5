"""Raw interactions to a prepared directory: repeats, k-core, splits, integer ids, hashes.

Users and items are numbered in the order of their raw ids (numbers before words, numbers by value), a user's
interactions are sorted by time, and equal times keep the order of the file. So the result does not depend on the
order of the lines as far as times tell them apart, and the same input gives the same bytes.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import fetch
from wpauc_jax.data.dataset import FORMAT_VERSION, MANIFEST, SPLITS, TABLES, Dataset, load_dataset, load_manifest
from wpauc_jax.data.sources import READERS, DataError, RawData, synthetic

# The settings that shape the prepared tables. max_history does not: it is applied to batches.
SETTINGS = ("source", "path", "k_core", "repeats", "split")

Progress = Callable[[str], None]


def prepare(config: DataConfig, directory: str | pathlib.Path, progress: Progress | None = None) -> Dataset:
    """Prepares `directory`, or re-uses it if it was prepared with the same settings.

    A prepared directory stands for itself: the files it was made from are not read again, and need not exist.
    `progress` receives one line of text a stage. The directory appears whole or not at all.

    Raises ConfigError if the directory holds something else, and DataError for input that cannot be used.
    """
    folder = pathlib.Path(directory)
    say = progress or (lambda _: None)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"data.dir={str(folder)!r} is a file; set it to a directory")
    if folder.is_dir() and any(folder.iterdir()):
        _check_reusable(config, folder)
        say(f"using the prepared data in {folder}")
        return load_dataset(folder)
    raw = _read(config, say)
    say(f"preparing {len(raw.interactions):,} interactions")
    tables, statistics = build_tables(raw, config)
    _write(folder, tables, {"settings": _settings(config), "input": dict(raw.files), "statistics": statistics})
    return load_dataset(folder)


def _read(config: DataConfig, say: Progress) -> RawData:
    """The interactions from a file, or drawn."""
    if config.source == "synthetic":
        say("drawing a synthetic world")
        return synthetic.draw(config.synthetic)
    path = config.location
    if config.source == "movielens100k" and not path:
        path = str(fetch.movielens100k(config.cache, say))
    elif not path:
        raise ConfigError(f"data.path is empty; data.source={config.source!r} needs a file or a folder")
    say(f"reading {path}")
    return READERS[config.source](path)


def _settings(config: DataConfig) -> dict[str, Any]:
    settings = {name: getattr(config, name) for name in SETTINGS}
    if config.source == "synthetic":
        settings |= {f"synthetic.{name}": value for name, value in dataclasses.asdict(config.synthetic).items()}
    return settings


def _check_reusable(config: DataConfig, folder: pathlib.Path) -> None:
    try:
        recorded = load_manifest(folder)["settings"]
    except DataError as error:
        raise ConfigError(f"{error}; empty it or set data.dir to another directory") from error
    for name, value in _settings(config).items():
        if recorded.get(name) != value:
            raise ConfigError(
                f"{folder} was prepared with data.{name}={recorded.get(name)!r}, this run has {value!r}; "
                "set data.dir (or --workdir) to another directory, or delete this one to prepare it again"
            )


def build_tables(raw: RawData, config: DataConfig) -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """The three prepared tables by file name, and the manifest's statistics. Raises DataError if nothing is left.

    The items are those that keep an interaction, with data.split=published all that are described; an item that the
    items table lacks has no title and no text.
    """
    published = config.split == "published"
    if published and "split" not in raw.interactions.columns:
        raise DataError(f"data.split='published' needs data that comes with its splits; {config.source!r} does not")
    catalogue = raw.items["item"] if published else pl.Series([], dtype=pl.String)
    user_ids, user = _factorise(raw.interactions["user"])
    item_ids, item = _factorise(raw.interactions["item"], catalogue)
    time = raw.interactions["time"].to_numpy()
    order = np.lexsort((raw.interactions["line"].to_numpy(), time, user))
    user, item, time = user[order], item[order], time[order]

    kept, repeats = _kept(user, item, config)
    user, item, time = user[kept], item[kept], time[kept]
    users, user = np.unique(user, return_inverse=True)
    if published:
        items, split = np.arange(len(item_ids)), raw.interactions["split"].to_numpy()[order]
    else:
        items, item = np.unique(item, return_inverse=True)
        split = leave_one_out(user) if config.split == "leave_one_out" else chronological(user, time)

    described = raw.items.rename({"item": "item_id"})
    item_table = pl.DataFrame({"item_id": item_ids.gather(items)}).join(
        described, on="item_id", how="left", maintain_order="left"
    )
    seconds = np.floor(time).astype(np.int64) if time.dtype.kind == "f" else time  # after sorting by the fractions
    tables = {
        "interactions.parquet": pl.DataFrame(
            {"user": user.astype(np.int32), "item": item.astype(np.int32), "time": seconds, "split": split}
        ),
        "items.parquet": item_table,
        "users.parquet": pl.DataFrame({"user_id": user_ids.gather(users)}),
    }
    statistics = _statistics(user, item, split, len(items), config)
    statistics["items_without_title"] = item_table["title"].null_count()
    statistics["dropped"] = {
        "repeats": repeats,
        "interactions_by_k_core": len(kept) - repeats - len(user),
        "users": len(user_ids) - len(users),
        "items": len(item_ids) - len(items),
        "described_items_without_interactions": len(set(described["item_id"]) - set(item_table["item_id"])),
    }
    return tables, statistics


def _kept(user: np.ndarray, item: np.ndarray, config: DataConfig) -> tuple[np.ndarray, int]:
    """Which rows, sorted by user and time, the repeats policy and then the k-core keep; and the repeats dropped."""
    kept = np.ones(len(user), bool) if config.repeats == "keep" else _first_meetings(user, item)
    repeats = len(user) - int(kept.sum())
    kept[kept] = k_core(user[kept], item[kept], config.k_core)
    if not kept.any():
        raise DataError(
            f"nothing is left of {len(user)} interactions when every user and every item must have "
            f"data.k_core={config.k_core}; lower it"
        )
    return kept, repeats


def _factorise(ids: pl.Series, others: pl.Series | None = None) -> tuple[pl.Series, np.ndarray]:
    """The distinct ids, `others` included, numbers by value and then words; and the place of each of `ids` in them."""
    distinct = ids.unique() if others is None else pl.concat([ids.rename(""), others.rename("")]).unique()
    distinct = pl.Series("id", sorted(distinct.to_list(), key=_id_key), pl.String)
    place = pl.DataFrame({"id": distinct, "place": np.arange(len(distinct), dtype=np.int32)})
    rows = pl.DataFrame({"id": ids}).join(place, on="id", how="left", maintain_order="left")
    return distinct, rows["place"].to_numpy()


def _id_key(raw: str) -> tuple[int, int, str, str]:
    if not (raw.isascii() and raw.isdigit()):
        return 1, 0, "", raw
    digits = raw.lstrip("0")  # compared as text: an id may have more digits than int() takes
    return 0, len(digits), digits, raw


def _first_meetings(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Where a user meets an item for the first time, in rows sorted by user and time."""
    pair = user.astype(np.int64) * (int(item.max()) + 1) + item
    _, first = np.unique(pair, return_index=True)
    out = np.zeros(len(user), bool)
    out[first] = True
    return out


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """The largest set of rows in which every user and every item has at least k: bool[n], whatever the row order."""
    alive = np.ones(len(user), bool)
    while alive.any():
        enough = (np.bincount(user, alive) >= k)[user] & (np.bincount(item, alive) >= k)[item]
        if enough[alive].all():
            break
        alive &= enough
    return alive


def leave_one_out(user: np.ndarray) -> np.ndarray:
    """int8[n]: each user's last row is test, the one before it valid; users with fewer than 3 rows are all train.

    Rows are sorted by user (0 .. U-1, none absent) and then by time. Raises DataError if no user has 3.
    """
    counts = np.bincount(user)
    ends = np.cumsum(counts)[counts >= 3]
    if not len(ends):
        raise DataError("the valid and test splits are empty: no user has 3 interactions; use data.split=chronological")
    split = np.zeros(len(user), np.int8)
    split[ends - 2] = 1
    split[ends - 1] = 2
    return split


def chronological(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int8[n]: the first 80% of all samples on the common time line are train, the next 10% valid, the rest test.

    Rows are sorted by user (0 .. U-1, none absent) and time; equal times stay in that order. A user's first row is
    no sample; it belongs to the period in which it falls. Raises DataError if a split would be empty.
    """
    in_time = np.argsort(time, kind="stable")
    is_sample = np.ones(len(user), bool)
    is_sample[np.searchsorted(user, np.arange(user[-1] + 1))] = False
    seen = np.cumsum(is_sample[in_time])  # samples up to and with this row
    total = int(seen[-1])
    train, valid = total * 8 // 10, total * 9 // 10
    if not 0 < train < valid < total:
        raise DataError(f"{total} samples cannot be split 8:1:1: a split would be empty; lower data.k_core or add data")
    split = np.empty(len(user), np.int8)
    before = seen - is_sample[in_time]  # samples before this row
    split[in_time] = (before >= train).astype(np.int8) + (before >= valid)
    return split


def _statistics(
    user: np.ndarray, item: np.ndarray, split: np.ndarray, num_items: int, config: DataConfig
) -> dict[str, Any]:
    lengths = np.bincount(user)
    popularity = np.bincount(item, minlength=num_items)
    is_sample = np.ones(len(user), bool)
    is_sample[np.cumsum(lengths) - lengths] = False
    return {
        "users": len(lengths),
        "items": len(popularity),
        "interactions": len(user),
        "density": len(user) / (len(lengths) * len(popularity)),
        "mean_user_length": float(lengths.mean()),
        "mean_item_count": float(popularity.mean()),
        "protocol": config.split,
        "samples": {name: int((is_sample & (split == code)).sum()) for code, name in enumerate(SPLITS)},
        "users_without_history": int((lengths == 1).sum()),
        "items_without_training": int((np.bincount(item, split == 0, num_items) == 0).sum()),
    }


def _write(folder: pathlib.Path, tables: dict[str, pl.DataFrame], manifest: dict[str, Any]) -> None:
    """Writes a complete directory beside `folder` and renames it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir()
    try:
        for name in TABLES:
            tables[name].write_parquet(partial / name, compression="zstd")
        hashes = {name: hashlib.sha256((partial / name).read_bytes()).hexdigest() for name in TABLES}
        manifest = {"format_version": FORMAT_VERSION, **manifest, "files": hashes}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
