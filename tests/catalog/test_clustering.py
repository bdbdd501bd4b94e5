"""Residual k-means, with clusters of any size and of nearly equal sizes."""

import numpy as np
import pytest

from tests.data_worlds import clustered_points
from wpauc_jax.catalog.clustering import balanced_kmeans, kmeans, residual_clusters, residual_kmeans


def test_residual_kmeans_finds_groups_and_then_their_parts():
    codes = residual_kmeans(clustered_points(), levels=2, codes=4, seed=0)
    coarse = residual_kmeans(clustered_points(), levels=2, codes=3, seed=0)[:, 0].reshape(3, 20)
    assert (coarse == coarse[:, :1]).all()
    assert len(set(coarse[:, 0])) == 3
    assert codes.shape == (60, 2)
    parts = codes.reshape(12, 5, 2)
    assert (parts == parts[:, :1]).all()


def test_residual_kmeans_is_of_residuals():
    """Each level lowers the error that the levels above leave."""
    points = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    codes = residual_kmeans(points, levels=3, codes=8, seed=0)
    residual, errors = points.copy(), []
    for level in range(3):
        for code in range(8):
            members = codes[:, level] == code
            residual[members] -= residual[members].mean(0)
        errors.append(float((residual**2).sum()))
    assert errors[0] < 0.75 * (points**2).sum()
    assert errors[1] < 0.75 * errors[0]
    assert errors[2] < 0.75 * errors[1]


def test_centres_are_the_means_of_what_the_levels_above_leave():
    points = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    codes, centres = residual_clusters(points, levels=2, codes=64, seed=0)
    assert centres.shape == (2, 64, 3) and (centres[0, 40:] == 0).all()  # no more clusters than points
    codes, centres = residual_clusters(points, levels=2, codes=4, seed=0)
    residual = points
    for level in range(2):
        for code in range(4):
            of_code = residual[codes[:, level] == code]
            np.testing.assert_allclose(centres[level, code], of_code.mean(0), atol=1e-5)
        residual = residual - centres[level, codes[:, level]]


@pytest.mark.filterwarnings("error")
def test_fewer_points_than_codes():
    codes = residual_kmeans(np.eye(3), levels=2, codes=64, seed=0)
    assert sorted(codes[:, 0]) == [0, 1, 2]
    assert (residual_kmeans(np.ones((5, 2)), levels=2, codes=4, seed=0) == 0).all()


@pytest.mark.parametrize(("count", "clusters"), [(100, 7), (12, 12), (13, 5), (40, 1)])
def test_balanced_clusters_hold_their_share_at_most(count, clusters):
    points = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32) ** 3  # most are near the middle
    labels, centres = balanced_kmeans(points, clusters, seed=0)
    assert np.bincount(labels, minlength=clusters).max() <= -(-count // clusters)
    for cluster in np.unique(labels):
        np.testing.assert_allclose(centres[cluster], points[labels == cluster].mean(0), atol=1e-5)
    again, _ = balanced_kmeans(points, clusters, seed=0)
    np.testing.assert_array_equal(labels, again)


def test_a_full_cluster_keeps_its_nearest_points():
    points = np.array([0.0, 0.1, 0.2, 0.3, 4.0, 10.0])[:, None]
    labels, _ = balanced_kmeans(points, 2, seed=0)
    assert labels.tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])


def test_balanced_is_plain_where_groups_are_equal():
    points = clustered_points().astype(np.float32)  # three far groups of twenty
    plain, balanced = kmeans(points, 3, seed=0)[0], balanced_kmeans(points, 3, seed=0)[0]
    np.testing.assert_array_equal(plain, balanced)


def test_balanced_ids_collide_less():
    points = np.random.default_rng(0).normal(size=(400, 4)) ** 3
    plain = residual_kmeans(points, 2, 20, 0)
    balanced = residual_kmeans(points, 2, 20, 0, balanced=True)
    assert len(np.unique(balanced, axis=0)) > len(np.unique(plain, axis=0))
    assert np.bincount(balanced[:, 1]).max() == 20
