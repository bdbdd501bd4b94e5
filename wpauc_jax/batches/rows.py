"""Rows of SFT: each holds several pieces of users' sequences, and each piece sees only itself."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from wpauc_jax.batches.packing import Packing, pack
from wpauc_jax.batches.pieces import Pieces, sft_pieces
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.types import Fed, RowIds, SftBatch
from wpauc_jax.data.dataset import Dataset, gather_ranges, repeats
from wpauc_jax.data.errors import DataError


@dataclasses.dataclass(frozen=True)
class SftRows:
    """What the rows of every epoch are made of."""

    dataset: Dataset
    builder: PromptBuilder
    pieces: Pieces
    packing: Packing
    max_targets: int  # M, the most that a row can hold
    exclude_history: bool = False  # whether the items before a target are no answers beside it

    def __len__(self) -> int:
        """R, the rows of an epoch."""
        return len(self.packing)

    def epoch(self, seed: int, number: int) -> np.ndarray:
        """Each piece once: int64[R, S] numbers of pieces, -1 behind a row's last."""
        return self.packing.epoch(self.pieces.tokens, np.random.default_rng([seed, number]))

    def batch(self, rows: np.ndarray) -> Fed[SftBatch]:
        """The rows of pieces int64[B, S] laid out."""
        row, place = np.nonzero(rows >= 0)
        pieces = rows[row, place]
        tokens, lengths, targets, starts = self._pieces(pieces)
        held = np.zeros(rows.shape, np.int64)
        held[row, place] = lengths
        offset = (held.cumsum(1) - held)[row, place]

        row_tokens, segments = (np.zeros((len(rows), self.packing.row_tokens), np.int32) for _ in range(2))
        piece, t = np.nonzero(np.arange(tokens.shape[1]) < lengths[:, None])
        row_tokens[row[piece], offset[piece] + t] = tokens[piece, t]
        segments[row[piece], offset[piece] + t] = place[piece] + 1
        row_times = None
        if self.builder.timed:
            first, count = self.pieces.first[pieces], self.pieces.count[pieces]
            seconds = self.dataset.seconds(first, count, self.builder.max_history + 1)
            row_times = np.zeros_like(row_tokens)
            row_times[row[piece], offset[piece] + t] = self.builder.token_times(seconds, tokens.shape[1])[piece, t]

        items = np.full((len(rows), self.max_targets), -1, np.int32)
        row_starts = np.zeros((len(rows), self.max_targets), np.int32)
        piece, m = np.nonzero(targets >= 0)
        slot = np.arange(len(piece)) - np.searchsorted(row[piece], row[piece])  # within its row: rows are ascending
        items[row[piece], slot] = targets[piece, m]
        row_starts[row[piece], slot] = offset[piece] + starts[piece, m]
        excluded = None
        if self.exclude_history:
            excluded = np.full((*items.shape, self.builder.max_history), -1, np.int32)
            target = self.pieces.first[pieces][piece] + m
            excluded[row[piece], slot] = self.dataset.histories(target, self.builder.max_history)

        user = np.full(rows.shape, -1, np.int32)
        user[row, place] = self.dataset.user_of(self.pieces.first[pieces])
        return Fed(SftBatch(row_tokens, segments, items, row_starts, times=row_times, excluded=excluded), RowIds(user))

    @functools.cached_property
    def _repeats(self) -> np.ndarray:
        """int8[n]: 1 for an interaction with an item that the same user has earlier."""
        return repeats(self.dataset).astype(np.int8)

    def _pieces(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Each piece alone: tokens [n, T'], lengths [n], targets [n, W] (-1: the item is context), starts [n, W].

        An item that cannot be an answer, because it stands in its own history, is context.
        """
        width = self.builder.max_history + 1
        count = self.pieces.count[pieces]
        items = gather_ranges(self.dataset.item, self.pieces.first[pieces], count, width)
        tokens, lengths, starts = self.builder.rows(items)
        is_target = np.arange(width) >= self.pieces.context[pieces, None]
        if self.exclude_history:
            is_target &= gather_ranges(self._repeats, self.pieces.first[pieces], count, width) != 1
        targets = np.where(is_target, items, -1)
        return tokens, lengths, targets, starts


def sft_rows(
    dataset: Dataset,
    builder: PromptBuilder,
    limits: np.ndarray,
    row_tokens: int = 0,
    *,
    exclude_history: bool = False,
) -> SftRows:
    """Rows of the pieces of each user's `limits[user]` leading items; see `sft_pieces` and `pack`.

    With `exclude_history` a target comes with the last `builder.max_history` items before it: they are no answers. A
    target that the user has earlier is then no target.

    Raises DataError if no user has a training target, or if a piece is longer than `row_tokens`.
    """
    pieces = sft_pieces(dataset, limits, builder)
    if not len(pieces):
        raise DataError("SFT has no row: no user has two training items; lower rl.holdout or add data")
    if 0 < row_tokens < pieces.tokens.max():
        raise DataError(
            f"sft.row_tokens={row_tokens} is less than the longest piece of a sequence, {pieces.tokens.max()} tokens; "
            "raise it, or lower data.max_history or prompt.max_tokens"
        )
    packing = pack(pieces.tokens, row_tokens)
    most = packing.most(pieces.tokens, pieces.count - pieces.context)
    return SftRows(dataset, builder, pieces, packing, most, exclude_history)


@dataclasses.dataclass(frozen=True)
class Piece:
    """One piece of a batch, as it would be alone."""

    user: int
    tokens: np.ndarray  # int32[t]
    items: np.ndarray  # int32[m], the targets
    starts: np.ndarray  # int32[m], the place of the token before each


def unpacked(fed: Fed[SftBatch]) -> Iterator[Piece]:
    """The pieces of a batch's rows, in order."""
    batch = fed.batch
    for tokens, segments, items, starts, users in zip(
        batch.tokens, batch.segments, batch.items, batch.starts, fed.ids.user, strict=True
    ):
        of_target = segments[starts]
        for segment, user in enumerate(users[users >= 0].tolist(), start=1):
            inside, own = segments == segment, (items >= 0) & (of_target == segment)
            yield Piece(user, tokens[inside], items[own], starts[own] - inside.argmax())
