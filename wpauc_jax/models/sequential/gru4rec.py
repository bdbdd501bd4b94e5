"""GRU4Rec: a gated recurrent unit over a user's items.

Source: Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks", arXiv 1511.06939. The gates are
those of Cho et al., arXiv 1406.1078.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import linear
from wpauc_jax.models.segments import begins
from wpauc_jax.models.sequential.encoder import SequenceEncoder


class Gru(nnx.Module):
    """One recurrent layer; its state begins at 0 in each segment."""

    def __init__(self, config: ModelConfig, inputs: int, rngs: nnx.Rngs):
        self.inputs = linear(config, inputs, 3 * config.ffn_width, ("embed", "ffn"), rngs)
        self.state = linear(config, config.ffn_width, 3 * config.ffn_width, ("embed", "ffn"), rngs)

    def __call__(self, x: jax.Array, fresh: jax.Array) -> jax.Array:
        """[B, T, D] and bool[B, T], where a segment begins -> states [B, T, H]."""

        def step(state: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            given, first = now
            state = jnp.where(first[:, None], jnp.zeros_like(state), state)
            reset, update, new = jnp.split(given, 3, axis=-1)
            reset_, update_, new_ = jnp.split(self.state(state), 3, axis=-1)
            candidate = jnp.tanh(new + jax.nn.sigmoid(reset + reset_) * new_)
            keep = jax.nn.sigmoid(update + update_)
            state = keep * state + (1.0 - keep) * candidate
            return state, state

        given = self.inputs(x)
        zeros = jnp.zeros((x.shape[0], given.shape[-1] // 3), given.dtype)
        return jax.lax.scan(step, zeros, (given.swapaxes(0, 1), fresh.T))[1].swapaxes(0, 1)


class Gru4Rec(SequenceEncoder):
    """`num_layers` recurrent layers of width `ffn_width`, then a linear map back to the items' width."""

    uses: ClassVar[frozenset[str]] = frozenset({"num_layers", "ffn_width"})

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        sizes = [config.width] + [config.ffn_width] * (config.num_layers - 1)
        self.layers: Any = nnx.Dict({str(index): Gru(config, size, rngs) for index, size in enumerate(sizes)})
        self.out = linear(config, config.ffn_width, config.width, ("ffn", "embed"), rngs)

    def encode(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        x, fresh = dropped(x, dropout, 0), begins(segments)
        for index in range(self.config.num_layers):
            x = self.layers[str(index)](x, fresh)
        return self.out(x)
