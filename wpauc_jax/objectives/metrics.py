"""Ranking metrics of one group of scored candidates: the AUC family, Recall@K and NDCG@K.

Shapes: scores and is_positive are [..., n], results are [...]. A metric is 0 where it is not defined: without a
positive, and in the AUC family also without a negative. Skip and count such groups before you average.

The AUC family needs one sort. It gives c_j, the share of positives scored above the j-th negative in descending order,
and every area follows from c_j. With `ties="half"` a positive and a negative of equal score count 1/2 for each other.
With `ties="index"` the lower index wins. The identities with Recall@K hold under that strict order.
"""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice, check_number
from wpauc_jax.objectives.masked import as_float, as_mask, masked_mean, safe_divide
from wpauc_jax.objectives.ranking import descending_ranks
from wpauc_jax.objectives.tawin import Scalar

TIES = ("half", "index")
Array = jax.typing.ArrayLike


def auc(scores: Array, is_positive: Array, *, where: Array | None = None, ties: str = "half") -> jax.Array:
    """Probability that a random positive is scored above a random negative.

    Args:
      scores: [..., n].
      is_positive: [..., n], boolean or 0/1.
      where: valid candidates [..., n].
      ties: `half` or `index`, see above.

    Returns:
      [...] in [0, 1]; 0 for a one-sided group.

    Raises:
      ValueError: unequal shapes, or an unknown `ties`.
    """
    wins, negative = _sorted_wins(scores, is_positive, where, ties)
    return masked_mean(wins, negative)


def partial_auc(
    scores: Array,
    is_positive: Array,
    *,
    low: Scalar,
    high: Scalar,
    normalize: bool = True,
    where: Array | None = None,
    ties: str = "half",
) -> jax.Array:
    """Area under the step ROC curve between the false positive rates `low` and `high` (Narasimhan & Agarwal 2013).

    The window covers the positions low * n_neg .. high * n_neg of the negatives in descending order, the first
    included, the last excluded; a negative that it covers in part counts in part. An end within rounding of a whole
    position is that position.

    Args:
      scores: [..., n].
      is_positive: [..., n], boolean or 0/1.
      low: lower end, 0 <= low < high.
      high: upper end, at most 1.
      normalize: divide by the width of the window, so that 1 is a perfect ranking.
      where: valid candidates [..., n].
      ties: `half` or `index`.

    Returns:
      [...]; 0 for a one-sided group.

    Raises:
      ValueError: constant ends out of order or range, unequal shapes, or an unknown `ties`.
    """
    check_number("low", low, low=0.0)
    check_number("high", high, low=0.0, high=1.0 + 1e-9)
    if isinstance(low, int | float) and isinstance(high, int | float) and not low < high:
        raise ValueError(f"the window of false positive rates is empty: low={low!r}, high={high!r}")
    wins, negative = _sorted_wins(scores, is_positive, where, ties)
    count = jnp.sum(negative, -1, keepdims=True).astype(wins.dtype)
    start, stop = _snap(low * count), _snap(high * count)
    position = jnp.cumsum(negative, -1) - 1
    overlap = jnp.minimum(position + 1, stop) - jnp.maximum(position, start)
    area = jnp.sum(jnp.where(negative, wins * jnp.maximum(overlap, 0), 0), -1)
    width = stop - start if normalize else count
    return safe_divide(area, jnp.squeeze(width, -1))


def opauc(
    scores: Array,
    is_positive: Array,
    *,
    beta: Scalar,
    normalize: bool = True,
    where: Array | None = None,
    ties: str = "half",
) -> jax.Array:
    """One-way partial AUC: `partial_auc` over the false positive rates 0 .. beta, the top-scored negatives."""
    check_number("beta", beta, low=0.0, open_low=True)
    return partial_auc(scores, is_positive, low=0.0, high=beta, normalize=normalize, where=where, ties=ties)


def wpauc(
    scores: Array,
    is_positive: Array,
    *,
    alpha: Scalar,
    d: Scalar,
    where: Array | None = None,
    ties: str = "half",
) -> jax.Array:
    """Windowed partial AUC: `partial_auc` over the false positive rates alpha .. alpha + d, divided by d.

    The probability that a random positive is scored above a random negative of the window. With the window of
    `wpauc_window(k, ...)` it brackets Recall@k, and with one positive it is Recall@k (arXiv 2604.22504, Theorem 3.4
    and Lemma 3.5, under `ties="index"`).
    """
    check_number("d", d, low=0.0, open_low=True)
    return partial_auc(scores, is_positive, low=alpha, high=alpha + d, where=where, ties=ties)


def wpauc_window(k: int, n_pos: int, n_neg: int) -> tuple[float, float]:
    """The window (alpha, d) of false positive rates that goes with Recall@k: ((k - n_pos) / n_neg, n_pos / n_neg).

    Raises:
      ValueError: not 1 <= n_pos <= k <= n_neg, where no such window exists.
    """
    if not 1 <= n_pos <= k <= n_neg:
        raise ValueError(
            f"the window of Recall@{k} needs 1 <= n_pos <= k <= n_neg, but n_pos={n_pos} and n_neg={n_neg}; "
            "choose a k between the number of positives and the number of negatives"
        )
    return (k - n_pos) / n_neg, n_pos / n_neg


def tpauc(
    scores: Array,
    is_positive: Array,
    *,
    min_tpr: Scalar,
    max_fpr: Scalar,
    normalize: bool = True,
    where: Array | None = None,
    ties: str = "half",
) -> jax.Array:
    """Two-way partial AUC: the lowest positives, floor(n_pos (1 - min_tpr)), against the top floor(n_neg max_fpr).

    Args:
      scores: [..., n].
      is_positive: [..., n], boolean or 0/1.
      min_tpr: true positive rate from which on the ROC curve counts, 0 .. 1.
      max_fpr: false positive rate up to which it counts, 0 .. 1.
      normalize: divide by the number of pairs that take part; otherwise by n_pos n_neg.
      where: valid candidates [..., n].
      ties: `half` or `index`. Which of equal scores take part goes by index in either case.

    Returns:
      [...]; 0 where no pair takes part.

    Raises:
      ValueError: a constant rate outside 0 .. 1, unequal shapes, or an unknown `ties`.
    """
    check_number("min_tpr", min_tpr, low=0.0, high=1.0)
    check_number("max_fpr", max_fpr, low=0.0, high=1.0)
    positive, negative = _classes(scores, is_positive, where)
    n_pos, n_neg = _count(positive, scores), _count(negative, scores)
    lowest = descending_ranks(scores, where=positive) >= n_pos - jnp.floor(_snap(n_pos * (1 - min_tpr)))
    top = descending_ranks(scores, where=negative) < jnp.floor(_snap(n_neg * max_fpr))
    return _selected_auc(scores, positive & lowest, negative & top, n_pos * n_neg, normalize, ties)


def llpauc(
    scores: Array,
    is_positive: Array,
    *,
    alpha: Scalar,
    beta: Scalar,
    normalize: bool = True,
    where: Array | None = None,
    ties: str = "half",
) -> jax.Array:
    """Lower-left partial AUC: the top floor(n_pos alpha) positives against the top floor(n_neg beta) negatives.

    Source: arXiv 2403.00844.

    Args:
      scores: [..., n].
      is_positive: [..., n], boolean or 0/1.
      alpha: true positive rate up to which the ROC curve counts, 0 .. 1.
      beta: false positive rate up to which it counts, 0 .. 1.
      normalize: divide by the number of pairs that take part; otherwise by n_pos n_neg.
      where: valid candidates [..., n].
      ties: `half` or `index`. Which of equal scores take part goes by index in either case.

    Returns:
      [...]; 0 where no pair takes part.

    Raises:
      ValueError: a constant rate outside 0 .. 1, unequal shapes, or an unknown `ties`.
    """
    check_number("alpha", alpha, low=0.0, high=1.0)
    check_number("beta", beta, low=0.0, high=1.0)
    positive, negative = _classes(scores, is_positive, where)
    n_pos, n_neg = _count(positive, scores), _count(negative, scores)
    highest = descending_ranks(scores, where=positive) < jnp.floor(_snap(n_pos * alpha))
    top = descending_ranks(scores, where=negative) < jnp.floor(_snap(n_neg * beta))
    return _selected_auc(scores, positive & highest, negative & top, n_pos * n_neg, normalize, ties)


def recall_at_k(scores: Array, is_positive: Array, *, k: int | jax.Array, where: Array | None = None) -> jax.Array:
    """Share of the positives among the k highest scores; ties go by index.

    Args:
      scores: [..., n].
      is_positive: [..., n], boolean or 0/1.
      k: length of the list, >= 1.
      where: valid candidates [..., n].

    Returns:
      [...]; 0 for a group without positives.

    Raises:
      ValueError: a constant k < 1, or unequal shapes.
    """
    check_number("k", k, low=1.0)
    ranks, positive = _ranked_positives(scores, is_positive, where)
    return masked_mean((ranks < k).astype(as_float(scores).dtype), positive)


def ndcg_at_k(scores: Array, is_positive: Array, *, k: int | jax.Array, where: Array | None = None) -> jax.Array:
    """Normalised discounted cumulative gain of the k highest scores with binary gains; ties go by index.

    With one positive of 0-based rank r < k it is 1 / log2(r + 2). Arguments, result and errors as `recall_at_k`.
    """
    check_number("k", k, low=1.0)
    ranks, positive = _ranked_positives(scores, is_positive, where)
    slots = jax.lax.broadcasted_iota(jnp.int32, ranks.shape, ranks.ndim - 1)
    n_pos = _count(positive, scores)
    gain = jnp.sum(jnp.where(positive & (ranks < k), _discount(ranks, n_pos.dtype), 0), -1)
    ideal = jnp.sum(jnp.where((slots < n_pos) & (slots < k), _discount(slots, n_pos.dtype), 0), -1)
    return safe_divide(gain, ideal)


def _discount(ranks: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return 1 / jnp.log2(jnp.maximum(ranks, 0).astype(dtype) + 2)


def _classes(scores: Array, is_positive: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    """Masks of the valid positives and of the valid negatives."""
    mask = as_mask(where, jnp.shape(scores))
    positive = as_mask(is_positive, jnp.shape(scores))
    return mask & positive, mask & ~positive


def _count(mask: jax.Array, scores: Array) -> jax.Array:
    """Number of true entries [..., 1], as a float of the scores' precision."""
    return jnp.sum(mask, -1, keepdims=True).astype(as_float(scores).dtype)


def _ranked_positives(scores: Array, is_positive: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    positive, negative = _classes(scores, is_positive, where)
    return descending_ranks(scores, where=positive | negative), positive


def _snap(position: jax.Array) -> jax.Array:
    """Rounds positions that differ from a whole number by rounding errors only: n * (k / n) is meant to be k."""
    nearest = jnp.round(position)
    return jnp.where(jnp.abs(position - nearest) <= 4 * jnp.finfo(position.dtype).eps * nearest, nearest, position)


def _sorted_wins(scores: Array, is_positive: Array, where: Array | None, ties: str) -> tuple[jax.Array, jax.Array]:
    """In descending order of score: the share of positives above each entry [..., n], and which are negatives."""
    check_choice("ties", ties, TIES)
    positive, negative = _classes(scores, is_positive, where)
    descending = -as_float(jax.lax.stop_gradient(scores))
    invalid, keys, positive, negative = jax.lax.sort(
        (~(positive | negative), descending, positive, negative), dimension=-1, num_keys=2, is_stable=True
    )
    axis = keys.ndim - 1
    through = jnp.cumsum(positive, -1)
    above = through - positive
    if ties == "half":
        differs = (keys[..., 1:] != keys[..., :-1]) | (invalid[..., 1:] != invalid[..., :-1])
        edge = jnp.ones((*keys.shape[:-1], 1), bool)
        starts, ends = jnp.concatenate([edge, differs], -1), jnp.concatenate([differs, edge], -1)
        before_ties = jax.lax.cummax(jnp.where(starts, above, 0), axis=axis)
        after_ties = jax.lax.cummin(jnp.where(ends, through, keys.shape[-1]), axis=axis, reverse=True)
        above = (before_ties + after_ties) / 2
    return safe_divide(above.astype(keys.dtype), through[..., -1:].astype(keys.dtype)), negative


def _selected_auc(
    scores: Array, positive: jax.Array, negative: jax.Array, all_pairs: jax.Array, normalize: bool, ties: str
) -> jax.Array:
    """AUC of the selected positives against the selected negatives, per selected pair or per pair of the group."""
    value = auc(scores, positive, where=positive | negative, ties=ties)
    if normalize:
        return value
    pairs = _count(positive, scores) * _count(negative, scores)
    return value * jnp.squeeze(safe_divide(pairs, all_pairs), -1)
