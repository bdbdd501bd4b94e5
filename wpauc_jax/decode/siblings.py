"""Hard negatives from the trie: items that share the target's first tokens, in place of the group's last ones."""

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import Trie


def sibling_items(
    trie: Trie, target: jax.Array, key: jax.Array, *, depth: int, count: int, excluded: jax.Array | None = None
) -> jax.Array:
    """int32[B, count]: a uniform draw without replacement of items with the target's first `depth` tokens, or -1.

    Never the target, nor an item of `excluded` int32[B, E]. Where there are fewer than `count` the rest is -1. A target
    that ends within `depth` tokens has none. Costs an array [B, I].
    """
    B, nodes = target.shape[0], trie.paths[:, depth - 1]
    own = trie.path(target)[:, depth - 1, None]
    inside = (nodes[None] == own) & (own != trie.dead)
    rows = jnp.arange(B)[:, None]
    taken = target[:, None] if excluded is None else jnp.concatenate([target[:, None], excluded], axis=1)
    inside = inside.at[rows, jnp.where(taken < 0, trie.num_items, taken)].set(False, mode="drop")
    priority = jnp.where(inside, jax.random.uniform(key, inside.shape), -1.0)
    drawn, items = jax.lax.top_k(priority, min(count, trie.num_items))
    items = jnp.where(drawn >= 0, items, -1).astype(jnp.int32)
    return jnp.pad(items, ((0, 0), (0, count - items.shape[1])), constant_values=-1)


def with_siblings(items: jax.Array, siblings: jax.Array, target: jax.Array) -> jax.Array:
    """Items int32[B, G] with the siblings int32[B, M] among them; the last negatives give way. The target stays.

    Items stay distinct, and -1 is none. Behind the target, where it is there, come the siblings, then the others in
    their order.
    """
    again = (items[:, :, None] == siblings[:, None, :]).any(-1)
    both = jnp.concatenate([jnp.where(again, -1, items), siblings], axis=1)
    is_sibling = jnp.arange(both.shape[1]).reshape(1, -1) >= items.shape[1]
    order = jnp.where(both == target[:, None], 0, jnp.where(is_sibling, 1, 2))
    order = jnp.argsort(jnp.where(both < 0, 3, order), axis=1, stable=True)
    return jnp.take_along_axis(both, order, axis=1)[:, : items.shape[1]]
