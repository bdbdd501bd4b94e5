"""Splits rows into train, valid and test. Rows are sorted by user (0 .. U-1, none absent) and by time."""

from collections.abc import Callable, Mapping

import numpy as np

from wpauc_jax.data.dataset import SPLITS
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


def published(user: np.ndarray, split: np.ndarray) -> np.ndarray:
    """int8[n]: the codes that the files give.

    Raises DataError for a user whose train, valid and test rows do not follow each other in time.
    """
    goes_back = (np.diff(split) < 0) & (np.diff(user) == 0)
    if goes_back.any():
        row = int(np.argmax(goes_back))
        names = SPLITS[split[row]], SPLITS[split[row + 1]]
        raise DataError(
            f"data.split='published': {int(goes_back.sum()):,} times a {names[0]} row of a user is earlier than one of "
            f"{names[1]}; choose another data.split, or mend the files"
        )
    return split


# By data.split: from the columns user int32[n], time int64[n], and split int8[n] where the files have one.
SPLITTERS: dict[str, Callable[[Mapping[str, np.ndarray]], np.ndarray]] = {
    "leave_one_out": lambda columns: leave_one_out(columns["user"]),
    "chronological": lambda columns: chronological(columns["user"], columns["time"]),
    "published": lambda columns: published(columns["user"], columns["split"]),
}
