"""Advantages of single tokens: for groups whose items share their first tokens, and for improbable negatives."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_number, check_shape
from wpauc_jax.objectives.masked import as_float, as_mask, safe_divide

Array = jax.typing.ArrayLike


def sibling_advantages(rewards: Array, nodes: Array, *, eps: float = 1e-4, where: Array | None = None) -> jax.Array:
    """How much better a token is than the other tokens that the group took at the same place (arXiv 2602.10699).

    The value of a node of the trie is the mean reward of the candidates that pass through it. Its siblings are the
    nodes of the group with the same parent, itself included. Its advantage is its value minus the siblings' mean,
    divided by their population standard deviation + eps. A node without another sibling has 0: nothing was compared.
    The paper's text was not to be had; this is our reading of the method's description.

    Args:
      rewards: [..., G].
      nodes: the candidates' paths, int [..., G, C]; equal numbers at equal depth are one node.
      eps: >= 0, added to the standard deviation.
      where: tokens that count [..., G, C].

    Returns:
      [..., G, C] of at least float32, a constant; 0 outside `where`. An array [..., G, G, C] is made.

    Raises:
      ValueError: a constant eps < 0, or unequal shapes.
    """
    check_number("eps", eps, low=0.0)
    rewards, nodes = as_float(rewards), jnp.asarray(nodes)
    check_shape("rewards", rewards, nodes.shape[:-1], "nodes [..., G, C]")
    mask = as_mask(where, nodes.shape)
    both = mask[..., :, None, :] & mask[..., None, :, :]
    same = both & (nodes[..., :, None, :] == nodes[..., None, :, :])
    count = jnp.sum(same, -2).astype(rewards.dtype)
    value = safe_divide(jnp.sum(jnp.where(same, rewards[..., None, :, None], 0), -2), count)
    # One parent: the nodes before are the same; at the first depth all are children of the root.
    begins = jnp.ones_like(same[..., :1])
    siblings = both & jnp.concatenate([begins, same[..., :-1]], -1)
    share = jnp.where(siblings, safe_divide(jnp.ones_like(count), count)[..., None, :, :], 0)  # each node once
    number = jnp.sum(share, -2)
    mean = safe_divide(jnp.sum(share * value[..., None, :, :], -2), number)
    squares = jnp.square(value[..., None, :, :] - mean[..., :, None, :])
    variance = safe_divide(jnp.sum(share * squares, -2), number)
    compared = mask & (variance > 0)
    scale = jnp.sqrt(jnp.where(compared, variance, 1)) + eps
    return jax.lax.stop_gradient(jnp.where(compared, (value - mean) / scale, 0))


def bounded_negatives(advantages: Array, logps: Array) -> jax.Array:
    """Advantages of tokens of which improbable ones are pushed down less (GBPO, arXiv 2508.20900).

    The ratio of a token with a negative advantage is taken over max(p_old, 1 - p), p a constant. Where the policy that
    rolled out is the policy that is updated, this multiplies the advantage by p / max(p, 1 - p): by 1 from p = 1/2 on,
    and about by p for small p. So no gradient grows beyond all bounds as a token's probability goes to 0.

    Args:
      advantages: [..., G], or [..., G, C].
      logps: log-probabilities of the candidates' tokens [..., G, C]; a constant.

    Returns:
      [..., G, C] of at least float32, a constant.

    Raises:
      ValueError: unequal shapes.
    """
    logps, advantages = as_float(logps), as_float(advantages)
    if advantages.ndim < logps.ndim:
        advantages = advantages[..., None]
        check_shape("advantages", advantages[..., 0], logps.shape[:-1], "logps [..., G, C]")
    else:
        check_shape("advantages", advantages, logps.shape, "logps [..., G, C]")
    p = jnp.exp(logps)
    bound = safe_divide(p, jnp.maximum(p, 1 - p))
    return jax.lax.stop_gradient(jnp.where(advantages < 0, bound, 1) * advantages)


def prefix_loss(losses: Array, *, eta: float = 1.0, where: Array | None = None) -> jax.Array:
    """The mean losses of first tokens, the worst of them weighing most (APAO, arXiv 2603.02730).

    A beam search keeps an item only while its first tokens are among the best. L_t is the mean loss of the first t
    tokens, over all rows with as many. The result is sum_t w_t L_t with w_t proportional to L_t exp(eta L_t), a
    constant of sum 1. Towards eta = infinity only the worst prefix counts.

    Args:
      losses: of the items' tokens [..., C], negative log-probabilities.
      eta: >= 0, how much more the worst prefix weighs.
      where: tokens that count [..., C].

    Returns:
      A scalar; 0 where nothing counts.

    Raises:
      ValueError: a constant eta < 0, or a mask of another shape.
    """
    check_number("eta", eta, low=0.0)
    losses = as_float(losses)
    mask = as_mask(where, losses.shape)
    steps = jnp.arange(1, losses.shape[-1] + 1, dtype=losses.dtype)
    of_prefix = jnp.cumsum(jnp.where(mask, losses, 0), -1) / steps.reshape((1,) * (losses.ndim - 1) + (-1,))
    rows = tuple(range(losses.ndim - 1))
    mean = safe_divide(jnp.sum(jnp.where(mask, of_prefix, 0), rows), jnp.sum(mask, rows).astype(losses.dtype))
    fixed = jax.lax.stop_gradient(mean)
    weight = fixed * jnp.exp(eta * (fixed - jnp.max(fixed)))
    return jnp.sum(safe_divide(weight, jnp.sum(weight)) * mean)
