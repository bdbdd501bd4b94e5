"""What the best ranking of a known law reaches, and what a given ranking reaches, without the luck of a target."""

import numpy as np


def expected_recall(law: np.ndarray, lists: np.ndarray, k: int) -> float:
    """Recall@k that lists int[N, at least k] of items have on average over targets drawn from `law` float64[N, I].

    It is what a test set of endless size would say: free of the luck of a target. Items are distinct, -1 is none.
    """
    listed = np.asarray(lists)[:, :k]
    return float(np.where(listed >= 0, np.take_along_axis(law, np.maximum(listed, 0), axis=1), 0).sum(1).mean())


def best_recall(law: np.ndarray, k: int) -> float:
    """The largest `expected_recall` at k of any lists: the probability of the k likeliest items."""
    return float(-np.sort(-law, axis=1)[:, :k].sum(1).mean())


def best_wpauc(law: np.ndarray, alpha: float, d: float) -> float:
    """The largest WPAUC(alpha, d) that any ranking has on average over targets drawn from `law` float64[N, I].

    With one target among I items the I - 1 negatives in descending order have positions p = 0, 1, ...; the target is
    above the p-th where it is among the first p + 1 of all. So WPAUC is the mean of Recall@(p + 1) over the window
    alpha (I - 1) <= p < (alpha + d)(I - 1), a position that the window covers in part counting in part.
    """
    negatives = law.shape[1] - 1
    recall = np.cumsum(-np.sort(-law, axis=1), axis=1).mean(0)
    position = np.arange(negatives)
    overlap = np.minimum(position + 1, (alpha + d) * negatives) - np.maximum(position, alpha * negatives)
    return float((np.maximum(overlap, 0) * recall[:-1]).sum() / (d * negatives))
