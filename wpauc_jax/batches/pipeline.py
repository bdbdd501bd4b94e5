"""Batches for SFT, RL and evaluation, made by Grain pipelines.

The element that Grain counts is a whole batch, which a few NumPy calls build. If an element were one row, Grain's work
for each element would cost more than a small model's step.

A batch depends on the seed and on its number, and on nothing else. So the state of an iterator is one number, and it is
the same in every process. Each process makes only those rows of the batch that its devices hold.

`prompt.widths` may give a batch of prompts several widths. Then prompts of about the same length share a batch. An
evaluation sorts all its prompts by length. Training sorts those of a window of batches. Each width is compiled once.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import grain
import numpy as np

from wpauc_jax.batches.history_tasks import HistoryTask
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import SftRows
from wpauc_jax.batches.title_tasks import Alignment
from wpauc_jax.batches.types import EvalBatch, Fed, PromptBatch, RlBatch, RowIds, SftBatch
from wpauc_jax.data.dataset import Dataset, distinct_counts
from wpauc_jax.data.errors import DataError

Element = TypeVar("Element")

_PREFETCH = 4  # batches made ahead, so that the host works while the device does
_ENDLESS = 2**40  # batches; more than any run takes
_AT_ONCE = 65_536  # samples whose lengths are looked up together
_WINDOW = 16  # batches of RL among which prompts are sorted by length


def prompt_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    positions: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    rows: np.ndarray | None = None,
    later: Callable[[np.ndarray], np.ndarray] | None = None,
    judge: PromptBuilder | None = None,
) -> grain.IterDataset[Fed[RlBatch]]:
    """Samples in a new random order each epoch, for ever.

    `batch_size` is that of the global batch; `rows` int[B] are those of it that this process makes, None for all.
    `later` gives what users take after samples (`data.later.Later`). `judge` makes prompts for the model of the reward.

    The iterator has `get_state` and `set_state`.
    Raises DataError if `positions` is empty.
    """
    samples, mine = _samples(dataset, positions), _checked(rows, batch_size)
    longest = _longest_history(dataset, samples)
    if len(builder.widths) > 1:
        chosen = _like_lengths(dataset, builder, samples, batch_size, seed)
    else:
        chosen = _shuffled(samples, batch_size, seed, None)

    def batch(number: int) -> Fed[RlBatch]:
        everyones = chosen(number)
        own = everyones[mine]
        prompts = _prompts(dataset, builder, everyones, own, longest)
        follow = later(own) if later else None
        second = _without_exclusion(dataset, judge, own) if judge else None
        return Fed(RlBatch(prompts, dataset.item[own], follow, second), RowIds(dataset.user_of(own), own))

    return _endless(batch)


def eval_batches(
    dataset: Dataset,
    builder: PromptBuilder,
    positions: np.ndarray,
    batch_size: int,
    *,
    rows: np.ndarray | None = None,
    shown: np.ndarray | None = None,
) -> grain.MapDataset[EvalBatch]:
    """Samples once, in the order given, or by the lengths of their prompts where these may have several widths.

    It has a length, can be indexed, and can be iterated over again.

    The last batch is filled up with its last sample, not valid. `rows` are those of a global batch whose prompts this
    process makes, None for all. `shown` are positions before which the prompts stand, one for each sample; None: the
    samples' own.
    Raises DataError if `positions` is empty.
    """
    positions, mine = _samples(dataset, positions), _checked(rows, batch_size)
    asked = positions if shown is None else _samples(dataset, shown)
    longest = _longest_history(dataset, asked)
    if len(builder.widths) > 1:
        order = np.argsort(_lengths(dataset, builder, asked), kind="stable")
        positions, asked = positions[order], asked[order]

    def batch(number: int) -> EvalBatch:
        places = number * batch_size + np.arange(batch_size)
        chosen = np.minimum(places, len(positions) - 1)
        samples, before = positions[chosen], asked[chosen]
        prompts = _prompts(dataset, builder, before, before[mine], longest)
        if builder.guide:
            beside = _without_exclusion(dataset, builder.guide, before[mine])
            prompts = _guided(prompts, beside)
        left_out = np.zeros(batch_size, np.int32)
        if builder.exclude_history:
            left_out = distinct_counts(dataset.histories(before, longest))
        ids = RowIds(dataset.user_of(samples), samples)
        return EvalBatch(prompts, dataset.item[samples], places < len(positions), left_out, ids)

    return grain.MapDataset.range(-(-len(positions) // batch_size)).map(batch)


def history_batches(
    builder: PromptBuilder,
    histories: Sequence[np.ndarray],
    batch_size: int,
    *,
    rows: np.ndarray | None = None,
    left_out: Sequence[np.ndarray] | None = None,
    left_out_width: int = 0,
) -> Iterator[PromptBatch]:
    """The prompts of histories of items in time order, as they stand; empty histories fill the last batch up.

    `left_out` are the items that may not answer each of them: by default the histories, where the builder leaves these
    out, and otherwise none. They are padded to `left_out_width`, or to a power of two, so that few programs serve all
    calls.

    `rows` are those of a global batch that this process makes, None for all.
    """
    mine = _checked(rows, batch_size)
    if left_out is None and builder.exclude_history:
        left_out = histories
    longest = max((len(items) for items in left_out or ()), default=1)
    width = left_out_width or 1 << (longest - 1).bit_length()
    for start in range(0, len(histories), batch_size):
        some = histories[start : start + batch_size]
        items = _beside(some, batch_size, builder.max_history)
        excluded = None
        if left_out is not None:
            excluded = _beside(left_out[start : start + batch_size], batch_size, width)[mine]
        prompts = _laid_out(builder, items[mine], builder.lengths(items).max(), excluded)
        if builder.guide:
            recent = _beside(some, batch_size, builder.guide.max_history)[mine]
            prompts = _guided(prompts, _laid_out(builder.guide, recent, builder.guide.max_tokens, None))
        yield prompts


def _beside(histories: Sequence[np.ndarray], rows: int, width: int) -> np.ndarray:
    """The last `width` items of each history: int32[rows, width], -1 behind the last item."""
    items = np.full((rows, width), -1, np.int32)
    for row, history in zip(items, histories, strict=False):
        recent = history[-width:]
        row[: len(recent)] = recent
    return items


def sft_batches(
    packed: SftRows,
    batch_size: int,
    *,
    seed: int,
    rows: np.ndarray | None = None,
    tasks: Mapping[str, Alignment | HistoryTask] | None = None,
) -> grain.IterDataset[Fed[SftBatch]]:
    """Rows of packed pieces, put together anew and in a new random order each epoch, for ever.

    `batch_size` and `rows`: as in `prompt_batches`. With `tasks`, also `batch_size` rows of each, in a new random order
    each epoch of theirs.
    """
    shuffled = _Epochs(len(packed), batch_size, functools.partial(packed.epoch, seed), rows)
    drawn = {name: _shuffled(np.arange(len(task)), batch_size, seed, rows) for name, task in (tasks or {}).items()}

    def batch(number: int) -> Fed[SftBatch]:
        fed = packed.batch(shuffled(number))
        of_tasks = {name: task.batch(drawn[name](number)) for name, task in (tasks or {}).items()}
        return dataclasses.replace(fed, batch=dataclasses.replace(fed.batch, tasks=of_tasks))

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


def _longest_history(dataset: Dataset, positions: np.ndarray) -> int:
    """The most items that stand before one of these positions, rounded up to a multiple of 8."""
    longest = int((positions - dataset.offsets[dataset.user_of(positions)]).max())
    return -(-longest // 8) * 8


def _prompts(
    dataset: Dataset, builder: PromptBuilder, everyones: np.ndarray, own: np.ndarray, longest_history: int
) -> PromptBatch:
    """The prompts of a process's own samples, as wide as those of the whole batch need."""
    longest = _lengths(dataset, builder, everyones).max() if len(builder.widths) > 1 else builder.max_tokens
    excluded = dataset.histories(own, longest_history) if builder.exclude_history else None
    return _timed(
        dataset, builder, own, _laid_out(builder, dataset.histories(own, builder.max_history), longest, excluded)
    )


def _without_exclusion(dataset: Dataset, builder: PromptBuilder, own: np.ndarray) -> PromptBatch:
    """Prompts that every item may answer, all of one width."""
    histories = dataset.histories(own, builder.max_history)
    return _timed(dataset, builder, own, _laid_out(builder, histories, builder.max_tokens, None))


def _timed(dataset: Dataset, builder: PromptBuilder, own: np.ndarray, prompts: PromptBatch) -> PromptBatch:
    """The samples' prompts, with the times of their tokens where the model takes them."""
    if not builder.timed:
        return prompts
    first = np.maximum(dataset.offsets[dataset.user_of(own)], own - builder.max_history)
    seconds = dataset.seconds(first, own - first, builder.max_history)
    return dataclasses.replace(prompts, times=builder.token_times(seconds, prompts.tokens.shape[1]))


def _guided(prompts: PromptBatch, guide: PromptBatch) -> PromptBatch:
    """Prompts with those of the guide beside them, which the same items may answer."""
    return dataclasses.replace(prompts, guide=dataclasses.replace(guide, excluded=prompts.excluded))


def _laid_out(builder: PromptBuilder, histories: np.ndarray, longest: int, excluded: np.ndarray | None) -> PromptBatch:
    """The prompts of histories int[B, M], -1 behind the last item, in the least width that holds the longest one."""
    tokens, lengths = builder.prompts(histories, builder.padded_width(longest))
    return PromptBatch(tokens, lengths, excluded)


def _lengths(dataset: Dataset, builder: PromptBuilder, positions: np.ndarray) -> np.ndarray:
    """The lengths of the samples' prompts, some thousands at a time."""
    parts = np.array_split(positions, -(-len(positions) // _AT_ONCE))
    return np.concatenate([builder.lengths(dataset.histories(part, builder.max_history)) for part in parts])


def _checked(rows: np.ndarray | None, batch_size: int) -> np.ndarray:
    """Rows of a global batch, all where none are named. Raises ValueError for one outside it."""
    rows = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
    if not ((rows >= 0) & (rows < batch_size)).all():
        raise ValueError(f"rows {rows.tolist()} are not all in a batch of {batch_size}")
    return rows


class _Epochs:
    """Batch number to entries of an endless sequence of epochs, each in an order of its own; of each batch, `rows`."""

    def __init__(self, size: int, batch_size: int, order: Callable[[int], np.ndarray], rows: np.ndarray | None):
        self._size = size
        self._batch_size = batch_size
        self._rows = _checked(rows, batch_size)
        self._order = functools.lru_cache(maxsize=2)(order)  # two, because a batch may end one epoch and begin the next

    def __call__(self, number: int) -> np.ndarray:
        epochs, places = np.divmod(number * self._batch_size + self._rows, self._size)
        return np.stack([self._order(epoch)[place] for epoch, place in zip(epochs.tolist(), places, strict=True)])


def _shuffled(values: np.ndarray, batch_size: int, seed: int, rows: np.ndarray | None) -> _Epochs:
    """`values` in a new random order each epoch."""
    return _Epochs(
        len(values), batch_size, lambda epoch: np.random.default_rng([seed, epoch]).permutation(values), rows
    )


def _like_lengths(
    dataset: Dataset, builder: PromptBuilder, samples: np.ndarray, batch_size: int, seed: int
) -> Callable[[int], np.ndarray]:
    """Batch number to samples: those of a window of batches are sorted by length, then its batches are shuffled."""
    batches = max(
        1, min(_WINDOW, len(samples) // batch_size)
    )  # at most an epoch, so that no sample is twice in a batch
    drawn = _shuffled(samples, batches * batch_size, seed, None)

    @functools.lru_cache(maxsize=2)
    def window(number: int) -> np.ndarray:
        members = drawn(number)
        by_length = members[np.argsort(_lengths(dataset, builder, members), kind="stable")]
        return np.random.default_rng([seed, number, 1]).permutation(by_length.reshape(batches, batch_size))

    return lambda number: window(number // batches)[number % batches]


def _endless(batch: Callable[[int], Element]) -> grain.IterDataset[Element]:
    batches = grain.MapDataset.range(_ENDLESS).map(batch)
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCH))
