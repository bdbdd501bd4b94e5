"""Losses of baselines: one-way partial AUC, S-DPO, softmax over the catalog.

They score positives against negatives. Every loss is a `Total` over positives: call `.mean()` for one batch, or add the
totals over micro-batches and devices first. Shapes: positives [..., P], negatives [..., N]. The pairwise losses make an
array [..., P, N].
"""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice, check_number, check_shape
from wpauc_jax.objectives.masked import Total, as_float, as_mask, masked_logsumexp, masked_mean, total
from wpauc_jax.objectives.ranking import top_shares
from wpauc_jax.objectives.tawin import Scalar

Array = jax.typing.ArrayLike


def _squared_hinge(difference: jax.Array) -> jax.Array:
    return jnp.square(jnp.maximum(1 - difference, 0))


# Convex, decreasing stand-ins for 1[positive score <= negative score], as functions of the difference.
SURROGATES = {
    "squared_hinge": _squared_hinge,
    "logistic": lambda difference: jax.nn.softplus(-difference),
    "linear": lambda difference: -difference,
}


def opauc_top_loss(
    positives: Array,
    negatives: Array,
    *,
    beta: Scalar,
    surrogate: str = "squared_hinge",
    where_positive: Array | None = None,
    where_negative: Array | None = None,
) -> Total:
    """OPAUC(beta) as each positive's mean surrogate loss against the top beta share of the negatives.

    With n valid negatives, those of rank below beta * n count, the one cut by the end in part.

    Args:
      positives: scores [..., P].
      negatives: scores [..., N].
      beta: highest false positive rate, 0 < beta <= 1.
      surrogate: `squared_hinge` max(0, 1 - s_pos + s_neg)^2, `logistic` log(1 + exp(s_neg - s_pos)) or `linear`
        s_neg - s_pos.
      where_positive: valid positives [..., P].
      where_negative: valid negatives [..., N].

    Returns:
      Total over the valid positives that have a negative.

    Raises:
      ValueError: a constant beta outside (0, 1], an unknown surrogate, or unequal shapes.
    """
    check_number("beta", beta, low=0.0, high=1.0, open_low=True)
    losses, counted, valid = _pair_losses(positives, negatives, surrogate, where_positive, where_negative)
    share = top_shares(negatives, beta, where=valid)
    return total(jnp.sum(losses * share[..., None, :], -1), counted)


def opauc_cvar_loss(
    positives: Array,
    negatives: Array,
    thresholds: Array,
    *,
    beta: Scalar,
    surrogate: str = "squared_hinge",
    where_positive: Array | None = None,
    where_negative: Array | None = None,
) -> Total:
    """OPAUC(beta) by conditional value at risk (arXiv 2203.00176): t + mean_j max(loss_ij - t, 0) / beta.

    Minimise over the thresholds t too, one for each positive: at the minimum this is `opauc_top_loss`. Unlike it, a
    random part of the negatives gives an unbiased gradient.

    Args:
      positives: scores [..., P].
      negatives: scores [..., N].
      thresholds: t [..., P], parameters to learn together with the model.
      beta: highest false positive rate, 0 < beta <= 1.
      surrogate: as `opauc_top_loss`.
      where_positive: valid positives [..., P].
      where_negative: valid negatives [..., N].

    Returns:
      Total over the valid positives that have a negative.

    Raises:
      ValueError: as `opauc_top_loss`, or `thresholds` of another shape than `positives`.
    """
    check_number("beta", beta, low=0.0, high=1.0, open_low=True)
    losses, counted, valid = _pair_losses(positives, negatives, surrogate, where_positive, where_negative)
    thresholds = as_float(thresholds)
    check_shape("thresholds", thresholds, counted.shape, "positives")
    excess = jnp.maximum(losses - thresholds[..., None], 0)
    pairs = jnp.broadcast_to(valid[..., None, :], excess.shape)
    return total(thresholds + masked_mean(excess, pairs) / beta, counted)


def opauc_kl_loss(
    positives: Array,
    negatives: Array,
    *,
    temperature: Scalar,
    surrogate: str = "squared_hinge",
    where_positive: Array | None = None,
    where_negative: Array | None = None,
) -> Total:
    """OPAUC, smoothly, by KL-regularised robust optimisation (arXiv 2203.00176): T log mean_j exp(loss_ij / T).

    A small temperature T attends to the hardest negatives alone, a large one to all alike. With the `linear`
    surrogate it is the softmax loss at temperature T, up to a constant.

    Args:
      positives: scores [..., P].
      negatives: scores [..., N].
      temperature: T > 0.
      surrogate: as `opauc_top_loss`.
      where_positive: valid positives [..., P].
      where_negative: valid negatives [..., N].

    Returns:
      Total over the valid positives that have a negative.

    Raises:
      ValueError: a constant temperature <= 0, an unknown surrogate, or unequal shapes.
    """
    check_number("temperature", temperature, low=0.0, open_low=True)
    losses, counted, valid = _pair_losses(positives, negatives, surrogate, where_positive, where_negative)
    pairs = jnp.broadcast_to(valid[..., None, :], losses.shape)
    count = jnp.maximum(jnp.sum(valid, -1), 1).astype(losses.dtype)
    log_mean = masked_logsumexp(losses / temperature, pairs) - jnp.log(count)[..., None]
    return total(temperature * log_mean, counted)


def softmax_dpo_loss(
    positive_logps: Array,
    negative_logps: Array,
    *,
    ref_positive_logps: Array,
    ref_negative_logps: Array,
    beta: Scalar = 1.0,
    where: Array | None = None,
    where_negative: Array | None = None,
) -> Total:
    """S-DPO (arXiv 2406.09215): one preferred item against several others, in log-sum-exp form.

    With implicit rewards h = logps - ref_logps, the loss is softplus(logsumexp_j beta (h_neg_j - h_pos)). One
    negative makes it DPO.

    Args:
      positive_logps: log-probability of the preferred item, summed over its tokens [...].
      negative_logps: the same of the others [..., N].
      ref_positive_logps: under the reference policy [...], a constant.
      ref_negative_logps: under the reference policy [..., N], a constant.
      beta: strength of the reward, > 0.
      where: valid rows [...].
      where_negative: valid negatives [..., N].

    Returns:
      Total over the valid rows that have a negative.

    Raises:
      ValueError: a constant beta <= 0, or unequal shapes.
    """
    check_number("beta", beta, low=0.0, open_low=True)
    positive = _implicit_reward(positive_logps, ref_positive_logps, where, "ref_positive_logps")
    negative = _implicit_reward(negative_logps, ref_negative_logps, where_negative, "ref_negative_logps")
    check_shape("positive_logps", positive, negative.shape[:-1], "negative_logps [..., N]")
    valid = as_mask(where_negative, negative.shape)
    counted = as_mask(where, positive.shape) & jnp.any(valid, -1)
    margin = masked_logsumexp(beta * (negative - positive[..., None]), valid)
    return total(jax.nn.softplus(margin), counted)


def catalog_cross_entropy(
    scores: Array, targets: Array, *, item_mask: Array | None = None, where: Array | None = None
) -> Total:
    """Softmax cross-entropy of the target item over the catalog.

    Args:
      scores: [..., I], one for each item.
      targets: item ids [...]; -1 marks a row that does not count. An id of I or more gives NaN.
      item_mask: items that compete [..., I], for instance all but the history; the target always does.
      where: valid rows [...].

    Returns:
      Total over the valid rows.

    Raises:
      ValueError: unequal shapes.
    """
    scores = as_float(scores)
    targets = jnp.asarray(targets)
    check_shape("targets", targets, scores.shape[:-1], "scores [..., I]")
    counted = as_mask(where, targets.shape) & (targets >= 0)
    column = jnp.where(counted, targets, 0)[..., None]
    items = jax.lax.broadcasted_iota(column.dtype, scores.shape, scores.ndim - 1)
    competing = counted[..., None] & (as_mask(item_mask, scores.shape) | (items == column))
    scores = jnp.where(competing, scores, 0)
    target_scores = jnp.take_along_axis(scores, column, axis=-1)[..., 0]
    return total(masked_logsumexp(scores, competing) - target_scores, counted)


def _pair_losses(
    positives: Array, negatives: Array, surrogate: str, where_positive: Array | None, where_negative: Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Losses [..., P, N], finite throughout; positives that count [..., P]; valid negatives [..., N]."""
    check_choice("surrogate", surrogate, SURROGATES)
    positives, negatives = as_float(positives), as_float(negatives)
    if positives.shape[:-1] != negatives.shape[:-1]:
        raise ValueError(
            f"positives {positives.shape} and negatives {negatives.shape} differ in a leading axis, "
            "and only the last may differ"
        )
    valid = as_mask(where_negative, negatives.shape)
    counted = as_mask(where_positive, positives.shape)
    difference = jnp.where(counted, positives, 0)[..., :, None] - jnp.where(valid, negatives, 0)[..., None, :]
    return SURROGATES[surrogate](difference), counted & jnp.any(valid, -1, keepdims=True), valid


def _implicit_reward(logps: Array, ref_logps: Array, where: Array | None, name: str) -> jax.Array:
    """logps - ref_logps, 0 where masked."""
    logps, ref_logps = as_float(logps), jax.lax.stop_gradient(as_float(ref_logps))
    check_shape(name, ref_logps, logps.shape, "the policy's log-probabilities")
    return jnp.where(as_mask(where, logps.shape), logps - ref_logps, 0)
