"""Prefix hints: a group that lacks its target begins behind the target's first tokens (SINGER, read in its abstract).

A hint is the number of those tokens. The group is then the best items that begin with them. The least hint counts
whose group holds the target. What follows a hint is learnt from the group, and the hint itself from its likelihood.
"""

import jax
import jax.numpy as jnp

from wpauc_jax.decode.beams import top
from wpauc_jax.decode.ranker import Prefilled, Ranker
from wpauc_jax.models import Params


def hinted_groups(
    ranker: Ranker, params: Params, asked: Prefilled, items: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Groups int32[B, G], those without their target int32[B] begun anew, and the hints int32[B] that this took.

    A group keeps its items, and has the hint 0, where it holds its target, and where no hint helps. All items are
    scored, so that there is no search for each hint: exact, at the cost of an array [B, I].
    """
    trie, own = ranker.trie, ranker.trie.path(target)
    scores = ranker.score_all(params, asked)
    width = min(items.shape[1], trie.num_items)
    done, hints = (items == target[:, None]).any(axis=1), jnp.zeros(target.shape, jnp.int32)
    for hint in range(1, trie.depth):
        node = own[:, hint - 1, None]
        begins = (trie.paths[:, hint - 1][None] == node) & (node != trie.dead)
        best, found = top(jnp.where(begins, scores, -jnp.inf), width)
        found = jnp.where(jnp.isneginf(best), -1, found).astype(jnp.int32)
        found = jnp.pad(found, ((0, 0), (0, items.shape[1] - width)), constant_values=-1)
        helps = ~done & (found == target[:, None]).any(axis=1)
        items, hints = jnp.where(helps[:, None], found, items), jnp.where(helps, hint, hints)
        done |= helps
    return items, hints
