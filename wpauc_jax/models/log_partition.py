"""The log of a softmax's partition sum over a large vocabulary. No array of logits [..., V] is ever made."""

import functools

import jax
import jax.numpy as jnp

VOCABULARY_BLOCK = 8192  # rows of a head that the families multiply at a time


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def log_partition(hidden_RD: jax.Array, table_VD: jax.Array, block_size: int) -> jax.Array:
    """log sum_v exp(hidden . table[v]) as float32[R], `block_size` vocabulary rows at a time, in the gradient too."""
    return _forward(hidden_RD, table_VD, block_size)[0]


def _forward(hidden_RD: jax.Array, table_VD: jax.Array, block_size: int):
    def add(carry: tuple[jax.Array, jax.Array], start: jax.Array):
        peak, total = carry
        logits, _ = _block(hidden_RD, table_VD, start, block_size)
        higher = jnp.maximum(peak, logits.max(-1))
        return (higher, total * jnp.exp(peak - higher) + jnp.exp(logits - higher[:, None]).sum(-1)), None

    R = hidden_RD.shape[0]
    first = (jnp.full(R, -jnp.inf), jnp.zeros(R))
    (peak, total), _ = jax.lax.scan(add, first, _starts(table_VD, block_size))
    log_sum = peak + jnp.log(total)
    return log_sum, (hidden_RD, table_VD, log_sum)


def _backward(block_size: int, residuals: tuple[jax.Array, ...], cotangent_R: jax.Array):
    hidden, table, log_sum = residuals

    def add(carry: tuple[jax.Array, jax.Array], start: jax.Array):
        to_hidden, to_table = carry
        logits, rows = _block(hidden, table, start, block_size)
        weights = (jnp.exp(logits - log_sum[:, None]) * cotangent_R[:, None]).astype(hidden.dtype)
        to_hidden += jnp.dot(weights, rows, preferred_element_type=jnp.float32)
        to_rows = jnp.dot(weights.T, hidden, preferred_element_type=jnp.float32)
        place, size = _place(table, start, block_size)
        old = jax.lax.dynamic_slice_in_dim(to_table, place, size)
        return (to_hidden, jax.lax.dynamic_update_slice_in_dim(to_table, old + to_rows, place, 0)), None

    zeros = (jnp.zeros(hidden.shape, jnp.float32), jnp.zeros(table.shape, jnp.float32))
    (to_hidden, to_table), _ = jax.lax.scan(add, zeros, _starts(table, block_size))
    return to_hidden.astype(hidden.dtype), to_table.astype(table.dtype)


log_partition.defvjp(_forward, _backward)


def _starts(table_VD: jax.Array, block_size: int) -> jax.Array:
    return jnp.arange(0, table_VD.shape[0], min(block_size, table_VD.shape[0]), dtype=jnp.int32)


def _place(table_VD: jax.Array, start: jax.Array, block_size: int) -> tuple[jax.Array, int]:
    """Where a block is read: the last one is moved back so that it fits."""
    size = min(block_size, table_VD.shape[0])
    return jnp.minimum(start, table_VD.shape[0] - size), size


def _block(hidden_RD: jax.Array, table_VD: jax.Array, start: jax.Array, block_size: int) -> tuple[jax.Array, jax.Array]:
    """Logits float32[R, block] and the rows; -inf for rows that an earlier block has counted."""
    place, size = _place(table_VD, start, block_size)
    rows = jax.lax.dynamic_slice_in_dim(table_VD, place, size)
    logits = jnp.dot(hidden_RD, rows.T, preferred_element_type=jnp.float32)
    return jnp.where((place + jnp.arange(size) >= start)[None, :], logits, -jnp.inf), rows
