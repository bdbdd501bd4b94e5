"""A sum over rows, a block of rows at a time, whose gradient is found on the way forward.

With one token an item, the scores of all items for all targets of a batch are the largest arrays of an SFT step. Here a
block of targets is scored, and its gradient is taken at once. So the scores of one block exist at a time, and on a CPU
they stay in its caches. Places without a target come last, and blocks of them are not computed. The idea is that of
fused linear cross-entropy (Liger Kernel, arXiv 2410.10989).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

_CPU_ROWS = 128  # of a block: enough for fast products, few enough that their scores stay near
_SCORES = 2**28  # of a block on other devices: 1 GiB of float32

# (states [n, ...], a pytree of other arrays [n, ...]) -> the sum over the rows. It may close over parameters. Rows that
# fill a block up have states 0 and whole numbers -1, and must add nothing.
OfRows = Callable[[jax.Array, Any], jax.Array]


def rows_of_a_block(scores: int) -> int:
    """How many rows with so many scores each make a good block on the default device."""
    return _CPU_ROWS if jax.default_backend() == "cpu" else max(_SCORES // scores, 1)


def sum_in_blocks(of_rows: OfRows, states: jax.Array, others: Any, live: jax.Array, size: int) -> jax.Array:
    """The sum of `of_rows` over N rows, float32[], in blocks of `size` rows.

    `states` [N, ...] are differentiated, and so is what `of_rows` closes over. `others` is a pytree of whole numbers
    [N, ...] and is not. Rows that are not `live`, bool[N], must add nothing.
    """
    N = states.shape[0]
    order = jnp.pad(jnp.argsort(~live, stable=True), (0, -N % size), constant_values=N)

    def ordered(rows: jax.Array) -> jax.Array:
        fill = 0 if jnp.issubdtype(rows.dtype, jnp.inexact) else -1
        return jnp.take(rows, order, axis=0, mode="fill", fill_value=fill)

    states, others = ordered(states), jax.tree.map(ordered, others)
    pure, closed_over = jax.closure_convert(of_rows, *_block((states, others), 0, size))
    return _sum(pure, size, states, others, live.sum(), closed_over)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(
    of_rows: Callable[..., jax.Array], size: int, states: Any, others: Any, live: Any, consts: Sequence[Any]
) -> jax.Array:
    return _forward(of_rows, size, states, others, live, consts)[0]


def _forward(
    of_rows: Callable[..., jax.Array], size: int, states: Any, others: Any, live: Any, consts: Sequence[Any]
) -> tuple[jax.Array, Any]:
    def add(number: jax.Array, so_far: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        total, to_states, to_consts = so_far
        rows, more = _block((states, others), number * size, size)
        value, pull = jax.vjp(lambda rows, consts: of_rows(rows, more, *consts), rows, consts)
        to_rows, found = pull(jnp.ones_like(value))
        to_states = jax.lax.dynamic_update_slice_in_dim(to_states, to_rows, number * size, 0)
        return total + value, to_states, jax.tree.map(jnp.add, to_consts, found)

    nothing = (jnp.zeros(()), jnp.zeros_like(states), jax.tree.map(jnp.zeros_like, consts))
    total, *gradients = jax.lax.fori_loop(0, -(-live // size), add, nothing)
    return total, gradients


def _backward(of_rows: Callable[..., jax.Array], size: int, gradients: Any, cotangent: jax.Array) -> Any:
    to_states, to_consts = jax.tree.map(lambda one: (one * cotangent).astype(one.dtype), gradients)
    return to_states, None, None, to_consts


_sum.defvjp(_forward, _backward)


def _block(rows: Any, start: jax.Array | int, size: int) -> Any:
    return jax.tree.map(lambda one: jax.lax.dynamic_slice_in_dim(one, start, size), rows)
