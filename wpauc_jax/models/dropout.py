"""Dropout (Srivastava et al., JMLR 15, 2014): in training, numbers are set to 0 at random and the others scaled up."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from wpauc_jax.runtime.sharding import constrain


@functools.partial(jax.tree_util.register_dataclass, data_fields=["key"], meta_fields=["rate"])
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Which numbers one training pass drops. Its draws are a function of the key alone."""

    key: jax.Array
    rate: float  # the share that is dropped, from 0 to below 1

    def within(self, number: int | jax.Array) -> "Dropout":
        """That of a part of the pass, such as a layer: parts with other numbers draw apart."""
        return Dropout(jax.random.fold_in(self.key, number), self.rate)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`x` with a share `rate` of its numbers set to 0, the others divided by 1 - rate."""
        keeps = jax.random.bernoulli(self.key, 1.0 - self.rate, x.shape)
        return jnp.where(keeps, x / (1.0 - self.rate), jnp.zeros((), x.dtype))


def dropped(x: jax.Array, dropout: Dropout | None, number: int) -> jax.Array:
    """`x` after the dropout of a numbered part, if there is any."""
    return x if dropout is None else constrain(dropout.within(number)(x), "batch")
