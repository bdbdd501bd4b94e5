"""Preparation at size: time and memory of `prepare` against those of merely reading the file.

python -m benchmarks.data_scale generate FILE --rows 100000000
python -m benchmarks.data_scale run FILE

The file has the layout of Amazon Reviews 2023: whole reviews if it is called .jsonl, else `user_id,parent_asin,rating,
timestamp` as CSV or, if it is called .parquet, as Parquet. There are a tenth as many users as rows and a fiftieth as
many items, both drawn with a heavy head. Reading is Polars' streaming engine that parses every column which preparation
needs and keeps its largest value; counting is the same engine that counts each user's and each item's rows, the least
that a 5-core needs. Preparation is that of the package: 5-core, leave-one-out, written and hashed. Each has a process
of its own.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from wpauc_jax.config import DataConfig
from wpauc_jax.data.make import prepare_new

_BLOCK = 2_000_000  # rows written at a time
_TEXT = "It does what it should, arrived in time, and the second one we bought was just as good as the first. " * 2
_COLUMNS = ("user_id", "parent_asin", "timestamp")
_SCHEMA = pa.schema(
    {"user_id": pa.string(), "parent_asin": pa.string(), "rating": pa.float64(), "timestamp": pa.int64()}
)


def generate(path: pathlib.Path, rows: int) -> None:
    users, items = rows // 10, rows // 50
    numbers = pl.Series(np.arange(users, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    user_ids = (
        "A" + numbers.cast(pl.String).str.zfill(20) + pl.Series(np.arange(users) % 10**7).cast(pl.String).str.zfill(7)
    )
    item_ids = "B" + pl.Series(np.arange(items) * 2654435761 % (10**9 + 7)).cast(pl.String).str.zfill(9)
    with path.open("wb") as out, contextlib.ExitStack() as stack:
        if path.suffix == ".parquet":
            parquet = stack.enter_context(pq.ParquetWriter(out, _SCHEMA))
        elif path.suffix != ".jsonl":
            out.write(b"user_id,parent_asin,rating,timestamp\n")
        for start in range(0, rows, _BLOCK):
            count, rng = min(_BLOCK, rows - start), np.random.default_rng([0, start])
            table = pl.DataFrame(
                {
                    "user_id": user_ids.gather((rng.random(count) ** 3 * users).astype(np.int64)),
                    "parent_asin": item_ids.gather((rng.random(count) ** 3 * items).astype(np.int64)),
                    "rating": rng.integers(1, 6, count).astype(float),
                    "timestamp": rng.integers(1_300_000_000_000, 1_690_000_000_000, count),
                }
            )
            if path.suffix == ".jsonl":
                table.with_columns(title=pl.lit("Good"), text=pl.lit(_TEXT), verified_purchase=True).write_ndjson(out)
            elif path.suffix == ".parquet":
                parquet.write_table(table.to_arrow().cast(_SCHEMA))
            else:
                table.write_csv(out, include_header=False)


def read(path: pathlib.Path) -> None:
    largest = _scan(path).select(pl.col(_COLUMNS).max())
    print(largest.collect(engine="streaming"), file=sys.stderr)


def count(path: pathlib.Path) -> None:
    counts = [_scan(path).group_by(name).len().select(pl.col("len").max()) for name in _COLUMNS[:2]]
    print(pl.collect_all(counts, engine="streaming"), file=sys.stderr)


def _scan(path: pathlib.Path) -> pl.LazyFrame:
    schema = {"user_id": pl.String, "parent_asin": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
    if path.suffix == ".parquet":
        return pl.scan_parquet(path)
    return pl.scan_ndjson(path, schema=schema) if path.suffix == ".jsonl" else pl.scan_csv(path, schema=schema)


def prepare(path: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        config = DataConfig(path=str(path), k_core=5)
        if path.suffix != ".jsonl":  # whole reviews are known by their fields
            config = dataclasses.replace(config, item_column="parent_asin", time_unit="ms")
        began = time.monotonic()
        prepare_new(
            config,
            pathlib.Path(folder, "prepared"),
            lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr),
        )


def run(path: pathlib.Path, repeats: int) -> None:
    """All in turns, each in a fresh process; prints the table of docs/data.md."""
    found: dict[str, list[tuple[float, float]]] = {"read": [], "count": [], "prepare": []}
    for _ in range(repeats):
        for name, results in found.items():
            command = [sys.executable, "-m", "benchmarks.data_scale", name, str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            results.append(tuple(json.loads(done.stdout.splitlines()[-1])))
    best = {name: min(results) for name, results in found.items()}
    print(f"{path.name}: {path.stat().st_size / 1e9:.1f} GB")
    for name, (seconds, memory) in best.items():
        print(f"{name:8} {seconds:7.1f} s  {memory:5.2f} GiB at most  {seconds / best['read'][0]:5.2f} x reading")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("generate", "run", "read", "count", "prepare"))
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "generate":
        generate(arguments.path, arguments.rows)
    elif arguments.what == "run":
        run(arguments.path, arguments.repeats)
    else:
        began = time.monotonic()
        {"read": read, "count": count, "prepare": prepare}[arguments.what](arguments.path)
        seconds = time.monotonic() - began
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))


if __name__ == "__main__":
    main()
