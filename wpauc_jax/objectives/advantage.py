"""Advantages: how much better a candidate's reward is than the others' in its group."""

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_number
from wpauc_jax.objectives.masked import as_float, as_mask, masked_mean, masked_std, safe_divide


def group_advantages(
    rewards: jax.typing.ArrayLike, *, std: str = "sample", eps: float = 1e-4, where: jax.typing.ArrayLike | None = None
) -> jax.Array:
    """GRPO's advantage: (reward - group mean) / (group std + eps).

    With a binary reward, hit rate p, population std and eps = 0, a hit gets sqrt((1 - p) / p) and a miss
    -sqrt(p / (1 - p)). A group whose rewards are all equal gets 0.

    Args:
      rewards: [..., G].
      std: `sample` (n - 1), `population` (n), or `none`: the difference from the mean alone, as in Dr.GRPO
        (arXiv 2503.20783).
      eps: >= 0, added to the standard deviation; it is not used with `none`.
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32, 0 outside `where`; each group sums to 0.

    Raises:
      ValueError: an unknown `std`, a constant eps < 0, or a mask of another shape.
    """
    check_number("eps", eps, low=0.0)
    rewards = as_float(rewards)
    mask = as_mask(where, rewards.shape)
    scale = masked_std(rewards, mask, rule=std) + (0 if std == "none" else eps)
    return safe_divide(_centred(rewards, mask), scale)


def rloo_advantages(rewards: jax.typing.ArrayLike, *, where: jax.typing.ArrayLike | None = None) -> jax.Array:
    """REINFORCE leave-one-out (arXiv 2402.14740): each reward minus the mean of the others' in its group.

    It is n / (n - 1) times the Dr.GRPO advantage.

    Args:
      rewards: [..., G].
      where: valid candidates [..., G].

    Returns:
      [..., G] of at least float32; 0 outside `where` and for a lone candidate, which has no others.
    """
    rewards = as_float(rewards)
    mask = as_mask(where, rewards.shape)
    count = jnp.sum(mask, -1, keepdims=True).astype(rewards.dtype)
    return safe_divide(count * _centred(rewards, mask), jnp.maximum(count - 1, 0))


def _centred(rewards: jax.Array, mask: jax.Array) -> jax.Array:
    """Rewards minus their group's mean; exactly 0 in a group of equal rewards, whatever the mean's rounding."""
    low = jnp.min(rewards, -1, keepdims=True, where=mask, initial=jnp.inf)
    high = jnp.max(rewards, -1, keepdims=True, where=mask, initial=-jnp.inf)
    return jnp.where(mask & (low < high), rewards - masked_mean(rewards, mask, keepdims=True), 0)
