"""HSTU: a transformer whose attention is a gated sum without a softmax, with a bias for each distance.

Source: Zhai et al., "Actions Speak Louder than Words", arXiv 2402.17152. The times of interactions do not reach a
batch here, so of its two biases it has the one by position, and not the one by time.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import linear
from wpauc_jax.models.sequential.encoder import SequenceEncoder, layer_norm


class Block(nnx.Module):
    """x + out(norm(A v) * u), where A = silu(q k' + bias) / n over the places before, and n is `num_positions`."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        inner = config.num_heads * config.head_dim
        self.norm = layer_norm(config, config.width, rngs)
        self.u, self.v, self.q, self.k = (
            linear(config, config.width, inner, ("embed", "heads"), rngs) for _ in range(4)
        )
        zeros = jnp.zeros((config.num_positions,), jnp.dtype(config.param_dtype))
        self.distance_bias = nnx.Param(zeros, axes=("length",))
        self.mixed_norm = layer_norm(config, inner, rngs)
        self.out = linear(config, inner, config.width, ("heads", "embed"), rngs)

    def __call__(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        B, T, _ = x.shape
        normal = self.norm(x)
        u, v, q, k = (jax.nn.silu(part(normal)) for part in (self.u, self.v, self.q, self.k))
        heads = (B, T, self.config.num_heads, self.config.head_dim)
        logits = jnp.einsum("bqnh,bknh->bnqk", q.reshape(heads), k.reshape(heads), preferred_element_type=jnp.float32)
        index = jnp.arange(T, dtype=jnp.int32)
        distance = index[:, None] - index[None, :]
        most = self.config.num_positions - 1
        bias = self.distance_bias[...].astype(jnp.float32)[jnp.clip(distance, 0, most)]
        seen = (distance >= 0)[None] & (segments[:, :, None] == segments[:, None, :])
        weights = jnp.where(seen[:, None], jax.nn.silu(logits + bias[None, None]), 0.0) / self.config.num_positions
        mixed = jnp.einsum("bnqk,bknh->bqnh", weights.astype(v.dtype), v.reshape(heads)).reshape(B, T, -1)
        return x + dropped(self.out(self.mixed_norm(mixed) * u), dropout, 0)


class Hstu(SequenceEncoder):
    """`num_layers` blocks over the items' embeddings."""

    uses: ClassVar[frozenset[str]] = frozenset(
        {"num_layers", "num_heads", "num_kv_heads", "head_dim", "norm_eps", "num_positions"}
    )

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.blocks: Any = nnx.Dict({str(index): Block(config, rngs) for index in range(config.num_layers)})
        self.norm = layer_norm(config, config.width, rngs)

    def encode(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        x = dropped(x, dropout, self.config.num_layers)
        for index in range(self.config.num_layers):
            x = self.blocks[str(index)](x, segments, dropout and dropout.within(index))
        return self.norm(x)
