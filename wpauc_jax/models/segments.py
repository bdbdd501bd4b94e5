"""Sequences that are packed into one row: each is a segment, a run of one number in int32[B, T]."""

import jax
import jax.numpy as jnp


def begins(segments: jax.Array) -> jax.Array:
    """bool[B, T]: where a segment begins."""
    before = jnp.concatenate([segments[:, :1] - 1, segments[:, :-1]], axis=1)
    return segments != before


def places(segments: jax.Array) -> jax.Array:
    """int32[B, T]: each token's place in its segment."""
    index = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
    return index - jax.lax.cummax(jnp.where(begins(segments), index, 0), axis=1)
