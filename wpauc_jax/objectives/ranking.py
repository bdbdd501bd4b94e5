"""Ranks by sorting. Nothing compares all pairs, so memory stays linear in the size of a group."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.masked import as_float, as_mask, safe_divide


def descending_ranks(scores: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None) -> jax.Array:
    """Position of each entry in the descending order of the entries where `where` holds.

    Args:
      scores: [..., n]; -inf is an ordinary, last score.
      where: entries that take part [..., n].

    Returns:
      int32 [..., n], 0 for the highest score; ties go by index, so the order is strict; -1 outside `where`.
    """
    scores = jax.lax.stop_gradient(jnp.asarray(scores))
    mask = as_mask(where, scores.shape)
    indices = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    ascending = -scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    order = jax.lax.sort((~mask, ascending, indices), dimension=-1, is_stable=True, num_keys=2)[2]
    ranks = jax.lax.sort((order, indices), dimension=-1, num_keys=1)[1]  # the inverse permutation
    return jnp.where(mask, ranks, -1)


def top_shares(scores: jax.typing.ArrayLike, rate: jax.typing.ArrayLike, *, where: jax.Array) -> jax.Array:
    """Weights [..., N] that sum to 1, even over the top `rate` of the n valid scores and 0 elsewhere.

    Those of rank below rate * n count, the one cut by the end in part. All weights are 0 where no score is valid.
    """
    end = jnp.asarray(rate * jnp.sum(where, -1, keepdims=True), as_float(scores).dtype)
    return safe_divide(jnp.where(where, jnp.clip(end - descending_ranks(scores, where=where), 0, 1), 0), end)


def negative_ranks(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Rank of each negative among the negatives of its group, written sigma in docs/theory.md.

    The positives are taken out before ranking, so a group of G candidates with one hit has ranks 0 .. G - 2.

    Args:
      scores: [..., G], for instance summed token log-probabilities.
      is_positive: [..., G], boolean or 0/1.
      where: valid candidates [..., G].

    Returns:
      int32 [..., G]: 0 for the highest-scored negative, ties by index; -1 for positives and masked candidates.

    Raises:
      ValueError: `is_positive` or `where` has another shape than `scores`.
    """
    shape = jnp.shape(scores)
    negative = as_mask(where, shape) & ~as_mask(is_positive, shape)
    return descending_ranks(scores, where=negative)
