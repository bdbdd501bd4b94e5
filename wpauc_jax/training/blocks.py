"""A sum over rows, a block of rows at a time, whose gradient is found on the way forward.

With one token an item, the scores of all items for all targets of a batch are the largest arrays of an SFT step. Here a
block of targets is scored, and its gradient is taken at once. So the scores of one block exist at a time. Places
without a target come last, and blocks of them are not computed. The idea is that of fused linear cross-entropy (Liger
Kernel, arXiv 2410.10989).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wpauc_jax.runtime.sharding import platform

_CPU_ROWS = 128  # of a block: enough for fast products; more were not faster
_SCORES = 2**28  # of a block on other devices: 1 GiB of float32

# (states [n, ...], a pytree of other arrays [n, ...]) -> the sum over the rows. It may close over parameters. Rows that
# fill a block up have states 0 and whole numbers -1, and must add nothing.
OfRows = Callable[[jax.Array, Any], jax.Array]


def rows_of_a_block(scores: int) -> int:
    """How many rows with so many scores each make a good block on the devices that a program is made for."""
    return _CPU_ROWS if platform() == "cpu" else max(_SCORES // scores, 1)


def sum_in_blocks(of_rows: OfRows, states: jax.Array, others: Any, live: jax.Array, size: int) -> jax.Array:
    """The sum of `of_rows` over N rows, float32[], in blocks of `size` rows.

    `states` [N, ...] are differentiated, and so is what `of_rows` closes over. `others` is a pytree of whole numbers
    [N, ...] and is not. Rows that are not `live`, bool[N], must add nothing.
    """
    N = states.shape[0]
    order = jnp.pad(jnp.argsort(~live, stable=True), (0, -N % size), constant_values=N).reshape(-1, size)

    def blocks(rows: jax.Array) -> jax.Array:
        fill = 0 if jnp.issubdtype(rows.dtype, jnp.inexact) else -1
        return jnp.take(rows, order, axis=0, mode="fill", fill_value=fill)

    cut = blocks(states), jax.tree.map(blocks, others)
    pure, closed_over = jax.closure_convert(of_rows, *jax.tree.map(lambda rows: rows[0], cut))
    return _sum(pure, *cut, jnp.arange(len(order)) * size < live.sum(), closed_over)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(
    of_rows: Callable[..., jax.Array], states: jax.Array, others: Any, live: jax.Array, consts: Sequence[Any]
) -> jax.Array:
    return _forward(of_rows, states, others, live, consts)[0]


def _forward(
    of_rows: Callable[..., jax.Array], states: jax.Array, others: Any, live: jax.Array, consts: Sequence[Any]
) -> tuple[jax.Array, Any]:
    """The sum, and its gradient. The number of blocks is fixed, so that what a program costs can be counted."""

    def add(so_far: tuple[jax.Array, Any], block: tuple[jax.Array, Any, jax.Array]) -> tuple[Any, jax.Array]:
        rows, more, is_live = block

        def computed(total: jax.Array, to_consts: Any) -> tuple[Any, jax.Array]:
            value, pull = jax.vjp(lambda rows, consts: of_rows(rows, more, *consts), rows, consts)
            to_rows, found = pull(jnp.ones_like(value))
            return (total + value, jax.tree.map(jnp.add, to_consts, found)), to_rows

        return jax.lax.cond(is_live, computed, lambda *so_far: (so_far, jnp.zeros_like(rows)), *so_far)

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, consts))
    (total, to_consts), to_states = jax.lax.scan(add, nothing, (states, others, live))
    return total, (to_states, to_consts)


def _backward(of_rows: Callable[..., jax.Array], gradients: Any, cotangent: jax.Array) -> Any:
    to_states, to_consts = jax.tree.map(lambda one: (one * cotangent).astype(one.dtype), gradients)
    return to_states, None, None, to_consts


_sum.defvjp(_forward, _backward)
