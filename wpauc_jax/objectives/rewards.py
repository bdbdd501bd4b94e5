"""Rewards of a group's candidates beyond "it is the target"."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_shape
from wpauc_jax.objectives.masked import as_float, as_mask, safe_divide
from wpauc_jax.objectives.ranking import descending_ranks

Array = jax.typing.ArrayLike


def ranking_reward(scores: Array, is_positive: Array, *, where: Array | None = None) -> jax.Array:
    """1 for a hit; in a group with a hit a miss loses the more, the higher it stands (ReRe, arXiv 2510.12211).

    A miss of rank k among the n candidates gets -(1 / log2(k + 2)) / sum_j 1 / log2(j + 2), j = 0 .. n - 1. In a group
    without a hit every candidate gets 0. That gate keeps groups without a hit out of the gradient.

    Args:
      scores: [..., G], the order of the candidates, for instance summed token log-probabilities. A constant.
      is_positive: [..., G], boolean or 0/1.
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32, 0 outside `where`.

    Raises:
      ValueError: unequal shapes.
    """
    scores = as_float(scores)
    mask = as_mask(where, scores.shape)
    positive = mask & as_mask(is_positive, scores.shape)
    ranks = descending_ranks(scores, where=mask)
    discount = jnp.where(mask, 1 / jnp.log2(jnp.maximum(ranks, 0) + 2.0), 0)
    loss = safe_divide(discount, jnp.sum(discount, -1, keepdims=True))
    gated = mask & ~positive & jnp.any(positive, -1, keepdims=True)
    return positive.astype(scores.dtype) - jnp.where(gated, loss, 0)


def cosine_reward(embeddings: Array, target: Array, *, where: Array | None = None) -> jax.Array:
    """The cosine of each candidate's embedding and the target's: 1 for the target itself.

    Args:
      embeddings: the candidates' [..., G, D].
      target: the target's [..., D].
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32, from -1 to 1; 0 where either embedding is 0, and outside `where`.

    Raises:
      ValueError: unequal shapes.
    """
    embeddings, target = as_float(embeddings), as_float(target)
    check_shape("target", target, (*embeddings.shape[:-2], embeddings.shape[-1]), "embeddings [..., G, D]")
    mask = as_mask(where, embeddings.shape[:-1])
    embeddings = jnp.where(mask[..., None], embeddings, 0)
    products = jnp.sum(embeddings * target[..., None, :], -1)
    squares = jnp.sum(jnp.square(embeddings), -1) * jnp.sum(jnp.square(target), -1)[..., None]
    nonzero = mask & (squares > 0)
    return jnp.where(nonzero, products * jax.lax.rsqrt(jnp.where(nonzero, squares, 1)), 0)
