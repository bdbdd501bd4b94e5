"""Batches for SFT, RL and evaluation: Grain pipelines over flat positions and over pieces of sequences.

The element that Grain counts is a whole batch, built by a few NumPy calls: its overhead per element would otherwise
cost more than a small model's step. A batch is a pure function of (seed, its number). So an iterator's state is one
number, the same in every process: each makes only the rows of the global batch that its devices hold, and the batch
is the same for any number of processes.
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
    rows: np.ndarray | None = None,
) -> grain.IterDataset[Batch]:
    """Samples in a new random order each epoch, for ever.

    `batch_size` is that of the global batch; `rows` int[B] are those of it that this process makes, None for all.

    Batch: tokens int32[B, T] padded with 0 on the right, lengths int32[B], target int32[B] (item), user int32[B],
    sample int64[B] (flat position). The iterator has `get_state` and `set_state`.
    Raises DataError if `positions` is empty.
    """
    positions = _samples(dataset, positions)
    shuffled = _ShuffledRows(len(positions), batch_size, seed, rows)
    return _endless(lambda number: _prompt_batch(dataset, builder, positions[shuffled(number)]))


def eval_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    positions: np.ndarray,
    batch_size: int,
    *,
    rows: np.ndarray | None = None,
) -> grain.MapDataset[Batch]:
    """Samples once, in the order given. It has a length, can be indexed, and can be iterated over again.

    Batch: as in `prompt_batches`, and valid bool[B]. The last batch is filled up with its last sample, not valid.
    `rows` are those of a global batch whose prompts (tokens and lengths) this process makes, None for all; target,
    user, sample and valid are always the global batch's.
    Raises DataError if `positions` is empty.
    """
    positions = _samples(dataset, positions)

    def batch(number: int) -> Batch:
        places = number * batch_size + np.arange(batch_size)
        samples = positions[np.minimum(places, len(positions) - 1)]
        prompts = _prompts(dataset, builder, samples if rows is None else samples[rows])
        return {**prompts, **_sample_ids(dataset, samples), "valid": places < len(positions)}

    return grain.MapDataset.range(-(-len(positions) // batch_size)).map(batch)


def sft_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    batch_size: int,
    *,
    limits: np.ndarray,
    seed: int,
    rows: np.ndarray | None = None,
    tasks: Mapping[str, Alignment] | None = None,
) -> grain.IterDataset[Batch]:
    """Pieces of the users' training sequences (see `sft_pieces`) in a new random order each epoch, for ever.

    `batch_size` and `rows`: as in `prompt_batches`.

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
    shuffled = _ShuffledRows(len(pieces), batch_size, seed, rows)
    items = _ShuffledRows(dataset.num_items, batch_size, seed, rows)

    def batch(number: int) -> Batch:
        out = _sft_batch(dataset, builder, pieces, shuffled(number))
        for task, alignment in (tasks or {}).items():
            out |= alignment.batch(task, items(number))
        return out

    return _endless(batch)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Batches that show each of `rows` samples or pieces at least once; the last may reach into the next epoch."""
    return -(-rows // batch_size)


def _samples(dataset: Dataset, positions: np.ndarray) -> np.ndarray:
    positions = np.asarray(positions, np.int64)
    if not len(positions):
        raise DataError("there is no sample to make batches of: the split or the hold-out is empty")
    first = dataset.offsets[dataset.user_of(positions)]
    if (positions == first).any():
        raise DataError(f"position {positions[positions == first][0]} is a user's first interaction: it has no history")
    return positions


def _prompt_batch(dataset: Dataset, builder: PromptBuilder, positions: np.ndarray) -> Batch:
    return {**_prompts(dataset, builder, positions), **_sample_ids(dataset, positions)}


def _prompts(dataset: Dataset, builder: PromptBuilder, positions: np.ndarray) -> Batch:
    tokens, lengths = builder.prompts(dataset.histories(positions, builder.max_history))
    return {"tokens": tokens, "lengths": lengths}


def _sample_ids(dataset: Dataset, positions: np.ndarray) -> Batch:
    return {"target": dataset.item[positions], "user": dataset.user_of(positions), "sample": positions}


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
    """Batch number to sample numbers: epoch after epoch, each in a new random order; of each batch, `rows`."""

    def __init__(self, size: int, batch_size: int, seed: int, rows: np.ndarray | None):
        self._size = size
        self._batch_size = batch_size
        self._rows = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
        if not ((self._rows >= 0) & (self._rows < batch_size)).all():
            raise ValueError(f"rows {self._rows.tolist()} are not all in a batch of {batch_size}")
        # Two, because a batch may end one epoch and begin the next.
        self._permutation = functools.lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng([seed, epoch]).permutation(size)
        )

    def __call__(self, number: int) -> np.ndarray:
        epochs, places = np.divmod(number * self._batch_size + self._rows, self._size)
        samples = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            samples[here] = self._permutation(epoch)[places[here]]
        return samples


def _endless(batch: Callable[[int], Batch]) -> grain.IterDataset[Batch]:
    batches = grain.MapDataset.range(_ENDLESS).map(batch)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH))
