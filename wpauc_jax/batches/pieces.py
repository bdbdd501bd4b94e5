"""Pieces: the stretches of users' training sequences that SFT learns from, and which of their items are targets."""

import dataclasses

import numpy as np

from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Pieces:
    """P stretches of training sequences, each for one causal pass: int64[P] each."""

    first: np.ndarray  # flat position of the piece's first item
    count: np.ndarray  # items in the piece
    context: np.ndarray  # leading items that are no target
    tokens: np.ndarray  # tokens of the piece's row

    def __len__(self) -> int:
        return len(self.first)


def sft_pieces(dataset: Dataset, limits: np.ndarray, builder: PromptBuilder) -> Pieces:
    """Cuts each user's `limits[user]` leading items into pieces, ordered by their first targets.

    Every item but a user's first is a target in exactly one piece. A piece has at most max_history + 1 items, and the
    prompt of its last target fits the builder's limit of tokens. Where the builder continues, pieces overlap by
    max_history // 2 items, or by what half of the room for the history holds, at least by 1: so many items a target
    sees, if there are as many. A sequence that fits in one piece is that piece, and its loss equals that of sliding
    windows. Otherwise every target is a piece of its own.
    """
    counts = np.minimum(np.asarray(limits, np.int64), np.diff(dataset.offsets))
    users = np.flatnonzero(counts >= 2)
    begin, stop = dataset.offsets[users], dataset.offsets[users] + counts[users]
    tokens_before = np.concatenate([[0], builder.item_lengths[dataset.item].cumsum()])
    window, room = builder.max_history + 1, builder.history_tokens
    if not builder.continues:
        targets = stop - begin - 1
        begin = np.repeat(begin, targets)
        target = begin + 1 + np.arange(len(begin)) - np.repeat(targets.cumsum() - targets, targets)
        first = np.maximum(begin, target - builder.max_history)
        first = np.maximum(first, np.searchsorted(tokens_before, tokens_before[target] - room))
        return _pieces(dataset, builder, tokens_before, first, target + 1 - first, target - first)

    overlap = max(1, builder.max_history // 2)
    found = []
    first, target = begin, begin + 1
    while len(target):
        fits = np.searchsorted(tokens_before, tokens_before[first] + room, side="right")
        end = np.minimum(np.minimum(first + window, fits), stop)
        # The last piece reaches back for as much context as fits.
        needed = np.searchsorted(tokens_before, tokens_before[end - 1] - room)
        first = np.maximum(np.maximum(end - window, needed), begin)
        found.append((first, end - first, target - first))
        more = end < stop
        begin, stop, target = begin[more], stop[more], end[more]
        enough = np.searchsorted(tokens_before, tokens_before[target] - room // 2)
        first = np.minimum(np.maximum(target - overlap, enough), target - 1)
    first, count, context = (np.concatenate(column) for column in zip(*found, strict=True)) if found else (begin,) * 3
    order = np.argsort(first + context)
    return _pieces(dataset, builder, tokens_before, first[order], count[order], context[order])


def _pieces(
    dataset: Dataset,
    builder: PromptBuilder,
    tokens_before: np.ndarray,
    first: np.ndarray,
    count: np.ndarray,
    context: np.ndarray,
) -> Pieces:
    last = first + count - 1
    history, answers = tokens_before[last] - tokens_before[first], builder.catalog.lengths[dataset.item[last]]
    return Pieces(first, count, context, builder.width(0) + history + answers)
