"""Measures of whole sets: a user's held-out items are all positives of one list, that of the prompt before them."""

from collections.abc import Iterable

import numpy as np

from wpauc_jax.evaluation.ranks import Ranks, RanksError


def set_metrics(ranks: Ranks, ks: Iterable[int]) -> dict[str, float]:
    """Recall@K, NDCG@K and WPAUC@K of each user's positives in one ranking of all items, a user's in the mean.

    With n positives, Recall@K is the share of them among the first K; NDCG@K divides the gain by that of an ideal list;
    WPAUC@K is taken over the window of Recall@K, the negatives of rank K - n to K - 1 (docs/theory.md). A user with
    more than K positives, or fewer than K negatives, has no such window, and `wpauc_users@K` is the share that has one.

    Args:
      ranks: exact places, the same list for all samples of a user, each item of a user once.
      ks: each K.

    Raises:
      RanksError: there is no sample, or a target is not in its list.
    """
    if not len(ranks) or (ranks.rank < 0).any():
        raise RanksError("measures of sets need samples, and lists of all items")
    order = np.lexsort((ranks.rank, ranks.user))
    rank = ranks.rank[order].astype(np.int64)
    _, first, user, count = np.unique(ranks.user[order], return_index=True, return_inverse=True, return_counts=True)
    left_out = 0 if ranks.left_out is None else ranks.left_out[order][first]
    negatives = ranks.num_candidates - left_out - count  # of each user
    above = rank - (np.arange(len(rank)) - first[user])  # negatives above a positive
    found = {}
    for k in ks:
        hit = rank < k
        gain = np.bincount(user, np.where(hit, 1 / np.log2(rank + 2.0), 0))
        ideal = np.cumsum(1 / np.log2(np.arange(k) + 2.0))[np.minimum(count, k) - 1]
        found[f"recall@{k}"] = float((np.bincount(user, hit) / count).mean())
        found[f"ndcg@{k}"] = float((gain / ideal).mean())
        windowed = (count <= k) & (k <= negatives)
        found[f"wpauc_users@{k}"] = float(windowed.mean())
        if windowed.any():
            start = (k - count)[user]
            below = np.clip(k - np.maximum(above, start), 0, None)  # negatives of the window below a positive
            share = np.bincount(user, below) / np.square(count)
            found[f"wpauc@{k}"] = float(share[windowed].mean())
    return found
