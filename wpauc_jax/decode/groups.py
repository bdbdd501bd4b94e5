"""The group of candidates that RL learns from: which negatives it has, and whether the target is among them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.decode.ranker import Prefilled, Ranker
from wpauc_jax.decode.siblings import sibling_items, with_siblings
from wpauc_jax.models import Params

_SIBLINGS = 0x7369626C  # tells the key of siblings from those of a rollout's depths


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
    targets: jax.Array | None = None,
    num_siblings: int = 0,
    sibling_depth: int = 1,
) -> jax.Array:
    """Items int32[B, G], distinct within a group, -1 where the catalog has fewer.

    The names are those of `rl.negatives` and `rl.inject_target`: see `NEGATIVES` and `INJECTED`. With `num_siblings`
    as many negatives are drawn from items that share the target's first `sibling_depth` tokens. Where rows have
    several targets, int32[B, N] with -1 for none, all of them are put in.
    """
    items = NEGATIVES[negatives](ranker, params, asked, batch, key, group_size)
    if num_siblings:
        siblings = sibling_items(
            ranker.trie,
            batch.target,
            jax.random.fold_in(key, _SIBLINGS),
            depth=sibling_depth,
            count=num_siblings,
            excluded=batch.prompts.excluded,
        )
        items = with_siblings(items, siblings, batch.target)
    return INJECTED[inject_target](items, batch.target[:, None] if targets is None else targets)


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
    """Items as they are, with their targets or without."""
    return items


def with_target(items: jax.Array, targets: jax.Array) -> jax.Array:
    """Items int32[B, G] with all targets int32[B, N] among them, each once: the last negatives give way.

    Several targets come first.
    """
    if targets.shape[1] == 1:
        missing = ~(items == targets).any(axis=1)
        return items.at[:, -1].set(jnp.where(missing, targets[:, 0], items[:, -1]))
    again = (items[:, :, None] == targets[:, None, :]).any(-1)
    both = jnp.concatenate([targets, jnp.where(again, -1, items)], axis=1)
    order = jnp.argsort(both < 0, axis=1, stable=True)
    return jnp.take_along_axis(both, order, axis=1)[:, : items.shape[1]]


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

# By `rl.inject_target`: (items int32[B, G], targets int32[B, N]) -> items. As candidates are distinct, a target that is
# put in where it is missing is put in always. `hinted_groups` comes after a rollout.
INJECTED: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "never": as_found,
    "if_missing": with_target,
    "always": with_target,
    "hint": as_found,
}
