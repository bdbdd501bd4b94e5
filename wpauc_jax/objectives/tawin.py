"""TAWin, threshold-adjusted windowed reweighting of a group's negatives, and other weights of them.

Source: "Objective Shaping with Hard Negatives: Windowed Partial AUC Optimization for RL-based LLM Recommenders",
arXiv 2604.22504. Its authors have published no code. docs/theory.md lists what is our reading. The soft top-k operator
is the threshold-adjusted one of Su Jianlin, with f(x) = min(1, exp(x)).
"""

import math
import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice, check_number
from wpauc_jax.objectives.masked import as_float, as_mask, safe_divide
from wpauc_jax.objectives.ranking import negative_ranks

# By `rank_scale`, g of `tawin_weights`: (ranks >= 0, the last rank) -> the scale on which distances are taken.
RANK_SCALES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "rank": lambda ranks, last: ranks,
    "fraction": lambda ranks, last: ranks / jnp.maximum(last, 1),
    "log": lambda ranks, last: jnp.log1p(ranks),
}
_FAR_ABOVE = 50.0  # exp(50) > n / (k - ceil(k) + 1): an entry this far above the ceil(k)-th one is capped for sure

Scalar = float | jax.Array


def soft_top_k(
    x: jax.typing.ArrayLike, k: Scalar, *, temperature: Scalar = 1.0, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """Soft membership in the top k: w_i = min(1, exp((x_i - t) / temperature)) with t such that the w_i sum to k.

    Exact, without iteration: a sort finds how many entries m are capped at 1, and the rest is
    (k - m) * softmax(x / temperature). The same weights solve entropy-regularised top-k selection. With k = 1 nothing
    but a lone entry is capped, and this is softmax. Differentiable in `x`, `k` and `temperature`; `jax.grad` gives the
    exact gradient, as the capped set is locally constant.

    Args:
      x: finite values [..., n].
      k: the sum to reach, any real number >= 0; from the number of valid entries on, all weights are 1.
      temperature: > 0. Towards 0: the hard top k, with ties sharing equally. Towards infinity: k / n everywhere.
      where: valid entries [..., n].

    Returns:
      Weights in [0, 1], [..., n], of at least float32; 0 outside `where`; they sum to min(k, count of valid entries).

    Raises:
      ValueError: a constant k < 0 or temperature <= 0, or a mask of another shape.
    """
    check_number("k", k, low=0.0)
    check_number("temperature", temperature, low=0.0, open_low=True)
    x = as_float(x)
    mask = as_mask(where, x.shape)
    x = jnp.where(mask, x, 0)
    whole, part = _split(k)
    capped, largest_rest = _capped_set(jax.lax.stop_gradient(x), mask, whole, part, temperature)
    rest = mask & ~capped
    remaining = whole - jnp.sum(capped, -1, keepdims=True) + part  # k - m, without losing the fraction of a large k
    exponent = jnp.where(rest, (x - largest_rest) / temperature, 0)
    share = jnp.where(rest, jnp.exp(exponent), 0)
    weights = jnp.where(capped, 1, remaining * safe_divide(share, jnp.sum(share, -1, keepdims=True)))
    all_in = k >= jnp.sum(mask, -1, keepdims=True)
    return jnp.where(mask, jnp.where(all_in, 1, weights), 0).astype(x.dtype)


def _split(k: Scalar) -> tuple[Scalar, Scalar]:
    """Whole and fractional part of k, split before rounding to float32 where k is a Python number."""
    if isinstance(k, numbers.Real):
        whole = math.floor(float(k))
        return float(whole), float(k) - whole
    whole_part = jax.lax.stop_gradient(jnp.floor(k))
    return whole_part, k - whole_part


def _capped_set(
    x: jax.Array, mask: jax.Array, whole: Scalar, part: Scalar, temperature: Scalar
) -> tuple[jax.Array, jax.Array]:
    """Which entries reach the cap, and the largest one that does not, [..., 1].

    In descending order, with e_i = exp(x_i / temperature) and m entries before i, entry i is capped if and only if
    (k - m) e_i > e_i + e_(i+1) + ...; if it is not, none after it is. All is taken relative to the ceil(k)-th
    entry: the threshold is no lower than it, and at most log(n / fraction) above it, so float32 suffices at any scale.
    """
    count = jnp.sum(mask, -1, keepdims=True)
    descending = -jax.lax.sort(jnp.where(mask, -x, jnp.inf), dimension=-1)
    before = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    valid = before < count
    ceiling = jnp.asarray(whole + jnp.ceil(part), jnp.int32)
    pivot = _at(descending, jnp.clip(ceiling - 1, 0, jnp.maximum(count - 1, 0)))
    shifted = jnp.where(valid, (descending - jnp.where(count > 0, pivot, 0)) / temperature, -jnp.inf)
    mass = jnp.exp(jnp.minimum(shifted, _FAR_ABOVE))
    tail = jax.lax.cumsum(mass, axis=x.ndim - 1, reverse=True)
    num_capped = jnp.sum(valid & ((whole - before + part) * mass > tail), -1, keepdims=True)
    largest_rest = _at(descending, jnp.minimum(num_capped, jnp.maximum(count - 1, 0)))
    largest_rest = jnp.where(count > 0, largest_rest, 0)
    return mask & (x > largest_rest), largest_rest


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    """values[..., index] for an index of shape [..., 1]."""
    return jnp.take_along_axis(values, jnp.broadcast_to(index, (*values.shape[:-1], 1)), axis=-1)


def tawin_weights(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    *,
    anchor: Scalar,
    temperature: Scalar = 1.0,
    mass: Scalar = 1.0,
    rank_scale: str = "rank",
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """TAWin's weight of each candidate: 1 for positives, a soft window around the anchor rank for negatives.

    With sigma the rank of a negative among the N negatives of its group, x = -|g(sigma) - g(anchor)| and
    w = soft_top_k(x, mass, temperature), a negative gets N w / sum(w): the mean weight of negatives is 1, so reweighted
    group advantages with a binary reward still sum to 0. A constant: no gradient flows into `scores`.

    Args:
      scores: [..., G], the order of the candidates, for instance summed token log-probabilities.
      is_positive: [..., G], boolean or 0/1.
      anchor: rank at the centre of the window, 0-based among the negatives; K - 1 to serve Recall@K. Beyond the last
        negative it is moved to it.
      temperature: width of the window, in units of g. Towards 0 the anchor alone, towards infinity plain GRPO.
      mass: k of `soft_top_k`, the number of negatives the window holds. It only matters where the cap at 1 binds.
      rank_scale: g. `rank`: sigma itself; `fraction`: sigma / (N - 1); `log`: log(1 + sigma).
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32, 0 outside `where`; 1 on all valid candidates of a group without positives or
      without negatives.

    Raises:
      ValueError: a constant anchor < 0, temperature <= 0 or mass <= 0, an unknown `rank_scale`, or unequal shapes.
    """
    check_number("anchor", anchor, low=0.0)
    check_number("mass", mass, low=0.0, open_low=True)
    check_choice("rank_scale", rank_scale, RANK_SCALES)
    ranks, negative, count = _ranked_negatives(scores, is_positive, where)
    last = jnp.maximum(count - 1, 0)
    rescale = RANK_SCALES[rank_scale]
    centre = rescale(jnp.minimum(anchor, last), last)
    distance = jnp.abs(rescale(jnp.where(negative, ranks, 0), last) - centre)
    weights = soft_top_k(-distance, mass, temperature=temperature, where=negative)
    return _with_positives(weights, negative, is_positive, where)


def window_weights(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    *,
    start: Scalar,
    size: Scalar,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """The hard window: negatives of rank start <= sigma < start + size share the whole mass of the negatives.

    `start = K - n_pos, size = n_pos` is the WPAUC window of Recall@K; `start = 0` is one-way partial AUC (OPAUC).
    A start beyond the last negative is moved to it, so the window is never empty where there are negatives.

    Args:
      scores: [..., G], the order of the candidates.
      is_positive: [..., G], boolean or 0/1.
      start: first rank of the window, 0-based among the negatives.
      size: number of ranks, >= 1.
      where: valid candidates [..., G].

    Returns:
      As `tawin_weights`: [..., G], 1 for positives, mean 1 over the negatives, 0 outside `where`, and 1 on all valid
      candidates of a one-sided group.

    Raises:
      ValueError: a constant start < 0 or size < 1, or unequal shapes.
    """
    check_number("start", start, low=0.0)
    check_number("size", size, low=1.0)
    ranks, negative, count = _ranked_negatives(scores, is_positive, where)
    first = jnp.minimum(start, jnp.maximum(count - 1, 0))
    inside = negative & (ranks >= first) & (ranks < first + size)
    return _with_positives(inside.astype(count.dtype), negative, is_positive, where)


def policy_weights(
    scores: jax.typing.ArrayLike,
    is_positive: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Each negative by its own probability: N p_i / (1 - p of the positives), with N the number of negatives.

    A beam holds each of its items once. Independent draws would hold them in proportion to their probability, and the
    negatives outside the beam, too. These weights give each negative its share among all negatives of the catalog, so
    their mean is the part of the negatives' probability that the group holds, and 1 where it holds the whole catalog.
    With the positives' advantages the sum is above 0 by what the missing negatives would have.

    Args:
      scores: log-probabilities of whole items [..., G], which sum to at most 1 in exp.
      is_positive: [..., G], boolean or 0/1.
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32, a constant: 1 for positives, 0 outside `where`, and 1 on all valid candidates of a
      one-sided group.

    Raises:
      ValueError: unequal shapes.
    """
    scores = as_float(scores)
    mask = as_mask(where, scores.shape)
    positive = mask & as_mask(is_positive, scores.shape)
    negative = mask & ~positive
    mass = jnp.where(mask, jnp.exp(jnp.where(mask, scores, 0)), 0)
    rest = 1 - jnp.sum(jnp.where(positive, mass, 0), -1, keepdims=True)
    held = jnp.sum(jnp.where(negative, mass, 0), -1, keepdims=True)
    share = safe_divide(mass, jnp.maximum(rest, held))  # by rounding the negatives may hold more than the rest
    count = jnp.sum(negative, -1, keepdims=True)
    two_sided = (count > 0) & jnp.any(positive, -1, keepdims=True)
    weights = jnp.where(negative & two_sided, count * share, mask.astype(scores.dtype))
    return jax.lax.stop_gradient(weights)


def _ranked_negatives(
    scores: jax.typing.ArrayLike, is_positive: jax.typing.ArrayLike, where: jax.typing.ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Ranks as floats [..., G] (-1 for others), the negatives' mask [..., G], and their number [..., 1]."""
    ranks = negative_ranks(scores, is_positive, where=where)
    negative = ranks >= 0
    dtype = jnp.promote_types(jnp.result_type(scores), jnp.float32)
    return ranks.astype(dtype), negative, jnp.sum(negative, -1, keepdims=True).astype(dtype)


def _with_positives(
    weights: jax.Array,
    negative: jax.Array,
    is_positive: jax.typing.ArrayLike,
    where: jax.typing.ArrayLike | None,
) -> jax.Array:
    """Scales the negatives' weights to mean 1 and gives 1 to everything else that is valid."""
    mask = as_mask(where, negative.shape)
    positive = mask & as_mask(is_positive, negative.shape)
    count = jnp.sum(negative, -1, keepdims=True)
    scaled = safe_divide(count * weights, jnp.sum(weights, -1, keepdims=True))
    two_sided = (count > 0) & jnp.any(positive, -1, keepdims=True)
    combined = jnp.where(negative & two_sided, scaled, mask.astype(weights.dtype))
    return jax.lax.stop_gradient(combined)
