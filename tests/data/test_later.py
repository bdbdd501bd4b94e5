"""What users take after a sample: in order, each item once, and nothing of validation and test."""

import dataclasses

import numpy as np

from wpauc_jax.data.dataset import Dataset
from wpauc_jax.data.later import Later

ITEM = np.array([1, 2, 3, 2, 3, 4, 5, 6, 7, 7, 8, 9], np.int32)  # a user of 8 interactions, then one of 4
SPLIT = np.array([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 1, 2], np.int8)


def dataset(item=ITEM):
    return Dataset(
        users=["a", "b"],
        item_ids=list("0123456789"),
        titles=[""] * 10,
        texts=[""] * 10,
        item=item,
        time=np.arange(12),
        split=SPLIT,
        offsets=np.array([0, 8, 12]),
        fingerprint="",
    )


def test_in_order_each_once_and_not_the_own_item():
    found = Later(dataset())(np.array([0, 1, 4, 5, 9]))
    assert found.tolist() == [[2, 3, 4, -1, -1], [3, 4, -1, -1, -1], [4, -1, -1, -1, -1], [-1] * 5, [-1] * 5]
    assert Later(dataset(), 2)(np.array([0, 5])).tolist() == [[2, 3], [-1, -1]]
    assert found.dtype == np.int32


def test_what_the_user_has_is_left_out_where_it_cannot_answer():
    """Behind place 2 (item 3) the user takes 2 and 3 again, then 4."""
    plain, excluded = (Later(dataset(), exclude_history=flag)(np.array([2])) for flag in (False, True))
    assert plain[0, :2].tolist() == [2, 4] and excluded[0, :2].tolist() == [4, -1]


def test_validation_and_test_are_never_read():
    other = np.where(SPLIT > 0, 0, ITEM).astype(np.int32)
    places = np.array([0, 1, 2, 3, 4, 5, 9])
    np.testing.assert_array_equal(Later(dataset())(places), Later(dataset(other))(places))
    held_in = dataclasses.replace(dataset(), split=np.zeros(12, np.int8))
    assert (Later(held_in)(places)[:, 3:] >= 0).any()  # the test can fail
