"""Small parts of a beam search, on arrays alone."""

import functools

import jax
import jax.numpy as jnp

from wpauc_jax.runtime.sharding import by_user


def top(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest of each user's row, with their places. XLA's own top-k would gather all users first."""
    return by_user(functools.partial(jax.lax.top_k, k=count))(scores)


def take(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[b, index[b, w], ...] for x[B, W, ...] and index int[B, W']."""
    return jax.vmap(lambda row, i: row[i])(x, index)


def perturbed(key: jax.Array, totals: jax.Array, parent: jax.Array) -> jax.Array:
    """Gumbel-perturbed log-probabilities of children whose maximum is their parent's own value (Kool et al., B.3)."""
    noisy = totals + jax.random.gumbel(key, totals.shape)
    peak = noisy.max(-1, keepdims=True)
    gap = jnp.log1p(-jnp.exp(jnp.minimum(noisy - peak, 0.0)))  # -inf at the maximum
    shifted = parent[..., None] - noisy + gap
    bounded = parent[..., None] - jnp.maximum(shifted, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(shifted)))
    return jnp.where(jnp.isneginf(totals), -jnp.inf, bounded)


def step_shares(log_shares: jax.Array, parent: jax.Array, child: jax.Array) -> jax.Array:
    """The logs [B, ...] of the shares of nodes int32[B, ...] in what lies below their parents; 0 where nothing does.

    `log_shares` is [B, N]; `parent` broadcasts to the shape of `child`.
    """
    below, above = take(log_shares, child), take(log_shares, parent)
    nothing = jnp.isneginf(below) | jnp.isneginf(above)
    return jnp.where(nothing, 0.0, jnp.where(nothing, 0.0, below) - jnp.where(nothing, 0.0, above))
