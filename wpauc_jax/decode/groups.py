"""The group of candidates that RL learns from: which negatives it has, and whether the target is among them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.decode.ranker import Prefilled, Ranker
from wpauc_jax.models import Params


def rollout(
    ranker: Ranker,
    params: Params,
    asked: Prefilled,
    batch: RlBatch,
    key: jax.Array,
    *,
    negatives: str,
    group_size: int,
    inject_target: str = "never",
) -> jax.Array:
    """Items int32[B, G], distinct within a group, -1 where the catalog has fewer.

    The names are those of `rl.negatives` and `rl.inject_target`: see `NEGATIVES` and `INJECTED`.
    """
    items = NEGATIVES[negatives](ranker, params, asked, batch, key, group_size)
    return INJECTED[inject_target](items, batch.target)


def beam_group(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """The policy's G best items."""
    return ranker.search(params, asked, num_beams=group_size).items


def sampled_group(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """G draws from the policy without replacement."""
    return ranker.search(params, asked, num_beams=group_size, key=key).items


def random_group(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """The target first, then G - 1 others, a uniform subset of the items that may answer."""
    num_items, excluded = ranker.trie.num_items, batch.prompts.excluded
    return uniform_group(batch.target, key, num_items=num_items, group_size=group_size, excluded=excluded)


def as_found(items: jax.Array, target: jax.Array) -> jax.Array:
    """Items as they are, with their target or without."""
    return items


def with_target(items: jax.Array, target: jax.Array) -> jax.Array:
    """Items int32[B, G] with each target int32[B] among them, once: the last gives way where it is missing."""
    missing = ~(items == target[:, None]).any(axis=1)
    return items.at[:, -1].set(jnp.where(missing, target, items[:, -1]))


def uniform_group(
    target: jax.Array, key: jax.Array, *, num_items: int, group_size: int, excluded: jax.Array | None = None
) -> jax.Array:
    """int32[B, G]: the target, then `group_size - 1` others, a uniform subset, by Floyd's algorithm.

    Items `excluded` int32[B, E], -1 for none, are not among the others. Where there are too few others, -1.
    """
    B, wanted = target.shape[0], min(group_size - 1, num_items - 1)
    taken = target[:, None] if excluded is None else jnp.concatenate([target[:, None], excluded], axis=1)
    taken = _distinct(taken, num_items)
    others = num_items - (taken < num_items).sum(axis=1)  # int[B], how many there are to draw from
    drawn = jnp.full((B, wanted), -1, jnp.int32)

    def draw(i: jax.Array, drawn: jax.Array) -> jax.Array:
        last = others - wanted + i
        pick = jax.random.randint(jax.random.fold_in(key, i), (B,), 0, jnp.maximum(last, 0) + 1)
        seen = (drawn == pick[:, None]).any(axis=1)
        return drawn.at[:, i].set(jnp.where(last < 0, -1, jnp.where(seen, last, pick)).astype(jnp.int32))

    drawn = jax.lax.fori_loop(0, wanted, draw, drawn)
    # From a number among the others to an item: one more for each taken item that stands before it.
    before = taken - jnp.arange(taken.shape[1]).reshape(1, -1)
    items = drawn + (before[:, None, :] <= drawn[:, :, None]).sum(axis=-1, dtype=jnp.int32)
    items = jnp.where(drawn < 0, -1, items)
    return jnp.pad(
        jnp.concatenate([target[:, None], items], axis=1), ((0, 0), (0, group_size - 1 - wanted)), constant_values=-1
    )


def _distinct(items: jax.Array, num_items: int) -> jax.Array:
    """Each row's items int32[B, E] once, ascending; behind them `num_items` and more, each larger by at least 1."""
    ordered = jnp.sort(items, axis=1)
    again = jnp.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (1, 0)))
    ordered = jnp.sort(jnp.where(again | (ordered < 0), num_items, ordered), axis=1)
    return jnp.where(ordered < num_items, ordered, num_items + jnp.arange(items.shape[1]).reshape(1, -1))


# By `rl.negatives`: (ranker, params, asked, batch, key, G) -> items int32[B, G].
NEGATIVES: dict[str, Callable[[Ranker, Params, Prefilled, RlBatch, jax.Array, int], jax.Array]] = {
    "beam": beam_group,
    "sample": sampled_group,
    "random": random_group,
}

# By `rl.inject_target`: (items int32[B, G], target int32[B]) -> items. As candidates are distinct, a target that is put
# in where it is missing is put in always.
INJECTED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "never": as_found,
    "if_missing": with_target,
    "always": with_target,
}
