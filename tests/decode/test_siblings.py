"""Negatives that share the target's first tokens, against the catalog's own sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import trie_for, variable_length_items
from wpauc_jax.decode.groups import with_target
from wpauc_jax.decode.siblings import sibling_items, with_siblings

ITEMS = variable_length_items(count=60, longest=3)
TRIE = trie_for(ITEMS, "constrained")
TARGETS = jnp.arange(60)


def shared(i, j):
    """How many first tokens two items share."""
    same = [a == b for a, b in zip(ITEMS[i], ITEMS[j], strict=False)]
    return same.index(False) if False in same else len(same)


@pytest.mark.parametrize("depth", [1, 2])
def test_siblings_are_in_the_catalog_share_tokens_and_are_drawn_evenly(depth):
    excluded = jnp.full((60, 2), -1).at[:, 0].set((TARGETS + 1) % 60)
    draw = jax.jit(lambda key: sibling_items(TRIE, TARGETS, key, depth=depth, count=4, excluded=excluded))
    seen = np.zeros((60, 60), int)
    for seed in range(30):
        found = np.asarray(draw(jax.random.key(seed)))
        for target, row in enumerate(found):
            own = row[row >= 0]
            assert len(set(own)) == len(own)
            seen[target, own] += 1
    paths = np.asarray(TRIE.paths)
    inside = (paths[:, None, depth - 1] == paths[None, :, depth - 1]) & (paths[:, None, depth - 1] != TRIE.dead)
    inside &= ~np.eye(60, dtype=bool) & (np.arange(60)[None] != (np.arange(60)[:, None] + 1) % 60)
    assert inside.any() and ((seen > 0) <= inside).all()
    assert all(shared(i, j) >= depth for i, j in zip(*np.nonzero(seen), strict=True))
    few = inside & (inside.sum(1, keepdims=True) <= 4)
    assert (seen[few] == 30).all()  # where there are no more than asked for, all of them
    many = inside.sum(1) > 8
    if many.any():
        rate = seen[many] / 30 * inside[many].sum(1, keepdims=True) / 4
        assert np.abs(rate.sum(1) / inside[many].sum(1) - 1).max() < 1e-6 and rate.max() < 3.5


def test_the_target_stays_and_nothing_stands_twice():
    items = jnp.array([[7, 4, 1, 9, 3], [5, 6, 2, 8, -1], [1, 2, 3, 4, 5]])
    siblings = jnp.array([[4, 11], [12, -1], [-1, -1]])
    found = with_siblings(items, siblings, jnp.array([3, 40, 9]))
    assert found.tolist() == [[3, 4, 11, 7, 1], [12, 5, 6, 2, 8], [1, 2, 3, 4, 5]]


def test_several_targets_are_put_in_once_each():
    items = jnp.array([[7, 4, 1, 9], [5, 6, 2, -1]])
    found = with_target(items, jnp.array([[1, 30], [8, -1]]))
    assert found.tolist() == [[1, 30, 7, 4], [8, 5, 6, 2]]
    assert with_target(items, jnp.array([[1], [8]])).tolist() == [[7, 4, 1, 9], [5, 6, 2, 8]]
