"""SFT's throughput: rows of packed pieces against one piece a row, and the input pipeline against the step.

    python -m benchmarks.sft
    python -m benchmarks.sft --users 50000 --max-history 20

Sequences of 5 items and more, geometric, 15 in the mean, over the mini shape's catalog and model. Both ways take
turns in one run, with about as many tokens in a batch. Useful tokens are those of pieces, not padding. `waits` is the
share of a run's time in which the loop stood waiting for the pipeline's next batch.
"""

import argparse
import dataclasses
import itertools
import json
import time

import jax
import numpy as np

from benchmarks.measure import median
from benchmarks.setup import model_config
from benchmarks.shapes import SHAPES, make_catalog
from wpauc_jax.batches.packing import Packing
from wpauc_jax.batches.pipeline import sft_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import SftRows, sft_rows
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import OptimConfig
from wpauc_jax.data.dataset import Dataset
from wpauc_jax.decode import Ranker
from wpauc_jax.models import init
from wpauc_jax.runtime.sharding import place_batch
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

SHAPE = SHAPES["mini"]


def sequences(users: int, seed: int = 0) -> Dataset:
    """Users without names; every interaction is training."""
    rng = np.random.default_rng(seed)
    counts = 4 + rng.geometric(1 / 11, users)
    item = rng.integers(0, SHAPE.items, counts.sum()).astype(np.int32)
    offsets = np.concatenate([[0], counts.cumsum()])
    nothing = np.zeros(len(item), np.int8)
    return Dataset([], [], [], [], item, np.arange(len(item)), nothing, offsets, fingerprint="benchmark")


def one_a_row(packed: SftRows) -> SftRows:
    """The same pieces, each in a row of its own."""
    lengths = packed.pieces.tokens
    layout = np.sort(lengths).astype(np.int32)[:, None]
    targets = (packed.pieces.count - packed.pieces.context).max()
    return dataclasses.replace(packed, packing=Packing(int(lengths.max()), layout), max_targets=int(targets))


class Way:
    """SFT on one kind of rows."""

    def __init__(self, rows: SftRows, tokens: int):
        self.rows, self.batch_size = rows, max(tokens // rows.packing.row_tokens, 1)
        catalog = rows.builder.catalog
        policy, params = init(model_config(SHAPE))
        ranker = Ranker(policy, build_trie(catalog.sequences()))
        optimizer = make_optimizer(OptimConfig(), 1000)
        self._step = make_sft_step(ranker, optimizer)
        self._state = init_state(params, optimizer)
        self._batches = iter(sft_batches(rows, self.batch_size, seed=0))
        self.run(2)  # compiles

    def run(self, steps: int) -> dict[str, float]:
        """Useful tokens a second, and the share of time spent waiting for batches."""
        waited, useful, start = 0.0, 0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            fed = next(self._batches)
            waited += time.perf_counter() - asked
            useful += int((fed.batch.segments > 0).sum())
            self._state, _ = jax.block_until_ready(self._step(self._state, place_batch(fed.batch)))
        total = time.perf_counter() - start
        return {"tokens_per_s": useful / total, "waits": waited / total}

    def pipeline_seconds(self, batches: int) -> float:
        """Seconds in which the pipeline alone makes one batch."""
        iterator = iter(sft_batches(self.rows, self.batch_size, seed=1))
        next(iterator)
        start = time.perf_counter()
        for _ in itertools.islice(iterator, batches):
            pass
        return (time.perf_counter() - start) / batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--max-history", type=int, default=10)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()

    codes = make_catalog(SHAPE) - make_catalog(SHAPE).min(axis=0)
    catalog = catalog_from_codes(codes, [SHAPE.codes] * SHAPE.levels)
    dataset = sequences(options.users)
    packed = sft_rows(dataset, PromptBuilder(catalog, options.max_history), np.diff(dataset.offsets))
    ways = {"packed": Way(packed, options.batch_tokens), "one_a_row": Way(one_a_row(packed), options.batch_tokens)}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.turns):
        for name, way in ways.items():
            turns[name].append(way.run(options.steps))
    result: dict[str, object] = {}
    for name, way in ways.items():
        found = {key: median([turn[key] for turn in turns[name]]) for key in ("tokens_per_s", "waits")}
        found |= {"row_tokens": way.rows.packing.row_tokens, "waste": way.rows.packing.waste}
        result[name] = found | {"batch_size": way.batch_size, "pipeline_s": way.pipeline_seconds(50)}
        print(name, {key: round(value, 4) for key, value in found.items()})
    ratios = [a["tokens_per_s"] / b["tokens_per_s"] for a, b in zip(*turns.values(), strict=True)]
    print(json.dumps(result | {"ratio": median(ratios), "ratio_spread": [min(ratios), max(ratios)]}))


if __name__ == "__main__":
    main()
