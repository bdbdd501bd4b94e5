"""What families share whose output head is their table of embeddings."""

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.family import Family, vocabulary_table
from wpauc_jax.models.log_partition import VOCABULARY_BLOCK, log_partition
from wpauc_jax.runtime.sharding import constrain


class TiedFamily(Family):
    """A family with one table, `embed`, for what goes in and for what comes out."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = vocabulary_table(config, rngs)

    def embedded(self, tokens: jax.Array) -> jax.Array:
        """int32[B, ...] -> [B, ..., D]."""
        return constrain(self._table(self.config.dtype)[tokens], "batch")

    def logits(self, hidden: jax.Array, rows: jax.Array | slice | None) -> jax.Array:
        """float32[..., R] for the vocabulary ids `rows`, or [..., V] for all of them."""
        table = self._table(hidden.dtype)
        table = table if rows is None else constrain(table[rows])
        return jnp.einsum("...d,rd->...r", hidden, table, preferred_element_type=jnp.float32)

    def log_partition(self, hidden: jax.Array) -> jax.Array:
        """float32[...]: the log of the softmax's sum over the whole vocabulary, whose logits are never held."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        return log_partition(rows, self._table(hidden.dtype), VOCABULARY_BLOCK).reshape(hidden.shape[:-1])

    def _table(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        return constrain(self.embed[...].astype(dtype), "vocab", "width")
