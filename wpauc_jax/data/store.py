"""A prepared directory on disk: shards of interactions, items, users and a manifest. It is whole or absent."""

import json
import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl

from wpauc_jax.data.build import Prepared
from wpauc_jax.data.dataset import FORMAT_VERSION, ITEMS, MANIFEST, USERS
from wpauc_jax.data.hashing import file_digest

SHARD_ROWS = 1 << 24  # interactions in a shard, more or less: users are not divided


def write_prepared(folder: pathlib.Path, prepared: Prepared, facts: dict[str, Any]) -> None:
    """Writes a complete directory beside `folder` and renames it. `facts` join the manifest."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir()
    try:
        shards = _write_shards(partial, prepared.columns)
        prepared.items.write_parquet(partial / ITEMS, compression="zstd")
        prepared.users.to_frame("user_id").write_parquet(partial / USERS, compression="zstd")
        names = [*(shard["file"] for shard in shards), ITEMS, USERS]
        with ThreadPoolExecutor() as pool:
            hashes = dict(zip(names, pool.map(lambda name: file_digest(partial / name), names), strict=True))
        manifest = {
            "format_version": FORMAT_VERSION,
            **facts,
            "statistics": prepared.statistics,
            "shards": shards,
            "files": hashes,
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_shards(folder: pathlib.Path, columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Interactions in files of whole users; each file's name, its number of interactions and its first user."""
    user, bounds = columns["user"], [0]
    while bounds[-1] < len(user):
        end = min(bounds[-1] + SHARD_ROWS, len(user))
        bounds.append(int(np.searchsorted(user, user[end - 1], side="right")))

    def write(number: int) -> dict[str, Any]:
        start, end = bounds[number : number + 2]
        name = f"interactions-{number:05}.parquet"
        table = pl.DataFrame({column: columns[column][start:end] for column in ("user", "item", "time", "split")})
        table.write_parquet(folder / name, compression="zstd", compression_level=1, statistics=False)
        return {"file": name, "interactions": end - start, "first_user": int(user[start])}

    with ThreadPoolExecutor() as pool:
        return list(pool.map(write, range(len(bounds) - 1)))
