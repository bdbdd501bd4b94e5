"""Soft Recall@K: whether one target stands above the K-th best negative, as a sigmoid, and losses made of it.

For one positive, WPAUC of the window of Recall@K is 1[s > b_K]: s is the target's score and b_K that of the K-th best
negative. A group has a gradient only where this comparison can be seen in it. Its smooth form, sigmoid((s - b_K) / T),
has one everywhere. The threshold is a constant: only the target's score is moved.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice, check_number, check_shape
from wpauc_jax.objectives.masked import Total, as_float, as_mask, masked_logsumexp, total
from wpauc_jax.objectives.tawin import Scalar, tawin_weights

Array = jax.typing.ArrayLike


def top_k_threshold(scores: Array, k: int, *, where: Array | None = None) -> jax.Array:
    """The k-th best score: a target is in the top k of the others exactly if it is above.

    Args:
      scores: the negatives' [..., n], for instance of a beam search of k + 1 beams without the target.
      k: >= 1.
      where: valid negatives [..., n]; the target is none.

    Returns:
      [...], a constant; -inf where there are fewer than k negatives, and so every target is among the first k.

    Raises:
      ValueError: k < 1, or a mask of another shape.
    """
    check_number("k", k, low=1)
    scores = jax.lax.stop_gradient(as_float(scores))
    scores = jnp.where(as_mask(where, scores.shape), scores, -jnp.inf)
    if k > scores.shape[-1]:
        return jnp.full(scores.shape[:-1], -jnp.inf, scores.dtype)
    return jax.lax.top_k(scores, k)[0][..., -1]


def window_threshold(
    scores: Array,
    *,
    anchor: Scalar,
    temperature: Scalar = 1.0,
    mass: Scalar = 1.0,
    rank_scale: str = "rank",
    where: Array | None = None,
) -> jax.Array:
    """The log of the mean of exp(score) in TAWin's window: log of the sum of weight * exp(score), weights of sum 1.

    Towards temperature 0 it is the score of rank `anchor`, so anchor = k - 1 is `top_k_threshold(scores, k)`. Towards
    infinity it is the mean of all negatives. What the window's settings mean is told at `tawin_weights`.

    Args:
      scores: the negatives' [..., n].
      anchor: rank at the window's centre, 0-based.
      temperature: width of the window.
      mass: number of negatives that it holds.
      rank_scale: how the distance of two ranks is measured.
      where: valid negatives [..., n]; the target is none.

    Returns:
      [...], a constant; -inf where there is no negative.

    Raises:
      ValueError: as `tawin_weights`.
    """
    scores = jax.lax.stop_gradient(as_float(scores))
    valid = as_mask(where, scores.shape)
    scores = jnp.where(valid, scores, 0)
    # One positive beside the negatives, since a one-sided group has no window.
    beside = [(0, 0)] * (scores.ndim - 1) + [(0, 1)]
    weights = tawin_weights(
        jnp.pad(scores, beside),
        jnp.pad(jnp.zeros_like(valid), beside, constant_values=True),
        anchor=anchor,
        temperature=temperature,
        mass=mass,
        rank_scale=rank_scale,
        where=jnp.pad(valid, beside, constant_values=True),
    )[..., :-1]
    inside = valid & (weights > 0)
    count = jnp.maximum(jnp.sum(valid, -1), 1).astype(scores.dtype)
    sums = masked_logsumexp(scores + jnp.log(jnp.where(inside, weights, 1)), inside) - jnp.log(count)
    return jnp.where(jnp.any(inside, -1), sums, -jnp.inf)


def soft_recall(target_scores: Array, thresholds: Array, *, temperature: Scalar = 1.0) -> jax.Array:
    """sigmoid((target's score - threshold) / temperature): Recall@K for temperature 0, and 1/2 at the threshold.

    Args:
      target_scores: [...].
      thresholds: [...], a constant, as `top_k_threshold` and `window_threshold` give them.
      temperature: > 0, in units of scores.

    Returns:
      [...] in [0, 1]; 1, without a gradient, for a threshold of -inf; 0, likewise, for a target of -inf.

    Raises:
      ValueError: a constant temperature <= 0, or unequal shapes.
    """
    check_number("temperature", temperature, low=0.0, open_low=True)
    scores, thresholds = as_float(target_scores), jax.lax.stop_gradient(as_float(thresholds))
    check_shape("thresholds", thresholds, scores.shape, "target_scores")
    compared = ~jnp.isneginf(scores) & ~jnp.isneginf(thresholds)
    margin = jnp.where(compared, scores, 0) - jnp.where(compared, thresholds, 0)
    return jnp.where(compared, jax.nn.sigmoid(margin / temperature), jnp.where(jnp.isneginf(scores), 0.0, 1.0))


def soft_top_k_loss(
    target_logps: Array,
    thresholds: Array,
    *,
    temperature: Scalar = 1.0,
    form: str = "likelihood",
    where: Array | None = None,
) -> Total:
    """A loss that aims at the top K through one comparison for each row; r is `soft_recall` of the log-probability.

    `likelihood` is r * -log p with r a constant (SL@K, arXiv 2508.05673): cross-entropy, of which a row far below its
    threshold has little. For K beyond the last negative it is cross-entropy. `surrogate` is -r itself: bounded, and
    its gradient -r (1 - r) / temperature * grad log p is largest at the threshold.

    Args:
      target_logps: log p [...], summed over the target's tokens.
      thresholds: [...], a constant in the same units.
      temperature: > 0; towards infinity `likelihood` is half of cross-entropy.
      form: `likelihood` or `surrogate`.
      where: rows that count [...].

    Returns:
      Total over the rows that count and whose target is possible, log p > -inf.

    Raises:
      ValueError: an unknown `form`, a constant temperature <= 0, or unequal shapes.
    """
    check_choice("form", form, SOFT_FORMS)
    logps = as_float(target_logps)
    counted = as_mask(where, logps.shape) & ~jnp.isneginf(logps)
    logps = jnp.where(counted, logps, 0)
    return total(SOFT_FORMS[form](logps, soft_recall(logps, thresholds, temperature=temperature)), counted)


# By `form`: (log p, soft recall) -> the loss of each row.
SOFT_FORMS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "likelihood": lambda logps, recall: -jax.lax.stop_gradient(recall) * logps,
    "surrogate": lambda logps, recall: -recall,
}
