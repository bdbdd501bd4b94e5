"""Sizes of gradients against autodiff through the softmax of a whole catalog."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import exact_group_loss, gradient_sizes, shares_by_rank

ITEMS, GROUP = 30, 6
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(4, ITEMS)).astype(np.float32)
LISTED = np.argsort(-SCORES, axis=1)[:, :GROUP]


@pytest.mark.parametrize("balanced", [True, False])
def test_sizes_are_those_of_autodiff(balanced):
    pushes = RNG.normal(size=(4, GROUP)).astype(np.float32)
    pushes -= balanced * pushes.mean(1, keepdims=True)

    def loss(scores):
        return (pushes * jnp.take_along_axis(jax.nn.log_softmax(scores), LISTED, axis=1)).sum()

    expected = np.abs(jax.jit(jax.grad(loss))(SCORES)).sum(1)
    logps = np.take_along_axis(np.asarray(jax.nn.log_softmax(SCORES)), LISTED, axis=1)
    np.testing.assert_allclose(gradient_sizes(pushes, logps), expected, rtol=1e-4)


def test_a_lone_target_has_its_closed_form():
    """With the slope g of log p alone the size is 2 |g| (1 - p)."""
    target = np.array([3, 0, 7, 29])

    def loss(scores):
        return exact_group_loss(jax.nn.log_softmax(scores)[np.arange(4), target]).sum

    logps = jax.nn.log_softmax(SCORES)[np.arange(4), target]
    p = np.exp(logps)
    slope = -np.sqrt(p / (1 - p))
    found = gradient_sizes(slope[:, None], logps[:, None])
    np.testing.assert_allclose(found, np.abs(jax.jit(jax.grad(loss))(SCORES)).sum(1), rtol=1e-4)
    np.testing.assert_allclose(found, 2 * np.abs(slope) * (1 - p), rtol=1e-4)


def test_masked_entries_and_rows_without_a_list():
    logps = np.log(np.array([[0.5, 0.2, np.nan], [0.1, 0.1, 0.1]], np.float32))
    where = np.array([[True, True, False], [False, False, False]])
    sizes = gradient_sizes(np.array([[1, -1, np.nan], [1, 1, 1]], np.float32), logps, where=where)
    np.testing.assert_allclose(sizes, [2, 0], atol=1e-6)


def test_shares_by_bucket():
    ranks = np.array([0, 1, 2, 3, 9, 10, 49, 50, -1])
    sizes = np.arange(1, 10, dtype=np.float32)
    np.testing.assert_allclose(shares_by_rank(sizes, ranks), np.array([1, 5, 9, 13, 17]) / 45, rtol=1e-6)
    assert not np.asarray(shares_by_rank(np.zeros(9), ranks)).any()
