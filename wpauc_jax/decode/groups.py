"""The group of candidates that a user learns from: which negatives, and whether the target is among them."""

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode.search import search
from wpauc_jax.models import Params, Policy, PromptCache


def rollout(
    policy: Policy,
    params: Params,
    cache: PromptCache,
    trie: Trie,
    target: jax.Array,
    key: jax.Array,
    *,
    negatives: str,
    group_size: int,
    inject_target: str = "never",
    scoring: str = "constrained",
) -> jax.Array:
    """Items int32[B, G], distinct within a group, -1 where the catalogue has fewer.

    beam: the policy's G best items. sample: G draws without replacement. random: the target and G - 1 uniform others,
    the target first. With `inject_target` if_missing, a group without its target gets it in place of its last
    candidate; as candidates are distinct, `always` names the same group.
    """
    if negatives == "random":
        return random_group(target, key, num_items=trie.num_items, group_size=group_size)
    sampling_key = key if negatives == "sample" else None
    items = search(policy, params, cache, trie, num_beams=group_size, scoring=scoring, key=sampling_key).items
    return items if inject_target == "never" else with_target(items, target)


def with_target(items: jax.Array, target: jax.Array) -> jax.Array:
    """Items int32[B, G] with each target int32[B] among them, once: the last gives way where it is missing."""
    missing = ~(items == target[:, None]).any(axis=1)
    return items.at[:, -1].set(jnp.where(missing, target, items[:, -1]))


def random_group(target: jax.Array, key: jax.Array, *, num_items: int, group_size: int) -> jax.Array:
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
