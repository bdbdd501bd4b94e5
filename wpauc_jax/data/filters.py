"""Filters decide which interactions stay: by repeats, by k-core, and by the items' titles."""

from collections.abc import Callable

import numpy as np
import polars as pl

from wpauc_jax.data.order import stable_order

_MARKUP = r"</?[A-Za-z][^<>]*(>|$)|<!--"  # a tag, whole or cut off at the end


def first_meetings(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """bool[n]: where a user meets an item for the first time, in rows sorted by user and time."""
    order = stable_order(user, item)
    is_first = np.ones(len(user), bool)
    is_first[1:] = (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)
    out = np.empty(len(user), bool)
    out[order] = is_first
    return out


# By data.repeats: bool[n], the rows to keep of rows sorted by user and time.
REPEATS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "keep": lambda user, item: np.ones(len(user), bool),
    "first": first_meetings,
}


def k_core(user: np.ndarray, item: np.ndarray, k: int) -> np.ndarray:
    """bool[n]: the largest set of rows in which every user and every item has at least k.

    Rows are sorted by user (0 .. U-1, none absent). Peels users and items in turn until none is left to drop.
    """
    alive = np.ones(len(user), bool)
    if not len(user):
        return alive
    user_count, item_count = np.bincount(user), np.bincount(item)
    ends = np.cumsum(user_count)
    firsts = ends - user_count
    while True:
        few_users = np.flatnonzero((user_count > 0) & (user_count < k))
        rows = _ranges(firsts[few_users], ends[few_users])
        _drop(rows[alive[rows]], alive, item, item_count)
        user_count[few_users] = 0
        few_items = (item_count > 0) & (item_count < k)
        if not few_items.any():
            return alive
        rows = np.flatnonzero(few_items[item])
        _drop(rows[alive[rows]], alive, user, user_count)
        item_count[few_items] = 0


def _drop(rows: np.ndarray, alive: np.ndarray, other: np.ndarray, other_count: np.ndarray) -> None:
    alive[rows] = False
    np.subtract.at(other_count, other[rows], 1)


def _ranges(first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The whole numbers of all ranges first .. end - 1, one after the other."""
    counts = end - first
    return np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)


def title_faults(titles: pl.Series, *, require: bool, markup: bool, words: int) -> dict[str, np.ndarray]:
    """bool[I] by reason: titles that are missing, hold markup, or have more than `words` words (0: any number).

    A title with several faults counts under the first. `require` and `markup` say whether these two are faults.
    """
    text = titles.fill_null("")
    missing = (text.str.strip_chars() == "").to_numpy()
    tagged = text.str.contains(_MARKUP).to_numpy()
    long = (text.str.count_matches(r"\S+") > words).to_numpy()
    return {
        "missing": missing & require,
        "markup": tagged & markup,
        "long": long & ~(tagged & markup) & bool(words),
    }
