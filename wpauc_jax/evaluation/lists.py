"""The first items of the lists of a few samples, for people to look at."""

import numpy as np

from wpauc_jax.batches.types import EvalBatch

NUM_SAMPLES = 10
LENGTH = 10  # items of a list that are kept
_DRAW = 0  # seed of the draw


def sample_rows(rows: np.ndarray) -> np.ndarray:
    """A fixed draw of up to `NUM_SAMPLES` of the flat positions `rows`, ascending."""
    if len(rows) <= NUM_SAMPLES:
        return np.sort(rows)
    return np.sort(np.random.default_rng(_DRAW).choice(rows, NUM_SAMPLES, replace=False))


class SampleLists:
    """Keeps the first `LENGTH` items of the samples `rows`, and nothing of any other sample.

    `found` has an int32 array of item numbers for each sample that came by.
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._wanted = rows
        self.found: dict[int, np.ndarray] = {}

    def add(self, batch: EvalBatch, items: np.ndarray) -> None:
        """Looks at the lists int32[B, W] of a batch; -1 stands where a list has ended."""
        for row in np.flatnonzero(batch.valid & np.isin(batch.ids.sample, self._wanted)):
            best = items[row, :LENGTH]
            self.found[int(batch.ids.sample[row])] = best[best >= 0]
