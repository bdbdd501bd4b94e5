"""Packing of pieces into rows: nothing lost, nothing twice, little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.batches.packing import pack

lengths_of_pieces = st.lists(st.integers(1, 40), min_size=1, max_size=200).map(np.array)


@given(lengths_of_pieces, st.integers(0, 60), st.integers(0, 3))
@settings(deadline=None)
def test_every_piece_stands_once_in_a_row_that_holds_it(lengths, room, seed):
    packing = pack(lengths, lengths.max() + room)
    rows = packing.epoch(lengths, np.random.default_rng(seed))
    real = rows >= 0
    assert sorted(rows[real].tolist()) == list(range(len(lengths)))
    filled = np.where(real, lengths[rows], 0).sum(1)
    assert (filled <= packing.row_tokens).all() and (filled > 0).all()
    assert (np.diff(real.astype(int), axis=1) <= 0).all()  # no gap between a row's pieces
    assert packing.waste == pytest.approx(1 - lengths.sum() / (packing.row_tokens * len(rows)))


@given(lengths_of_pieces, st.integers(0, 3))
@settings(deadline=None)
def test_the_bound_on_a_rows_weight_holds(lengths, seed):
    weights = np.random.default_rng(seed).integers(0, 5, len(lengths))
    packing = pack(lengths)
    rows = packing.epoch(lengths, np.random.default_rng(seed))
    assert np.where(rows >= 0, weights[rows], 0).sum(1).max() <= packing.most(lengths, weights)


def test_best_fit_by_hand():
    packing = pack(np.array([6, 4, 3, 7, 5, 5]), 10)
    assert sorted(sorted(row[row > 0].tolist()) for row in packing.layout) == [[3, 7], [4, 6], [5, 5]]
    assert packing.waste == 0
    assert packing.most(np.array([6, 4, 3, 7, 5, 5]), np.array([1, 2, 3, 4, 5, 5])) == 10


def test_a_size_is_chosen_with_little_padding():
    rng = np.random.default_rng(0)
    lengths = np.append(rng.integers(24, 31, 5000), 45)  # two do not fit into the longest one's row
    packing = pack(lengths)
    assert packing.waste < 0.05
    assert packing.row_tokens > 45 and pack(lengths, 45).waste > 0.05
    assert pack(np.full(100, 20)).row_tokens == 20  # equal pieces need no more than a row each


def test_an_epoch_is_a_function_of_its_generator():
    lengths = np.random.default_rng(0).integers(3, 20, 300)
    packing = pack(lengths)
    first, again, other = (packing.epoch(lengths, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(
    ("lengths", "row_tokens", "message"),
    [([], 0, "at least one token"), ([3, 0], 0, "at least one token"), ([3, 12], 10, "longest piece, 12")],
)
def test_what_cannot_be_packed_is_named(lengths, row_tokens, message):
    with pytest.raises(ValueError, match=message):
        pack(np.array(lengths, int), row_tokens)
