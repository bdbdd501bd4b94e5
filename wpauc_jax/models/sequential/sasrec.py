"""SASRec: a causal transformer over a user's items, with learned positions.

Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781. Its first form drew one negative
for each target. With the softmax over all items it is far better (Klenitskiy and Vasilev, arXiv 2309.07602), so that is
what `sft.loss` does by default.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.attention import causal_attention
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import linear
from wpauc_jax.models.segments import places
from wpauc_jax.models.sequential.encoder import SequenceEncoder, layer_norm


class Block(nnx.Module):
    """Attention, then a feed-forward net of two layers; each sees normalised input and is added to its input."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        inner = config.num_heads * config.head_dim
        self.attention_norm = layer_norm(config, config.width, rngs)
        self.q = linear(config, config.width, inner, ("embed", "heads"), rngs)
        self.k = linear(config, config.width, inner, ("embed", "heads"), rngs)
        self.v = linear(config, config.width, inner, ("embed", "heads"), rngs)
        self.out = linear(config, inner, config.width, ("heads", "embed"), rngs)
        self.ffn_norm = layer_norm(config, config.width, rngs)
        self.up = linear(config, config.width, config.ffn_width, ("embed", "ffn"), rngs)
        self.down = linear(config, config.ffn_width, config.width, ("ffn", "embed"), rngs)

    def __call__(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        B, T, _ = x.shape
        normal = self.attention_norm(x)
        heads = (B, T, self.config.num_heads, self.config.head_dim)
        q, k, v = (part(normal).reshape(heads) for part in (self.q, self.k, self.v))
        mixed = causal_attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2), segments)
        x = x + dropped(self.out(mixed.reshape(B, T, -1)), dropout, 0)
        return x + dropped(self.down(jax.nn.gelu(self.up(self.ffn_norm(x)))), dropout, 1)


class SasRec(SequenceEncoder):
    """`num_layers` blocks over the sum of item and position embeddings."""

    uses: ClassVar[frozenset[str]] = frozenset(
        {"num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_width", "norm_eps", "num_positions"}
    )

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        init = nnx.initializers.normal(config.init_std)
        table = init(rngs.params(), (config.num_positions, config.width), jnp.dtype(config.param_dtype))
        self.positions = nnx.Param(table, axes=("length", "embed"))
        self.blocks: Any = nnx.Dict({str(index): Block(config, rngs) for index in range(config.num_layers)})
        self.norm = layer_norm(config, config.width, rngs)

    def encode(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        x = x + self.positions[...].astype(x.dtype)[places(segments)]
        x = dropped(x, dropout, self.config.num_layers)
        for index in range(self.config.num_layers):
            x = self.blocks[str(index)](x, segments, dropout and dropout.within(index))
        return self.norm(x)
