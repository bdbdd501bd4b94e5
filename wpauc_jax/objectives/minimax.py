"""Lower-left partial AUC: as a point-wise minimax loss (arXiv 2403.00844), and as the pairwise loss that it stands for.

The square pairwise loss is (1 - (p_pos - p_neg))^2. It splits into one term for each candidate if three numbers are
optimised beside the model (Ying et al. 2016): the means a and b of the two classes, and gamma = b - a. To keep only the
top alpha of the positives and the top beta of the negatives, each class gets a threshold. "High loss" and "high score"
are the same order only if a + gamma >= 0 and b <= 1 + gamma. Two multipliers enforce that.

The numbers let a batch be a small part of the data. Where one batch holds many candidates of both classes, they can be
solved for in it: what is left is the pairwise loss itself, and there is nothing to optimise beside the model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_number
from wpauc_jax.objectives.masked import as_float, as_mask, total
from wpauc_jax.objectives.ranking import top_shares
from wpauc_jax.objectives.tawin import Scalar


class LlpaucMin(NamedTuple):
    """Scalars to minimise the loss over, together with the model; initial values as a user would start.

    Attributes:
      a: mean probability of the positives that count, in [0, 1].
      b: mean probability of the negatives that count, in [0, 1].
      negative_threshold: the loss from which a negative is among the top beta.
      multiplier_a: of a + gamma >= 0, not below 0.
      multiplier_b: of b <= 1 + gamma, not below 0.
    """

    a: Scalar = 0.5
    b: Scalar = 0.5
    negative_threshold: Scalar = 0.0
    multiplier_a: Scalar = 0.0
    multiplier_b: Scalar = 0.0

    def project(self) -> "LlpaucMin":
        """The nearest values in range; call it after every update."""
        return LlpaucMin(
            jnp.clip(self.a, 0, 1),
            jnp.clip(self.b, 0, 1),
            jnp.asarray(self.negative_threshold),
            jnp.maximum(self.multiplier_a, 0),
            jnp.maximum(self.multiplier_b, 0),
        )


class LlpaucMax(NamedTuple):
    """Scalars to maximise the loss over: update them along the gradient, not against it.

    Attributes:
      gamma: b - a at the optimum, in [-1, 1].
      positive_threshold: the gain from which a positive is among the top alpha.
    """

    gamma: Scalar = 0.0
    positive_threshold: Scalar = 0.0

    def project(self) -> "LlpaucMax":
        """The nearest values in range; call it after every update."""
        return LlpaucMax(jnp.clip(self.gamma, -1, 1), jnp.asarray(self.positive_threshold))


def llpauc_loss(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    minimised: LlpaucMin,
    maximised: LlpaucMax,
    *,
    alpha: Scalar,
    beta: Scalar,
    sharpness: Scalar = 5.0,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """The minimax loss of LLPAUC(alpha, beta) over a batch.

    At its saddle point, up to the softness of the threshold, it is the mean over the top alpha of the positives and
    the top beta of the negatives of (1 - (p_pos - p_neg))^2 - 1, with p = sigmoid(score).

    Args:
      scores: logits, any shape; all entries are one pool.
      is_positive: boolean or 0/1, the same shape.
      minimised: what to descend on besides the model.
      maximised: what to ascend on.
      alpha: highest true positive rate, 0 < alpha <= 1.
      beta: highest false positive rate, 0 < beta <= 1.
      sharpness: s in log(1 + exp(s x)) / s, which stands for max(x, 0).
      where: valid entries, the same shape.

    Returns:
      A scalar.

    Raises:
      ValueError: a constant rate outside (0, 1], a constant sharpness <= 0, or unequal shapes.
    """
    check_number("alpha", alpha, low=0.0, high=1.0, open_low=True)
    check_number("beta", beta, low=0.0, high=1.0, open_low=True)
    check_number("sharpness", sharpness, low=0.0, open_low=True)
    scores = as_float(scores)
    mask = as_mask(where, scores.shape)
    positive = as_mask(is_positive, scores.shape)
    a, b, negative_threshold, multiplier_a, multiplier_b = minimised
    gamma, positive_threshold = maximised
    p = jax.nn.sigmoid(jnp.where(mask, scores, 0))
    gain = -jnp.square(p - a) + 2 * (1 + gamma) * p
    loss = jnp.square(p - b) + 2 * (1 + gamma) * p
    gain_above = jax.nn.softplus(sharpness * (gain - positive_threshold)) / sharpness
    loss_above = jax.nn.softplus(sharpness * (loss - negative_threshold)) / sharpness
    of_positives = positive_threshold + total(gain_above, mask & positive).mean() / alpha
    of_negatives = negative_threshold + total(loss_above, mask & ~positive).mean() / beta
    constraints = multiplier_a * (a + gamma) - multiplier_b * (b - 1 - gamma)
    return of_negatives - of_positives - jnp.square(gamma) + constraints


def llpauc_pairwise_loss(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    *,
    alpha: Scalar,
    beta: Scalar,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """The square loss of LLPAUC(alpha, beta) over the pairs of a batch.

    The mean, over the top alpha of the positives and the top beta of the negatives, of (1 - (p_pos - p_neg))^2 with
    p = sigmoid(score). It is `llpauc_loss` plus 1 at that loss's saddle point. Of n candidates of a class, those of
    rank below rate * n count, the one cut by the end in part. No array of pairs is made.

    Args:
      scores: logits, any shape; all entries are one pool.
      is_positive: boolean or 0/1, the same shape.
      alpha: highest true positive rate, 0 < alpha <= 1.
      beta: highest false positive rate, 0 < beta <= 1.
      where: valid entries, the same shape.

    Returns:
      A scalar; 0 where a class has no entry.

    Raises:
      ValueError: a constant rate outside (0, 1], or unequal shapes.
    """
    check_number("alpha", alpha, low=0.0, high=1.0, open_low=True)
    check_number("beta", beta, low=0.0, high=1.0, open_low=True)
    scores = as_float(scores)
    mask, positive = as_mask(where, scores.shape), as_mask(is_positive, scores.shape)
    p = jax.nn.sigmoid(jnp.where(mask, scores, 0)).reshape(-1)
    mean, variance = zip(
        *(_top_moments(p, (mask & kind).reshape(-1), rate) for kind, rate in ((positive, alpha), (~positive, beta))),
        strict=True,
    )
    both = (mask & positive).any() & (mask & ~positive).any()
    return jnp.where(both, jnp.square(1 - mean[0] + mean[1]) + variance[0] + variance[1], 0)


def _top_moments(p: jax.Array, among: jax.Array, rate: Scalar) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of the top `rate` of the entries of p [n] that are `among`."""
    share = top_shares(p, rate, where=among)
    mean = (share * p).sum()
    return mean, (share * jnp.square(p - mean)).sum()
