"""The matrix product of a linear map. It adds up in float32, whatever the type of the factors is.

Matrix units do so anyway. XLA's CPU backend does not unless it is told, in the forward and in the backward pass: it
converts bfloat16 factors to float32 first and leaves the bfloat16 unit of the processor idle. Leading axes are
flattened to rows, since that backend is slow at a gradient that contracts two axes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import dot_general


def rows_times_kernel(x: jax.Array, kernel: jax.Array, dimensions: Any, *_: Any, **__: Any) -> jax.Array:
    """x[..., D] times kernel[D, E] -> [..., E] like x; to be `nnx.Linear`'s `dot_general`.

    Further arguments are what `nnx.Linear` says about precision, which is settled here.
    """
    if dimensions != (((x.ndim - 1,), (0,)), ((), ())):
        raise ValueError(f"rows times kernel contracts x's last axis with the kernel's first, not {dimensions}")
    return project(x, kernel)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x[..., D] times kernel[D, E] -> [..., E] like x."""
    return _product(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def _product(x_RD: jax.Array, kernel_DE: jax.Array) -> jax.Array:
    return _contract(x_RD, 1, kernel_DE, 0).astype(x_RD.dtype)


def _forward(x_RD: jax.Array, kernel_DE: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x_RD, kernel_DE), (x_RD, kernel_DE)


def _backward(factors: tuple[jax.Array, jax.Array], cotangent_RE: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_RD, kernel_DE = factors
    to_x = _contract(cotangent_RE, 1, kernel_DE, 1)
    to_kernel = _contract(x_RD, 0, cotangent_RE, 0)
    return to_x.astype(x_RD.dtype), to_kernel.astype(kernel_DE.dtype)


_product.defvjp(_forward, _backward)


def _contract(a: jax.Array, a_axis: int, b: jax.Array, b_axis: int) -> jax.Array:
    return dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)
