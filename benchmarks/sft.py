"""SFT's throughput: rows of packed pieces against one piece a row, and the input pipeline against the step.

    python -m benchmarks.sft
    python -m benchmarks.sft --users 50000 --max-history 20
    python -m benchmarks.sft --peer --peer-python=PYTHON        # packed rows against Hugging Face with PyTorch
    python -m benchmarks.sft --shape=qwen05 --batch-tokens=1024 --steps=1 --turns=3 --peer --peer-batch=4 --peer-steps=1

Sequences of 5 items and more, geometric, 15 in the mean, over the mini shape's catalog and model. Both ways take
turns in one run, with about as many tokens in a batch. Useful tokens are those of pieces, not padding. `waits` is the
share of a run's time in which the loop stood waiting for the pipeline's next batch. With --peer the packed rows take
turns with the peer, which has a row a target, padded to the longest of its batch, with AdamW
(`benchmarks/peer_hf.py`). Both are compared by targets a second.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.measure import median
from benchmarks.peer import Peer
from benchmarks.setup import model_config
from benchmarks.shapes import SHAPES, Shape, make_catalog, sequence_lengths
from wpauc_jax.batches.packing import Packing
from wpauc_jax.batches.pipeline import sft_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import SftRows, sft_rows
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import ModelConfig, OptimConfig
from wpauc_jax.data.dataset import Dataset
from wpauc_jax.decode import Ranker
from wpauc_jax.models import init
from wpauc_jax.runtime.sharding import place_batch
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state


def sequences(users: int, shape: Shape, seed: int = 0) -> Dataset:
    """Users without names; every interaction is training."""
    counts = sequence_lengths(users, seed)
    rng = np.random.default_rng(seed + 1)
    item = rng.integers(0, shape.items, counts.sum()).astype(np.int32)
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

    def __init__(self, rows: SftRows, tokens: int, model: ModelConfig):
        self.rows, self.batch_size = rows, max(tokens // rows.packing.row_tokens, 1)
        catalog = rows.builder.catalog
        policy, params = init(model)
        ranker = Ranker(policy, build_trie(catalog.sequences()))
        optimizer = make_optimizer(OptimConfig(), 1000)
        self._step = make_sft_step(ranker, optimizer)
        self._state = init_state(params, optimizer)
        self._batches = iter(sft_batches(rows, self.batch_size, seed=0))
        self.run(2)  # compiles

    def run(self, steps: int) -> dict[str, float]:
        """Useful tokens and targets a second, and the share of time spent waiting for batches."""
        waited, useful, targets, start = 0.0, 0, 0, time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            fed = next(self._batches)
            waited += time.perf_counter() - asked
            useful += int((fed.batch.segments > 0).sum())
            targets += int((fed.batch.items >= 0).sum())
            self._state, _ = jax.block_until_ready(self._step(self._state, place_batch(fed.batch)))
        total = time.perf_counter() - start
        return {"tokens_per_s": useful / total, "targets_per_s": targets / total, "waits": waited / total}

    def pipeline_seconds(self, batches: int) -> float:
        """Seconds in which the pipeline alone makes one batch."""
        iterator = iter(sft_batches(self.rows, self.batch_size, seed=1))
        next(iterator)
        start = time.perf_counter()
        for _ in itertools.islice(iterator, batches):
            pass
        return (time.perf_counter() - start) / batches


def ways(
    shape: Shape,
    model: ModelConfig,
    *,
    users: int,
    max_history: int,
    batch_tokens: int,
    names: Sequence[str] = ("packed", "one_a_row"),
) -> dict[str, Way]:
    """The ways of those names on the same sequences."""
    codes = make_catalog(shape) - make_catalog(shape).min(axis=0)
    catalog = catalog_from_codes(codes, [shape.codes] * shape.levels)
    dataset = sequences(users, shape)
    packed = sft_rows(dataset, PromptBuilder(catalog, max_history), np.diff(dataset.offsets))
    rows = {"packed": packed, "one_a_row": one_a_row(packed)}
    return {name: Way(rows[name], batch_tokens, model) for name in names}


def peer_targets(peer: Peer, steps: int) -> float:
    """Targets a second of the peer over some steps."""
    done = [peer.step() for _ in range(steps)]
    return sum(step["targets"] for step in done) / sum(step["step_s"] for step in done)


def compare(names: tuple[str, str], turns: dict[str, list[dict[str, float]]], key: str) -> dict[str, Any]:
    """How many times as fast the first way is: the median of the turns and their spread."""
    ratios = [one[key] / other[key] for one, other in zip(*(turns[name] for name in names), strict=True)]
    return {"ratio": median(ratios), "ratio_spread": [min(ratios), max(ratios)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="mini")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON object: fields of the shape to replace")
    parser.add_argument("--model", type=json.loads, default={}, help="JSON object: fields of ModelConfig to replace")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--max-history", type=int, default=10)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--peer-batch", type=int, default=64, help="rows of the peer's step, a target each")
    parser.add_argument("--peer-steps", type=int, default=2, help="in a turn")
    options = parser.parse_args()

    shape = dataclasses.replace(SHAPES[options.shape], **options.set)
    sizes = {name: getattr(options, name) for name in ("users", "max_history", "batch_tokens")}
    names = ("packed",) if options.peer else ("packed", "one_a_row")  # each keeps a training state
    found = ways(shape, dataclasses.replace(model_config(shape), **options.model), **sizes, names=names)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in found}
    with contextlib.ExitStack() as stack:
        peer = None
        if options.peer:
            flags = ("--task=sft", f"--max-history={options.max_history}")
            peer = Peer(options.peer_python, dataclasses.replace(shape, users=options.peer_batch), *flags)
            stack.callback(peer.close)
            peer_targets(peer, 1)
            turns["peer"] = []
        for _ in range(options.turns):
            for name, way in found.items():
                turns[name].append(way.run(options.steps))
            if peer:
                turns["peer"].append({"targets_per_s": peer_targets(peer, options.peer_steps)})
    result: dict[str, Any] = {"shape": dataclasses.asdict(shape)}
    for name, runs in turns.items():
        result[name] = {key: median([turn[key] for turn in runs]) for key in runs[0]}
        print(name, {key: round(value, 4) for key, value in result[name].items()})
    for name, way in found.items():
        facts = {"row_tokens": way.rows.packing.row_tokens, "waste": way.rows.packing.waste}
        result[name] |= facts | {"batch_size": way.batch_size, "pipeline_s": way.pipeline_seconds(50)}
    if options.peer:
        result["peer"] |= compare(("packed", "peer"), turns, "targets_per_s")
    else:
        result |= compare(("packed", "one_a_row"), turns, "tokens_per_s")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
