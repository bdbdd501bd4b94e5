"""Which rows teach: the size of each row's gradient, and how it is divided by the rank of the target."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_shape
from wpauc_jax.objectives.masked import as_float, as_mask, safe_divide

Array = jax.typing.ArrayLike

RANK_BUCKETS = {"1": 1, "2-3": 3, "4-10": 10, "11-50": 50, "51+": None}  # the last rank of each, counted from 1


def gradient_sizes(pushes: Array, logps: Array, *, where: Array | None = None) -> jax.Array:
    """The absolute values of a row's gradient with respect to all items' scores, summed.

    The policy is a softmax of scores s over a catalog, of which a row lists G items. If the loss has the slope g_j with
    respect to log p_j of a listed item, it has g_j - p_j sum(g) with respect to s_j, and -p_j sum(g) for any item that
    is not listed. Nothing but the listed items' probabilities is needed. Slopes that sum to 0 push the listed items
    alone.

    Args:
      pushes: slopes g [..., G], or what is proportional to them, as weighted advantages are.
      logps: log-probabilities of whole items [..., G].
      where: valid items [..., G], each listed once.

    Returns:
      [...] of at least float32, a constant.

    Raises:
      ValueError: unequal shapes.
    """
    pushes, logps = as_float(pushes), as_float(logps)
    check_shape("logps", logps, pushes.shape, "pushes [..., G]")
    mask = as_mask(where, pushes.shape)
    pushes = jnp.where(mask, pushes, 0)
    mass = jnp.where(mask, jnp.exp(jnp.where(mask, logps, 0)), 0)
    together = jnp.sum(pushes, -1, keepdims=True)
    listed = jnp.sum(jnp.abs(pushes - mass * together), -1, where=mask)
    rest = jnp.maximum(1 - jnp.sum(mass, -1), 0)
    return jax.lax.stop_gradient(listed + rest * jnp.abs(together[..., 0]))


def shares_by_rank(sizes: Array, ranks: Array) -> jax.Array:
    """How sizes are divided among the buckets of `RANK_BUCKETS`.

    Args:
      sizes: [B], >= 0; ones give the share of rows.
      ranks: each row's rank of its target, 0-based int [B]; -1 where the target is in no list: the last bucket.

    Returns:
      [5] of at least float32, a constant; they sum to 1, or to 0 where all sizes are 0.

    Raises:
      ValueError: unequal shapes.
    """
    sizes, ranks = as_float(sizes), jnp.asarray(ranks)
    check_shape("ranks", ranks, sizes.shape, "sizes [B]")
    ends = jnp.asarray([end for end in RANK_BUCKETS.values() if end is not None])
    bucket = jnp.where(ranks < 0, len(ends), jnp.searchsorted(ends, ranks + 1))
    sums = jnp.sum(jax.nn.one_hot(bucket, len(RANK_BUCKETS), dtype=sizes.dtype) * sizes[:, None], 0)
    return jax.lax.stop_gradient(safe_divide(sums, jnp.sum(sums)))
