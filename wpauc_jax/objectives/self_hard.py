"""Negatives that the model itself finds hard, told by its middle layers: ILRec (arXiv 2602.17410), as we read it."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_number, check_shape
from wpauc_jax.objectives.masked import Total, as_float, as_mask, total
from wpauc_jax.objectives.tawin import Scalar

Array = jax.typing.ArrayLike


def self_hard_loss(
    logits: Array,
    middle: Array,
    targets: Array,
    *,
    weight: Scalar = 0.1,
    ratio: Scalar = 1.0,
    distillation: Scalar = 0.1,
    where: Array | None = None,
) -> Total:
    """Cross-entropy in which hard negatives count more, plus a distillation of the last layer into those before it.

    M is the mean of the middle layers' logits. A negative is hard if M_v >= ratio * z_target, where z are the last
    layer's logits. With w the softmax of M over the hard ones, z_v + weight * w_v takes the place of z_v in the
    softmax. KL(p of the last layer || p of a middle one), its mean over the middle layers, joins with `distillation`;
    it moves the middle layers alone. w has no gradient.

    Args:
      logits: z [..., K]; -inf where an option does not exist.
      middle: logits of L middle layers [L, ..., K], -inf at the same places.
      targets: int[...], the place of the wanted option.
      weight: a of the paper; 0, like no hard negative, is cross-entropy.
      ratio: phi of the paper.
      distillation: how much the divergence counts.
      where: rows that count [...].

    Returns:
      Total over the rows that count.

    Raises:
      ValueError: a negative constant, or unequal shapes.
    """
    for name, value in (("weight", weight), ("ratio", ratio), ("distillation", distillation)):
        check_number(name, value, low=0.0)
    z, below, targets = as_float(logits), as_float(middle), jnp.asarray(targets)
    check_shape("middle", below[0], z.shape, "logits [..., K]")
    check_shape("targets", targets, z.shape[:-1], "logits [..., K]")
    counted = as_mask(where, targets.shape)
    exists = ~jnp.isneginf(z)
    z = jnp.where(counted[..., None], z, 0)
    below = jnp.where(counted[None, ..., None], below, 0)
    wanted = jnp.take_along_axis(z, targets[..., None], axis=-1)
    mean = jnp.where(exists, jnp.where(exists[None], below, 0).mean(0), -jnp.inf)
    is_target = jnp.arange(z.shape[-1]).reshape((1,) * targets.ndim + (-1,)) == targets[..., None]
    hard = exists & ~is_target & (mean >= ratio * wanted)
    share = jnp.where(hard, jax.nn.softmax(jnp.where(hard, mean, jnp.finfo(z.dtype).min), axis=-1), 0)
    pushed = z + weight * jax.lax.stop_gradient(share)
    losses = jax.nn.logsumexp(pushed, axis=-1) - wanted[..., 0]
    last = jax.lax.stop_gradient(jax.nn.log_softmax(z, axis=-1))
    gaps = jnp.where(exists[None], last[None] - jax.nn.log_softmax(below, axis=-1), 0)
    divergence = (jnp.exp(last)[None] * gaps).sum(-1).mean(0)
    return total(losses + distillation * divergence, counted)
