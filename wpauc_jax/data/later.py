"""What a user takes after a sample, inside the training split. Validation and test are never looked at."""

import dataclasses
import functools

import numpy as np

from wpauc_jax.data.dataset import Dataset, gather_ranges, repeats


@dataclasses.dataclass(frozen=True)
class Later:
    """The next items of training samples.

    limit: how many of them at most; 0: as many as the longest sequence has.
    exclude_history: whether an item that the user had before the sample is none of them.
    """

    dataset: Dataset
    limit: int = 0
    exclude_history: bool = False

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The items int32[B, width] after flat positions of the training split, in time order, -1 behind the last one.

        Each stands once, and the sample's own item is none of them.
        """
        positions = np.asarray(positions, np.int64)
        first = positions + 1
        count = np.maximum(self._ends[self.dataset.user_of(positions)] - first, 0)
        longest = max(int(count.max(initial=0)), 1)
        items = gather_ranges(self.dataset.item, first, count, longest)
        kept = (items >= 0) & _first_ones(np.concatenate([self.dataset.item[positions][:, None], items], axis=1))[:, 1:]
        if self.exclude_history:
            kept &= gather_ranges(self._repeats, first, count, longest) != 1
        order = np.argsort(~kept, axis=1, kind="stable")
        found = np.take_along_axis(np.where(kept, items, -1), order, axis=1)[:, : self.width]
        return np.pad(found, ((0, 0), (0, self.width - found.shape[1])), constant_values=-1).astype(np.int32)

    @functools.cached_property
    def width(self) -> int:
        """The columns of every answer, so that all batches have one shape."""
        return self.limit or max(int(self.dataset.train_lengths().max(initial=0)) - 1, 1)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """int64[U]: where each user's training ends."""
        return self.dataset.offsets[:-1] + self.dataset.train_lengths()

    @functools.cached_property
    def _repeats(self) -> np.ndarray:
        return repeats(self.dataset).astype(np.int8)


def _first_ones(rows: np.ndarray) -> np.ndarray:
    """bool[B, M]: which entries of int[B, M] are the first of their value in their row."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    first = np.ones(rows.shape, bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    out = np.empty_like(first)
    np.put_along_axis(out, order, first, axis=1)
    return out
