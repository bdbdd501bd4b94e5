"""Sums, means and deviations under a mask.

A mean of the means of micro-batches is wrong as soon as their masks differ. So whatever is summed over micro-batches or
devices is a `Total`, a sum and a count. Add the totals and divide once.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.checks import check_choice


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Total:
    """A masked sum and the number of entries in it.

    A pytree: `jax.tree.map(jnp.add, a, b)` adds micro-batches, `jax.lax.psum(total, axis)` adds devices.
    """

    sum: jax.Array
    count: jax.Array

    def mean(self) -> jax.Array:
        """Sum over count; 0 where nothing was counted."""
        return safe_divide(self.sum, self.count)


def as_float(x: jax.typing.ArrayLike) -> jax.Array:
    """`x` in at least float32: bfloat16 inputs are read as they are, sums of them are not kept in 8 bits."""
    array = jnp.asarray(x)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_mask(where: jax.typing.ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    """`where` as a boolean array of `shape`; all true for None.

    Raises:
      ValueError: `where` has another shape. Masks are not broadcast: a wrong axis would pass unseen.
    """
    if where is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(where)
    if mask.shape != shape:
        raise ValueError(f"the mask has shape {mask.shape}, but the values it masks have shape {shape}")
    return mask.astype(bool)


def safe_divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Quotient, and 0 where the denominator is 0; its gradient is finite everywhere."""
    nonzero = denominator != 0
    return jnp.where(nonzero, numerator / jnp.where(nonzero, denominator, 1), 0)


def total(x: jax.Array, where: jax.Array, axis: int | tuple[int, ...] | None = None) -> Total:
    """Sum and count of `x` where `where` holds; masked entries may be anything, NaN included."""
    x = as_float(x)
    return Total(jnp.sum(jnp.where(where, x, 0), axis), jnp.sum(where, axis).astype(x.dtype))


def masked_mean(x: jax.Array, where: jax.Array, *, keepdims: bool = False) -> jax.Array:
    """Mean over the last axis of the entries where `where` holds; 0 for none."""
    mean = total(x, where, axis=-1).mean()
    return mean[..., None] if keepdims else mean


def masked_std(x: jax.Array, where: jax.Array, *, rule: str = "sample") -> jax.Array:
    """Standard deviation over the last axis, shape [..., 1]; 0 for fewer than two entries.

    Args:
      x: values [..., n].
      where: entries that count [..., n].
      rule: `sample` divides by n - 1, `population` by n, `none` gives ones.

    Raises:
      ValueError: an unknown `rule`.
    """
    check_choice("std", rule, STD_RULES)
    return STD_RULES[rule](x, where)


def _std(x: jax.Array, where: jax.Array, taken: int) -> jax.Array:
    """The squares' sum over the count less `taken`, and its root."""
    difference = jnp.where(where, x - masked_mean(x, where, keepdims=True), 0)
    squares = total(jnp.square(difference), where, axis=-1)
    variance = safe_divide(squares.sum, jnp.maximum(squares.count - taken, 0))[..., None]
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)  # no infinite slope at 0


# By `std`: (values [..., n], entries that count) -> [..., 1].
STD_RULES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "sample": lambda x, where: _std(x, where, 1),
    "population": lambda x, where: _std(x, where, 0),
    "none": lambda x, where: jnp.ones_like(x[..., :1]),
}


def masked_logsumexp(x: jax.Array, where: jax.Array) -> jax.Array:
    """log(sum(exp(x))) over the last axis, of the entries where `where` holds; 0 for none, for callers to mask."""
    empty = ~jnp.any(where, -1, keepdims=True)
    kept = jnp.where(where | empty, jnp.where(where, x, 0), -jnp.inf)
    return jnp.where(empty[..., 0], 0, jax.nn.logsumexp(kept, axis=-1))
