"""A loss of sampled negatives that takes each score by itself: generalised binary cross-entropy."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_number, check_shape
from wpauc_jax.objectives.masked import Total, as_float, as_mask, total
from wpauc_jax.objectives.tawin import Scalar

Array = jax.typing.ArrayLike


def gbce_loss(
    positives: Array,
    negatives: Array,
    *,
    sampled_share: Scalar,
    calibration: Scalar = 0.75,
    where: Array | None = None,
    where_negative: Array | None = None,
) -> Total:
    """gBCE (gSASRec, arXiv 2308.07192): a positive and its k sampled negatives, without too much certainty.

    Binary cross-entropy on few sampled negatives ends with probabilities that are too high. gBCE takes the positive's
    sigmoid to the power beta = 1 - calibration * (1 - sampled_share):
    (beta * softplus(-s_pos) + sum_j softplus(s_neg_j)) / (k + 1).

    Args:
      positives: scores [...].
      negatives: scores [..., k].
      sampled_share: k over the number of all negatives, 0 < share <= 1.
      calibration: 0 is binary cross-entropy, 1 makes up for the sampling in full.
      where: rows that count [...].
      where_negative: valid negatives [..., k]; an invalid one counts nowhere.

    Returns:
      Total over the rows that count and have a negative.

    Raises:
      ValueError: a constant outside its range, or unequal shapes.
    """
    check_number("sampled_share", sampled_share, low=0.0, high=1.0, open_low=True)
    check_number("calibration", calibration, low=0.0, high=1.0)
    positives, negatives = as_float(positives), as_float(negatives)
    check_shape("positives", positives, negatives.shape[:-1], "negatives [..., k]")
    valid = as_mask(where_negative, negatives.shape)
    count = jnp.sum(valid, -1)
    counted = as_mask(where, positives.shape) & (count > 0)
    beta = 1 - calibration * (1 - sampled_share)
    of_positive = beta * jax.nn.softplus(-jnp.where(counted, positives, 0))
    of_negatives = jnp.sum(jnp.where(valid, jax.nn.softplus(jnp.where(valid, negatives, 0)), 0), -1)
    return total((of_positive + of_negatives) / (count + 1), counted)
