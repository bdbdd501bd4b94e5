"""Packing puts several short pieces into one row of tokens, so that little of a batch is padding.

The method is best-fit decreasing over the histogram of lengths, in the manner of Krell et al., arXiv 2107.02027. Its
work depends on the number of distinct lengths, not on the number of pieces. It fixes which lengths share a row. Each
epoch draws anew which pieces of these lengths share it, and in which order the rows come.
"""

import dataclasses
import math

import numpy as np

_WASTE = 0.05  # of a row, that a row's size is chosen for
_SIZES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # sizes tried, in longest pieces


@dataclasses.dataclass(frozen=True)
class Packing:
    """R rows of at most S pieces."""

    row_tokens: int  # the size of a row
    layout: np.ndarray  # int32[R, S], the lengths of a row's pieces, 0 behind the last

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def waste(self) -> float:
        """The share of all rows' tokens that is padding."""
        return 1.0 - float(self.layout.sum(dtype=np.int64)) / (self.row_tokens * len(self))

    def epoch(self, lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Every piece once, in a new order: int64[R, S] numbers of pieces, -1 behind a row's last.

        `lengths` int[P] are the pieces' lengths, the same as the packing was made for.
        """
        layout = self.layout[rng.permutation(len(self))]
        places = np.argsort(layout, axis=None, kind="stable")[layout.size - len(lengths) :]
        shuffled = rng.permutation(len(lengths))
        rows = np.full(layout.shape, -1, np.int64)
        rows.reshape(-1)[places] = shuffled[np.argsort(lengths[shuffled], kind="stable")]
        return rows

    def most(self, lengths: np.ndarray, weights: np.ndarray) -> int:
        """A bound on the sum of int[P] `weights` of the pieces in one row, whichever pieces of its lengths they are."""
        largest = np.zeros(self.row_tokens + 1, np.int64)
        np.maximum.at(largest, lengths, weights)
        return int(largest[self.layout].sum(1).max())


def pack(lengths: np.ndarray, row_tokens: int = 0) -> Packing:
    """Rows for pieces of int[P] `lengths` tokens.

    row_tokens=0 takes the smallest of a few sizes of which less than 5% is padding, or else the one with the least.
    Raises ValueError for no piece, an empty one, or one that is longer than a row.
    """
    lengths = np.asarray(lengths)
    if not lengths.size or lengths.min() < 1:
        raise ValueError("packing needs pieces of at least one token")
    longest = int(lengths.max())
    if 0 < row_tokens < longest:
        raise ValueError(f"a row of {row_tokens} tokens is shorter than the longest piece, {longest}")
    histogram = np.bincount(lengths)
    if row_tokens:
        return Packing(row_tokens, _layout(histogram, row_tokens))
    packings = []
    for size in _SIZES:
        tokens = math.ceil(size * longest)
        packings.append(Packing(tokens, _layout(histogram, tokens)))
        if packings[-1].waste < _WASTE:
            return packings[-1]
    return min(packings, key=lambda packing: packing.waste)


def _layout(histogram: np.ndarray, row_tokens: int) -> np.ndarray:
    """int32[R, S]: from the longest length down, each piece goes where it leaves the least room, or opens a row."""
    open_rows: dict[int, list[tuple[int, tuple[int, ...]]]] = {}  # room left: (how many rows, their lengths) each
    for length in range(len(histogram) - 1, 0, -1):
        left = int(histogram[length])
        while left:
            room = min((room for room, rows in open_rows.items() if room >= length and rows), default=None)
            if room is None:
                in_a_row = min(row_tokens // length, left)
                count, held = left // in_a_row, tuple[int, ...]()
            else:
                in_a_row = 1
                rows, held = open_rows[room].pop()
                count = min(rows, left)
                if rows > count:
                    open_rows[room].append((rows - count, held))
            held += (length,) * in_a_row
            open_rows.setdefault(row_tokens - sum(held), []).append((count, held))
            left -= count * in_a_row
    kinds = [kind for room in sorted(open_rows) for kind in open_rows[room]]
    width = max(len(held) for _, held in kinds)
    table = np.array([held + (0,) * (width - len(held)) for _, held in kinds], np.int32)
    return np.repeat(table, [count for count, _ in kinds], axis=0)
