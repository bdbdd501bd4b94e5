"""Which samples' lists are kept, and how much of them."""

import numpy as np

from wpauc_jax.batches.types import EvalBatch, PromptBatch, RowIds
from wpauc_jax.evaluation.lists import LENGTH, NUM_SAMPLES, SampleLists, sample_rows


def test_the_draw_is_the_same_for_the_same_rows():
    rows = np.arange(100, 1000, 3)
    drawn = sample_rows(rows)
    assert len(set(drawn.tolist())) == NUM_SAMPLES and set(drawn) <= set(rows) and (np.diff(drawn) > 0).all()
    assert drawn.tolist() == sample_rows(rows).tolist()
    assert sample_rows(np.array([7, 3])).tolist() == [3, 7]


def test_lists_of_the_chosen_samples_are_kept_without_their_padding():
    lists = SampleLists(np.array([4, 9]))
    items = np.stack([np.arange(12), np.r_[5, 3, np.full(10, -1)], np.arange(12) + 50, np.arange(12) + 80])
    ids = RowIds(np.zeros(4, np.int32), np.array([4, 9, 6, 9]))
    valid = np.array([True, True, True, False])  # the last row only fills the batch up
    lists.add(EvalBatch(PromptBatch(None, None), np.zeros(4), valid, np.zeros(4), ids), items)
    assert {sample: kept.tolist() for sample, kept in lists.found.items()} == {4: list(range(LENGTH)), 9: [5, 3]}
