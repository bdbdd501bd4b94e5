"""Batches for SFT, RL and evaluation: Grain pipelines over flat positions and over pieces of sequences.

The element that Grain counts is a whole batch, built by a few NumPy calls: its overhead per element would otherwise
cost more than a small model's step. A batch is a pure function of (seed, its number), so an iterator's state is one
number, and processes that take turns at one global order share nothing and miss nothing.
"""

import functools
from collections.abc import Callable, Mapping

import grain
import numpy as np

from wpauc_jax.data.alignment import Alignment
from wpauc_jax.data.dataset import Dataset, gather_ranges
from wpauc_jax.data.pieces import Pieces, sft_pieces
from wpauc_jax.data.prompts import PromptBuilder
from wpauc_jax.data.sources.tables import DataError

Batch = dict[str, np.ndarray]

_PREFETCH = 4  # batches made ahead, so that the host works while the device does
_ENDLESS = 2**40  # batches; more than any run takes


def prompt_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    positions: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset[Batch]:
    """Samples in a new random order each epoch, for ever.

    Process i of n takes every n-th sample of one common order. `batch_size` is this process's share.

    Batch: tokens int32[B, T] padded with 0 on the right, lengths int32[B], target int32[B] (item), user int32[B],
    sample int64[B] (flat position). The iterator has `get_state` and `set_state`.
    Raises DataError if `positions` is empty.
    """
    positions = _samples(dataset, positions)
    rows = _ShuffledRows(len(positions), batch_size, seed, process_index, process_count)
    return _endless(lambda number: _prompt_batch(dataset, builder, positions[rows(number)]))


def eval_batches(
    dataset: Dataset, builder: PromptBuilder, positions: np.ndarray, batch_size: int
) -> grain.MapDataset[Batch]:
    """Samples once, in the order given. It has a length, can be indexed, and can be iterated over again.

    Batch: as in `prompt_batches`, and valid bool[B]. The last batch is filled up with its last sample, not valid.
    Raises DataError if `positions` is empty.
    """
    positions = _samples(dataset, positions)

    def batch(number: int) -> Batch:
        rows = number * batch_size + np.arange(batch_size)
        out = _prompt_batch(dataset, builder, positions[np.minimum(rows, len(positions) - 1)])
        return {**out, "valid": rows < len(positions)}

    return grain.MapDataset.range(-(-len(positions) // batch_size)).map(batch)


def sft_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    batch_size: int,
    *,
    limits: np.ndarray,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    tasks: Mapping[str, Alignment] | None = None,
) -> grain.IterDataset[Batch]:
    """Pieces of the users' training sequences (see `sft_pieces`) in a new random order each epoch, for ever.

    Batch, with M = max_history + 1 items a piece: tokens int32[B, T_sft] padded with 0 on the right, lengths
    int32[B], starts int32[B, M] (the index of the token just before item m's first), items int32[B, M] (the target,
    or -1 where item m is context or absent), user int32[B]. Where the builder does not continue, a piece has
    one target: starts and items are int32[B, 1].
    With `tasks`, also `batch_size` rows of each (see `Alignment`), items in a new random order each epoch of theirs.
    Raises DataError if no user has a training target.
    """
    pieces = sft_pieces(dataset, limits, builder)
    if not len(pieces):
        raise DataError("SFT has no row: no user has two training items; lower rl.holdout or add data")
    rows = _ShuffledRows(len(pieces), batch_size, seed, process_index, process_count)
    items = _ShuffledRows(dataset.num_items, batch_size, seed, process_index, process_count)

    def batch(number: int) -> Batch:
        out = _sft_batch(dataset, builder, pieces, rows(number))
        for task, alignment in (tasks or {}).items():
            out |= alignment.batch(task, items(number))
        return out

    return _endless(batch)


def steps_per_epoch(rows: int, batch_size: int, process_count: int = 1) -> int:
    """Batches that show each of `rows` samples or pieces at least once; the last may reach into the next epoch."""
    return -(-rows // (batch_size * process_count))


def _samples(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    positions = np.asarray(positions, np.int64)
    if not len(positions):
        raise DataError("there is no sample to make batches of: the split or the hold-out is empty")
    first = dataset.offsets[dataset.user_of(positions)]
    if (positions == first).any():
        raise DataError(f"position {positions[positions == first][0]} is a user's first interaction: it has no history")
    return positions


def _prompt_batch(dataset: Dataset, builder: PromptBuilder, positions: np.ndarray) -> Batch:
    tokens, lengths = builder.prompts(dataset.histories(positions, builder.max_history))
    return {
        "tokens": tokens,
        "lengths": lengths,
        "target": dataset.item[positions],
        "user": dataset.user_of(positions),
        "sample": positions,
    }


def _sft_batch(dataset: Dataset, builder: PromptBuilder, pieces: Pieces, rows: np.ndarray) -> Batch:
    first, width = pieces.first[rows], builder.max_history + 1
    items = gather_ranges(dataset.item, first, pieces.count[rows], width)
    tokens, lengths, starts = builder.rows(items)
    items = np.where(np.arange(width) >= pieces.context[rows, None], items, -1)
    if not builder.continues:
        last = pieces.count[rows, None] - 1
        items, starts = np.take_along_axis(items, last, axis=1), np.take_along_axis(starts, last, axis=1)
    return {
        "tokens": tokens,
        "lengths": lengths,
        "starts": starts,
        "items": items,
        "user": dataset.user_of(first),
    }


class _ShuffledRows:
    """Batch number to row numbers: epoch after epoch, each in a new random order, dealt out to the processes."""

    def __init__(self, size: int, batch_size: int, seed: int, process_index: int, process_count: int):
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index={process_index} must be in 0 .. {process_count - 1}")
        self._size = size
        self._batch_size = batch_size
        self._process = process_index, process_count
        # Two, because a batch may end one epoch and begin the next.
        self._permutation = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(size)
        )

    def __call__(self, number: int) -> np.ndarray:
        index, count = self._process
        mine = number * self._batch_size + np.arange(self._batch_size, dtype=np.int64)
        epochs, places = np.divmod(mine * count + index, self._size)
        rows = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            rows[here] = self._permutation(epoch)[places[here]]
        return rows


def _endless(batch: Callable[[int], Batch]) -> grain.IterDataset[Batch]:
    batches = grain.MapDataset.range(_ENDLESS).map(batch)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH))
