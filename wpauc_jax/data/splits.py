"""Train, valid and test: one code a row, in rows sorted by user (0 .. U-1, none absent) and time."""

import numpy as np

from wpauc_jax.data.errors import DataError
from wpauc_jax.data.order import stable_order


def leave_one_out(user: np.ndarray) -> np.ndarray:
    """int8[n]: each user's last row is test, the one before it valid; users with fewer than 3 rows are all train.

    Raises DataError if no user has 3.
    """
    counts = np.bincount(user)
    ends = np.cumsum(counts)[counts >= 3]
    if not len(ends):
        raise DataError("the valid and test splits are empty: no user has 3 interactions; use data.split=chronological")
    split = np.zeros(len(user), np.int8)
    split[ends - 2] = 1
    split[ends - 1] = 2
    return split


def chronological(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """int8[n]: the first 80% of all samples on the common time line are train, the next 10% valid, the rest test.

    Equal times stay in the order of the rows. A user's first row is no sample; it belongs to the period in which it
    falls. Raises DataError if a split would be empty.
    """
    in_time = stable_order(time)
    is_sample = np.diff(user, prepend=-1) == 0
    sampled = is_sample[in_time]
    seen = np.cumsum(sampled)  # samples up to and with this row
    total = int(seen[-1])
    train, valid = total * 8 // 10, total * 9 // 10
    if not 0 < train < valid < total:
        raise DataError(f"{total} samples cannot be split 8:1:1: a split would be empty; lower data.k_core or add data")
    seen -= sampled  # samples before this row
    split = np.empty(len(user), np.int8)
    split[in_time] = (seen >= train).astype(np.int8) + (seen >= valid)
    return split
