"""Residual k-means: codes for points, level by level, with clusters of any size or of nearly equal sizes."""

import math
from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans

# (points [I, D], the number of clusters, seed) -> (labels int[I], centres [clusters, D])
Clustering = Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]

_BALANCING_STEPS = 10  # of assigning all points and moving all centres; more change little


def residual_kmeans(points: np.ndarray, levels: int, codes: int, seed: int, *, balanced: bool = False) -> np.ndarray:
    """Codes int32[I, levels]; see `residual_clusters`."""
    return residual_clusters(points, levels, codes, seed, balanced=balanced)[0]


def residual_clusters(
    points: np.ndarray, levels: int, codes: int, seed: int, *, balanced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Codes int32[I, levels] of points [I, D] and centres float32[levels, codes, D], zeros where there is no cluster.

    Each level clusters what is left of the points without the centres of the levels above. A level has never more
    clusters than distinct residuals. With `balanced` no code of a level has more than ceil(I / clusters) points. The
    same input gives the same codes on one machine, if only one thread computes.
    """
    cluster: Clustering = balanced_kmeans if balanced else kmeans
    residual = np.asarray(points, np.float32).copy()
    out = np.empty((len(residual), levels), np.int32)
    centres = np.zeros((levels, codes, residual.shape[1]), np.float32)
    for level in range(levels):
        clusters = min(codes, len(np.unique(residual, axis=0)))
        out[:, level], centres[level, :clusters] = cluster(residual, clusters, seed + level)
        residual -= centres[level, out[:, level]]
    return out, centres


def kmeans(points: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lloyd's k-means: labels int[I] and centres [clusters, D]."""
    means = KMeans(clusters, n_init=1, max_iter=50, random_state=seed).fit(points)
    return means.labels_, means.cluster_centers_


def balanced_kmeans(points: np.ndarray, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """K-means whose clusters hold at most ceil(I / clusters) points each: labels int[I] and centres [clusters, D].

    It begins with the centres of plain k-means. Memory is that of the distances, float32[I, clusters].
    """
    labels, centres = kmeans(points, clusters, seed)
    for _ in range(_BALANCING_STEPS):
        before, labels = labels, _with_room(_distances(points, centres), math.ceil(len(points) / clusters))
        counts = np.bincount(labels, minlength=clusters)[:, None]
        sums = np.zeros_like(centres)
        np.add.at(sums, labels, points)
        centres = np.where(counts, sums / np.maximum(counts, 1), centres)
        if (labels == before).all():
            break
    return labels, centres


def _with_room(distances: np.ndarray, room_each: int) -> np.ndarray:
    """A cluster int[I] for each point, near it, where no cluster takes more than `room_each`.

    Each round every point that is left asks for the nearest cluster with room. A cluster takes those first that would
    lose most by going to their next nearest. A round fills a cluster or ends, so there are at most as many rounds as
    clusters.
    """
    distances = distances.copy()
    room = np.full(distances.shape[1], room_each)
    labels = np.full(len(distances), -1)
    left = np.arange(len(distances))
    while len(left):
        wanted = distances[left].argmin(1)
        order = np.lexsort((-_loss_elsewhere(distances[left]), wanted))  # by cluster, the greatest loss first
        left, wanted = left[order], wanted[order]
        begins = np.searchsorted(wanted, np.arange(len(room)))
        taken = np.arange(len(left)) - begins[wanted] < room[wanted]
        labels[left[taken]] = wanted[taken]
        room -= np.bincount(wanted[taken], minlength=len(room))
        left = left[~taken]
        distances[:, room == 0] = np.inf
    return labels


def _loss_elsewhere(distances: np.ndarray) -> np.ndarray:
    """How much farther than the nearest cluster the next one is: [I]."""
    if distances.shape[1] == 1:
        return np.zeros(len(distances))
    nearest = np.partition(distances, 1, axis=1)
    return nearest[:, 1] - nearest[:, 0]


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances [I, clusters], less each point's own square, which no comparison needs."""
    return (centres**2).sum(1)[None] - 2 * points @ centres.T
