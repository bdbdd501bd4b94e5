"""HSTU: a transformer whose attention is a gated sum without a softmax, with a bias for each distance.

Source: Zhai et al., "Actions Speak Louder than Words", arXiv 2402.17152. There are two biases, one by the distance of
two places and one by the time between two items. A bucket of times is a third longer than the one before it.

In the authors' code a place looks at others from the time of the item that it predicts. That time is not known when a
list is asked for, so here a place looks from its own time.
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
        if config.time_buckets:
            self.time_bias = nnx.Param(jnp.zeros((config.time_buckets,), zeros.dtype), axes=("length",))
        self.mixed_norm = layer_norm(config, inner, rngs)
        self.out = linear(config, inner, config.width, ("heads", "embed"), rngs)

    def __call__(
        self, x: jax.Array, segments: jax.Array, buckets: jax.Array | None, dropout: Dropout | None
    ) -> jax.Array:
        """[B, T, D] -> [B, T, D]; `buckets` int32[B, T, T] are those of the times between two places."""
        B, T, _ = x.shape
        normal = self.norm(x)
        u, v, q, k = (jax.nn.silu(part(normal)) for part in (self.u, self.v, self.q, self.k))
        heads = (B, T, self.config.num_heads, self.config.head_dim)
        logits = jnp.einsum("bqnh,bknh->bnqk", q.reshape(heads), k.reshape(heads), preferred_element_type=jnp.float32)
        index = jnp.arange(T, dtype=jnp.int32)
        distance = index[:, None] - index[None, :]
        most = self.config.num_positions - 1
        bias = self.distance_bias[...].astype(jnp.float32)[jnp.clip(distance, 0, most)]
        bias = bias[None] if buckets is None else bias[None] + self.time_bias[...].astype(jnp.float32)[buckets]
        seen = (distance >= 0)[None] & (segments[:, :, None] == segments[:, None, :])
        weights = jnp.where(seen[:, None], jax.nn.silu(logits + bias[:, None]), 0.0) / self.config.num_positions
        mixed = jnp.einsum("bnqk,bknh->bqnh", weights.astype(v.dtype), v.reshape(heads)).reshape(B, T, -1)
        return x + dropped(self.out(self.mixed_norm(mixed) * u), dropout, 0)


class Hstu(SequenceEncoder):
    """`num_layers` blocks over the items' embeddings."""

    uses: ClassVar[frozenset[str]] = frozenset(
        {"num_layers", "num_heads", "num_kv_heads", "head_dim", "norm_eps", "num_positions", "time_buckets"}
    )

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.blocks: Any = nnx.Dict({str(index): Block(config, rngs) for index in range(config.num_layers)})
        self.norm = layer_norm(config, config.width, rngs)

    def encode(
        self, x: jax.Array, segments: jax.Array, dropout: Dropout | None, times: jax.Array | None = None
    ) -> jax.Array:
        """[B, T, D] -> [B, T, D]. Without `times`, seconds int32[B, T], there is no bias by time."""
        x = dropped(x, dropout, self.config.num_layers)
        buckets = None if times is None else time_buckets(times, self.config.time_buckets)
        for index in range(self.config.num_layers):
            x = self.blocks[str(index)](x, segments, buckets, dropout and dropout.within(index))
        return self.norm(x)


def time_buckets(times: jax.Array, count: int) -> jax.Array:
    """int32[B, T, T]: floor(ln max(|t_i - t_j|, 1) / .301), at most `count` - 1, of seconds int32[B, T]."""
    between = jnp.abs(times[:, :, None] - times[:, None, :])
    bucket = jnp.floor(jnp.log(jnp.maximum(between, 1).astype(jnp.float32)) / 0.301).astype(jnp.int32)
    return jnp.minimum(bucket, count - 1)
