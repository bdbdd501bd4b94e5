"""T5: an encoder-decoder. TIGER is such a model over semantic ids.

Sources: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", arXiv
1910.10683, in its first form (relu, one table for input and output); Rajput et al., "Recommender Systems with
Generative Retrieval" (TIGER), arXiv 2305.05065.

The encoder reads the prompt. The decoder begins with a token of its own, sees its own tokens, and sees all states of
the encoder. Attention has no scale and no absolute positions: a learned number for each distance is added to the
logits. As a distance is all that counts, several prompts can stand in one row, each with a mask of its own.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.cache import Prompts, SuffixCache
from wpauc_jax.models.decoder import RMSNorm
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import behind, linear, refuse_shared_keys
from wpauc_jax.models.tied import TiedFamily
from wpauc_jax.runtime.sharding import constrain

BUCKETS = 32  # of distances
MAX_DISTANCE = 128  # farther tokens share the last bucket
START = 0  # the decoder's first token, which is the padding's

KeysValues = tuple[jax.Array, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """What a prompt leaves behind for the answers to it."""

    keys: jax.Array  # [L, B, T, N, H], what the decoder's layers look up in the encoder's states
    values: jax.Array  # [L, B, T, N, H]
    start: SuffixCache  # of the decoder's first token, [L, B, 1, 1, N, H]
    lengths: jax.Array  # int32[B]
    hidden: jax.Array  # [B, D] at the decoder's first token


class Attention(nnx.Module):
    """Attention whose logits are products without a scale. T5's first weights are the smaller for it."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        width, inner = config.width, config.num_heads * config.head_dim
        into, out_of = ("embed", "heads"), ("heads", "embed")
        self.q = linear(config, width, inner, into, rngs, bias=False, std=(width * config.head_dim) ** -0.5)
        self.k = linear(config, width, inner, into, rngs, bias=False, std=width**-0.5)
        self.v = linear(config, width, inner, into, rngs, bias=False, std=width**-0.5)
        self.out = linear(config, inner, width, out_of, rngs, bias=False, std=inner**-0.5)

    def keys_values(self, x: jax.Array) -> KeysValues:
        """[..., T, D] -> [..., T, N, H] each."""
        return self._by_head(self.k(x)), self._by_head(self.v(x))

    def __call__(self, x: jax.Array, keys: jax.Array, values: jax.Array, bias: jax.Array) -> jax.Array:
        """[..., S, D] that attend to keys and values [..., T, N, H] -> [..., S, D].

        `bias`, of as many axes as [..., N, S, T], is added to the logits: -inf where a token is not seen.
        """
        logits = jnp.einsum("...snh,...tnh->...nst", self._by_head(self.q(x)), keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits + bias, axis=-1).astype(values.dtype)
        mixed = jnp.einsum("...nst,...tnh->...snh", weights, values)
        return self.out(mixed.reshape(*mixed.shape[:-2], -1))

    def _by_head(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)


class FeedForward(nnx.Module):
    """Two linear maps, a relu between them."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        width, inner = config.width, config.ffn_width
        self.up = linear(config, width, inner, ("embed", "ffn"), rngs, bias=False, std=width**-0.5)
        self.down = linear(config, inner, width, ("ffn", "embed"), rngs, bias=False, std=inner**-0.5)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]."""
        return self.down(jax.nn.relu(self.up(x)))


class EncoderLayer(nnx.Module):
    """Attention, then a feed-forward net; each sees normalised input and is added to its input."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.ffn_norm = RMSNorm(config)
        self.ffn = FeedForward(config, rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        normal = self.attention_norm(x)
        x = x + dropped(self.attention(normal, *self.attention.keys_values(normal), bias), dropout, 0)
        return constrain(x + dropped(self.ffn(self.ffn_norm(x)), dropout, 1), "batch")


class DecoderLayer(EncoderLayer):
    """An encoder's layer with attention to the encoder's states before the feed-forward net."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.cross_norm = RMSNorm(config)
        self.cross = Attention(config, rngs)

    def answer(
        self,
        x: jax.Array,
        encoded: KeysValues,
        past: KeysValues | None,
        biases: tuple[jax.Array, jax.Array],
        dropout: Dropout | None,
    ) -> tuple[jax.Array, KeysValues]:
        """New tokens [B, G, S, D] behind `past` ones; the new x, and keys and values [B, G, P + S, N, H] of them all.

        `biases` are those among an answer's tokens [1, 1, N, S, P + S], and of the prompt's [B, 1, 1 or G * S, T].
        """
        (B, G, S, D), normal = x.shape, self.attention_norm(x)
        keys, values = self.attention.keys_values(normal)
        if past is not None:
            keys, values = jnp.concatenate([past[0], keys], axis=2), jnp.concatenate([past[1], values], axis=2)
        x = x + dropped(self.attention(normal, keys, values, biases[0]), dropout, 0)
        normal = self.cross_norm(x).reshape(B, G * S, D)
        x = x + dropped(self.cross(normal, *encoded, biases[1]).reshape(B, G, S, D), dropout, 1)
        return constrain(x + dropped(self.ffn(self.ffn_norm(x)), dropout, 2), "batch"), (keys, values)


class Stack(nnx.Module):
    """The layers of one side, and what a distance adds to the logits in all of them."""

    def __init__(self, layer: type[EncoderLayer], config: ModelConfig, rngs: nnx.Rngs):
        init = nnx.initializers.normal(config.width**-0.5)
        table = init(rngs.params(), (BUCKETS, config.num_heads), jnp.dtype(config.param_dtype))
        self.distance_bias = nnx.Param(table, axes=("length", "heads"))
        self.layers: Any = nnx.Dict({str(index): layer(config, rngs) for index in range(config.num_layers)})
        self.norm = RMSNorm(config)

    def bias(self, buckets: np.ndarray) -> jax.Array:
        """int[S, T] -> float32[N, S, T]."""
        return jnp.moveaxis(self.distance_bias[...].astype(jnp.float32)[buckets], -1, 0)


class T5(TiedFamily):
    """`num_layers` layers of the encoder, and as many of the decoder.

    The weights are drawn as T5's are, each map's by the number of its inputs. `init_std` is that of the embeddings; in
    T5 it is 1.
    """

    takes_dropout = True
    causal = False
    uses: ClassVar[frozenset[str]] = frozenset(
        {"num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_width", "norm_eps"}
    )

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Raises ConfigError for heads that share keys, and as `Family.check`."""
        super().check(config)
        refuse_shared_keys(config)

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.encoder = Stack(EncoderLayer, config, rngs)
        self.decoder = Stack(DecoderLayer, config, rngs)

    def hidden(self, tokens: jax.Array, segments: jax.Array | None) -> jax.Array:
        """Raises ConfigError: it has to be told which of the tokens are a prompt's (`prefill`, `answer_states`)."""
        raise ConfigError(
            f"model.family={self.config.family!r} runs prompts and answers apart: a row alone has no states; take "
            "model.family='decoder'"
        )

    def answer_states(
        self,
        tokens: jax.Array,
        segments: jax.Array | None,
        starts: jax.Array,
        count: int,
        dropout: Dropout | None = None,
        times: jax.Array | None = None,
    ) -> jax.Array:
        """As `Family.answer_states`, without times. A segment may have one answer: all before it is the encoder's."""
        (B, T), M = tokens.shape, starts.shape[1]
        segments = jnp.zeros_like(tokens) if segments is None else segments
        own = jnp.take_along_axis(segments, starts, axis=1)
        before = jnp.arange(T, dtype=jnp.int32).reshape(1, 1, T) <= starts[..., None]
        prompt_BMT = (segments[:, None] == own[..., None]) & before
        together = segments[:, :, None] == segments[:, None]
        # A token that is no prompt's is read by nobody; it sees itself, so that its state is a number.
        seen = (together & prompt_BMT.any(axis=1)[:, None]) | jnp.eye(T, dtype=bool)[None]
        encoded = self._encode(tokens, seen, dropout and dropout.within(0))
        answers = jnp.take_along_axis(tokens, behind(starts, count, T), axis=1).reshape(B, M, count)
        answers = answers.at[..., 0].set(START)
        unseen = _mask(jnp.repeat(prompt_BMT, count, axis=1)[:, None])
        return self._decode(answers, encoded, unseen, None, dropout and dropout.within(1))[0]

    def prefill(self, prompts: Prompts, dropout: Dropout | None = None) -> Encoded:
        """The encoder's pass over the prompts and the decoder's over its first token; dropout acts in the encoder."""
        inside = jnp.arange(prompts.tokens.shape[1], dtype=jnp.int32)[None] < prompts.lengths[:, None]
        keys, values = self._encode(prompts.tokens, inside[:, None], dropout)
        first = jnp.full((len(prompts.tokens), 1, 1), START, jnp.int32)
        states, start = self._decode(first, (keys, values), _mask(inside[:, None, None]), None, None)
        return Encoded(keys, values, start, prompts.lengths, states[:, 0, 0])

    def extend(self, cache: Encoded, tokens: jax.Array, past: SuffixCache | None) -> tuple[jax.Array, SuffixCache]:
        """S more tokens int32[B, G, S] of each answer: hidden states [B, G, S, D], and keys and values of all."""
        G = tokens.shape[1]
        if past is None:
            past = jax.tree.map(lambda side: jnp.broadcast_to(side, (*side.shape[:2], G, *side.shape[3:])), cache.start)
        inside = jnp.arange(cache.keys.shape[2], dtype=jnp.int32)[None] < cache.lengths[:, None]
        return self._decode(tokens, (cache.keys, cache.values), _mask(inside[:, None, None]), past, None)

    def _encode(self, tokens: jax.Array, seen: jax.Array, dropout: Dropout | None) -> KeysValues:
        """What the decoder's layers look up in int32[B, T]: [L, B, T, N, H]. `seen` is bool[B, 1 or T, T]."""
        index = np.arange(tokens.shape[1])
        bias = self.encoder.bias(buckets(index[None] - index[:, None], both_ways=True))[None] + _mask(seen[:, None])
        x = dropped(self.embedded(tokens), dropout, self.config.num_layers)
        for number in range(self.config.num_layers):
            x = self.encoder.layers[str(number)](x, bias, dropout and dropout.within(number))
        x = dropped(self.encoder.norm(x), dropout, self.config.num_layers + 1)
        sides = [self.decoder.layers[str(number)].cross.keys_values(x) for number in range(self.config.num_layers)]
        keys, values = (constrain(jnp.stack(side), "layers", "batch") for side in zip(*sides, strict=True))
        return keys, values

    def _decode(
        self,
        tokens: jax.Array,
        encoded: KeysValues,
        unseen: jax.Array,
        past: SuffixCache | None,
        dropout: Dropout | None,
    ) -> tuple[jax.Array, SuffixCache]:
        """States [B, G, S, D] of tokens int32[B, G, S] behind `past` ones, and keys and values of them all.

        `unseen` [B, 1, 1 or G * S, T] is -inf at places of the encoder that a token does not see.
        """
        done, S = 0 if past is None else past.keys.shape[3], tokens.shape[2]
        distance = np.arange(done + S)[None] - np.arange(done, done + S)[:, None]
        own = self.decoder.bias(buckets(distance, both_ways=False)) + _mask(jnp.asarray(distance <= 0)[None])
        x = dropped(self.embedded(tokens), dropout, self.config.num_layers)
        sides = []
        for number in range(self.config.num_layers):
            cross = (encoded[0][number], encoded[1][number])
            before = None if past is None else (past.keys[number], past.values[number])
            layer, drop = self.decoder.layers[str(number)], dropout and dropout.within(number)
            x, side = layer.answer(x, cross, before, (own[None, None], unseen), drop)
            sides.append(side)
        x = dropped(self.decoder.norm(x), dropout, self.config.num_layers + 1)
        keys, values = (constrain(jnp.stack(side), "layers", "batch", "group") for side in zip(*sides, strict=True))
        return x * self.config.width**-0.5, SuffixCache(keys, values)


def buckets(distance: np.ndarray, *, both_ways: bool) -> np.ndarray:
    """The bucket of each distance int[...] from a query to a key: one for each small one, then by its logarithm.

    Without `both_ways` a key behind the query counts as the query itself.
    """
    count = BUCKETS // 2 if both_ways else BUCKETS
    size = np.abs(distance) if both_ways else np.maximum(-distance, 0)
    exact = count // 2
    # In float32, as others compute it: a distance on the border of two buckets then falls on the same side.
    logs = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    far = exact + (logs / np.float32(np.log(MAX_DISTANCE / exact)) * np.float32(count - exact)).astype(np.int64)
    side = count * (distance > 0) if both_ways else 0
    return side + np.where(size < exact, size, np.minimum(far, count - 1))


def _mask(seen: jax.Array) -> jax.Array:
    """0 where a token is seen and -inf elsewhere."""
    return jnp.where(seen, 0.0, -jnp.inf)
