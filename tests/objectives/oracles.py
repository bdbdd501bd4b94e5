"""Slow, independent definitions in float64 NumPy: loops and full comparisons where the library sorts."""

import math

import numpy as np


def soft_top_k(x, k, temperature):
    """Bisection for the threshold; nothing shared with the closed form of the library."""
    z = np.asarray(x, np.float64) / temperature
    if k >= z.size:
        return np.ones_like(z)
    if k == 0:
        return np.zeros_like(z)

    def weights(threshold):
        return np.exp(np.minimum(z - threshold, 0))

    low, high = z.min() - math.log(z.size), z.max() + math.log(z.size / k) + 1
    low -= 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if weights(middle).sum() > k else (low, middle)
    return weights((low + high) / 2)


def split(scores, is_positive, where=None):
    """Scores of the valid positives and of the valid negatives, each in index order."""
    scores, is_positive = np.asarray(scores, np.float64), np.asarray(is_positive, bool)
    where = np.ones(scores.shape, bool) if where is None else np.asarray(where, bool)
    return scores[where & is_positive], scores[where & ~is_positive]


def half_tie_wins(positives, negatives):
    """c_j for negatives in descending order: positives above, a tie counting one half."""
    return [sum(1.0 if p > n else 0.5 if p == n else 0.0 for p in positives) for n in sorted(negatives, reverse=True)]


def partial_auc(scores, is_positive, low, high, where=None):
    """The unnormalised area by the sum with two cut end pieces."""
    positives, negatives = split(scores, is_positive, where)
    n_pos, n_neg = len(positives), len(negatives)
    if not n_pos or not n_neg:
        return 0.0
    c = [0.0, *half_tie_wins(positives, negatives), 0.0]  # 1-based, a zero after the end
    start, stop = n_neg * low, n_neg * high
    first, last = math.ceil(start), math.floor(stop)
    if first > last:
        return (stop - start) * c[last + 1] / (n_pos * n_neg)
    whole = sum(c[first + 1 : last + 1])
    return ((first - start) * c[first] + whole + (stop - last) * c[last + 1]) / (n_pos * n_neg)


def pair_share(positives, negatives):
    """Share of pairs that are in the right order, ties one half; 0 for no pairs."""
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positives for n in negatives]
    return sum(pairs) / len(pairs) if pairs else 0.0


def order(scores, where=None):
    """Indices of the valid entries by descending score, ties by index."""
    valid = range(len(scores)) if where is None else np.flatnonzero(where)
    return sorted(valid, key=lambda i: (-float(scores[i]), i))
