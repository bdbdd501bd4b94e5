"""The group of candidates that RL learns from: which negatives it has, and whether the target is among them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.decode.ranker import Ranker
from wpauc_jax.models import Params, PromptCache


def rollout(
    ranker: Ranker,
    params: Params,
    cache: PromptCache,
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
    items = NEGATIVES[negatives](ranker, params, cache, batch, key, group_size)
    return INJECTED[inject_target](items, batch.target)


def beam_group(
    ranker: Ranker, params: Params, cache: PromptCache, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """The policy's G best items."""
    return ranker.search(params, cache, num_beams=group_size).items


def sampled_group(
    ranker: Ranker, params: Params, cache: PromptCache, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """G draws from the policy without replacement."""
    return ranker.search(params, cache, num_beams=group_size, key=key).items


def random_group(
    ranker: Ranker, params: Params, cache: PromptCache, batch: RlBatch, key: jax.Array, group_size: int
) -> jax.Array:
    """The target first, then G - 1 others, a uniform subset of the catalog."""
    return uniform_group(batch.target, key, num_items=ranker.trie.num_items, group_size=group_size)


def as_found(items: jax.Array, target: jax.Array) -> jax.Array:
    """Items as they are, with their target or without."""
    return items


def with_target(items: jax.Array, target: jax.Array) -> jax.Array:
    """Items int32[B, G] with each target int32[B] among them, once: the last gives way where it is missing."""
    missing = ~(items == target[:, None]).any(axis=1)
    return items.at[:, -1].set(jnp.where(missing, target, items[:, -1]))


def uniform_group(target: jax.Array, key: jax.Array, *, num_items: int, group_size: int) -> jax.Array:
    """int32[B, G]: the target, then `group_size - 1` others, a uniform subset, by Floyd's algorithm."""
    B, others, wanted = target.shape[0], num_items - 1, min(group_size - 1, num_items - 1)
    drawn = jnp.full((B, wanted), -1, jnp.int32)

    def draw(i: jax.Array, drawn: jax.Array) -> jax.Array:
        last = others - wanted + i
        pick = jax.random.randint(jax.random.fold_in(key, i), (B,), 0, last + 1)
        seen = (drawn == pick[:, None]).any(axis=1)
        return drawn.at[:, i].set(jnp.where(seen, last, pick).astype(jnp.int32))

    drawn = jax.lax.fori_loop(0, wanted, draw, drawn)
    drawn += drawn >= target[:, None]  # 0 .. I - 2 without the target
    return jnp.pad(
        jnp.concatenate([target[:, None], drawn], axis=1), ((0, 0), (0, group_size - 1 - wanted)), constant_values=-1
    )


# By `rl.negatives`: (ranker, params, cache, batch, key, G) -> items int32[B, G].
NEGATIVES: dict[str, Callable[[Ranker, Params, PromptCache, RlBatch, jax.Array, int], jax.Array]] = {
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
