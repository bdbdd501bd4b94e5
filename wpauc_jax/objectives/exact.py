"""Closed forms: what a group's policy gradient is in expectation, for a binary reward on one target.

With p the policy's probability of the target, the expected gradient of a group of independent draws is a function of p
times grad log p. So the target's own log-probability is all that is needed: no draw, and no group without a hit. Items
may have any number of tokens. A target's log-probability is the sum over its steps.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice, check_number
from wpauc_jax.objectives.masked import STD_RULES, Total, as_float, as_mask, total

Array = jax.typing.ArrayLike
_HALF = -0.6931471805599453  # log(1/2), where the two ways to write log(1 - p) are equally exact


def exact_group_loss(target_logps: Array, *, std: str = "population", where: Array | None = None) -> Total:
    """What a group of independent draws with reward 1 for the target minimises in expectation.

    With the standard deviation (GRPO, arXiv 2402.03300) it is -2 arcsin sqrt(p), and its gradient is
    -sqrt(p / (1 - p)) grad log p: the limit for groups of many draws, where `sample` and `population` agree. With
    `none` (Dr.GRPO, arXiv 2503.20783) it is -p; a group of G draws gives (1 - 1 / G) times its gradient, and RLOO
    (arXiv 2402.14740) gives it at any G. GRPO's mean over tokens is left out: for items of C tokens each it divides the
    gradient by C. Both losses are derived in docs/theory.md.

    Near p = 1 the slope of arcsin is unbounded. It is held at its value for 1 - p = the smallest step of the type, so
    that the gradient of a softmax that has reached 1 is 0.

    Args:
      target_logps: log p [...], summed over the target's tokens.
      std: `sample`, `population` or `none`, as for `group_advantages`.
      where: rows that count [...].

    Returns:
      Total over the rows that count and whose target is possible, log p > -inf.

    Raises:
      ValueError: an unknown `std`, or a mask of another shape.
    """
    check_choice("std", std, STD_RULES)
    logps, counted = _possible(target_logps, where)
    return total(-EXPECTED_REWARDS[std](logps), counted)


def gce_loss(target_logps: Array, *, q: float, where: Array | None = None) -> Total:
    """Generalised cross-entropy (arXiv 1805.07836): (1 - p^q) / q.

    q = 0 is cross-entropy, -log p. q = 1 is 1 - p, whose gradient is that of the expected reward. Between them the
    gradient is -p^q grad log p: a larger q lets rows teach more whose target is probable already.

    Args:
      target_logps: log p [...], summed over the target's tokens.
      q: a Python number, >= 0.
      where: rows that count [...].

    Returns:
      Total over the rows that count and whose target is possible, log p > -inf.

    Raises:
      ValueError: q < 0, or a mask of another shape.
    """
    check_number("q", q, low=0.0)
    logps, counted = _possible(target_logps, where)
    return total(_one_minus_power(logps, q) if q else -logps, counted)


def _possible(target_logps: Array, where: Array | None) -> tuple[jax.Array, jax.Array]:
    """Log-probabilities, 0 where they do not count, and which do."""
    logps = as_float(target_logps)
    counted = as_mask(where, logps.shape) & ~jnp.isneginf(logps)
    return jnp.where(counted, logps, 0), counted


@jax.custom_jvp
def _arc(logps: jax.Array) -> jax.Array:
    """2 arcsin sqrt(p) of log p; accurate at both ends."""
    rest = jnp.maximum(-jnp.expm1(logps), 0)
    return 2 * jnp.arctan2(jnp.exp(logps / 2), jnp.sqrt(rest))


@_arc.defjvp
def _arc_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The slope with respect to log p is sqrt(p / (1 - p)), in logarithms."""
    (logps,), (tangent,) = primals, tangents
    least = jnp.log(jnp.finfo(logps.dtype).eps)
    return _arc(logps), jnp.exp((logps - jnp.maximum(_log_of_rest(logps), least)) / 2) * tangent


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _one_minus_power(logps: jax.Array, q: float) -> jax.Array:
    """(1 - p^q) / q of log p."""
    return -jnp.expm1(q * logps) / q


@_one_minus_power.defjvp
def _one_minus_power_jvp(
    q: float, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The slope is -p^q; that of expm1 is 1 + expm1, which is 0 for a small p."""
    (logps,), (tangent,) = primals, tangents
    return _one_minus_power(logps, q), -jnp.exp(q * logps) * tangent


def _log_of_rest(logps: jax.Array) -> jax.Array:
    """log(1 - p) of log p; -inf at p = 1."""
    near_one = logps > _HALF
    return jnp.where(
        near_one,
        jnp.log(jnp.maximum(-jnp.expm1(jnp.where(near_one, logps, -1.0)), 0)),
        jnp.log1p(-jnp.exp(jnp.where(near_one, -1.0, logps))),
    )


# By `std`: the expected objective of a group, of log p.
EXPECTED_REWARDS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sample": _arc,
    "population": _arc,
    "none": jnp.exp,
}
