"""A decoder-only language model of the Qwen2 and Llama families, in Flax NNX.

It has grouped-query attention, rotary positions, RMSNorm and SwiGLU. `wpauc_jax.models.layers` says how its layers are
kept and run. `wpauc_jax.models.policy` splits the module into structure and parameters. Nothing outside this folder
sees the module itself.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.attention import causal_attention, group_attention, prompt_attention
from wpauc_jax.models.cache import PromptCache, Prompts, SuffixCache
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import Family, vocabulary_table
from wpauc_jax.models.kernels import cudnn_attention, splash_attention
from wpauc_jax.models.layers import LAYERS, REMAT
from wpauc_jax.models.log_partition import VOCABULARY_BLOCK, log_partition
from wpauc_jax.models.matmul import project, rows_times_kernel
from wpauc_jax.models.rope import rope, rope_table
from wpauc_jax.models.segments import places
from wpauc_jax.runtime.sharding import constrain

CAUSAL_ATTENTION = {"xla": causal_attention, "cudnn": cudnn_attention, "splash": splash_attention}


class Attention(nnx.Module):
    """Projections of grouped-query attention; the caller says who attends to whom."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        kv_width = config.num_kv_heads * config.head_dim
        linear = functools.partial(_linear, config, rngs=rngs)
        self.q = linear("q", config.width, config.num_heads * config.head_dim, bias=config.attention_bias)
        self.k = linear("k", config.width, kv_width, bias=config.attention_bias)
        self.v = linear("v", config.width, kv_width, bias=config.attention_bias)
        self.out = linear("out", config.num_heads * config.head_dim, config.width, bias=False)

    def queries(self, x: jax.Array, turns: jax.Array) -> jax.Array:
        """x[..., S, D], turns[..., S, 2, H / 2] of the positions -> q[..., S, N, H]."""
        (q,) = self._heads(x, self.q)
        return rope(q, turns)

    def keys_values(self, x: jax.Array, turns: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x[..., S, D], turns[..., S, 2, H / 2] -> k and v[..., S, K, H]."""
        k, v = self._heads(x, self.k, self.v)
        return rope(k, turns), v

    def queries_keys_values(self, x: jax.Array, turns: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`queries` and `keys_values` in one product."""
        q, k, v = self._heads(x, self.q, self.k, self.v)
        return rope(q, turns), rope(k, turns), v

    def merge(self, heads: jax.Array) -> jax.Array:
        """[..., N, H] -> [..., D]."""
        return self.out(heads.reshape(*heads.shape[:-2], -1))

    def _heads(self, x: jax.Array, *linears: nnx.Linear) -> list[jax.Array]:
        """x[..., D] through each map -> [..., heads, H]; in one product, since a narrow one leaves cores idle.

        The maps stand beside each other key head by key head, so that a mesh cuts their product as it cuts each.
        """
        K, H = self.config.num_kv_heads, self.config.head_dim

        def beside(parts: list[jax.Array]) -> jax.Array:
            return jnp.concatenate([part.reshape(*part.shape[:-1], K, -1) for part in parts], axis=-1)

        kernel = beside([linear.kernel[...].astype(self.config.dtype) for linear in linears])
        out = project(x, kernel.reshape(len(kernel), -1))
        if self.config.attention_bias:
            bias = beside([linear.bias[...].astype(out.dtype) for linear in linears if linear.bias is not None])
            out += bias.reshape((1,) * (x.ndim - 1) + (-1,))
        out = out.reshape(*x.shape[:-1], K, -1)
        ends = np.cumsum([linear.out_features // K for linear in linears])
        heads = []
        for linear, part in zip(linears, jnp.split(out, ends[:-1], axis=-1), strict=True):
            if isinstance(linear, nnx.LoRALinear):
                part += linear.lora(x).reshape(part.shape)
            heads.append(part.reshape(*x.shape[:-1], -1, H))
        return heads


class Mlp(nnx.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.gate = _linear(config, "gate", config.width, config.ffn_width, bias=False, rngs=rngs)
        self.up = _linear(config, "up", config.width, config.ffn_width, bias=False, rngs=rngs)
        self.down = _linear(config, "down", config.ffn_width, config.width, bias=False, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]."""
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    """One pre-norm block, in the two shapes that a group needs."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.mlp_norm = RMSNorm(config)
        self.mlp = Mlp(config, rngs)

    def prompt(
        self,
        x_BTD: jax.Array,
        turns: jax.Array,
        segments_BT: jax.Array | None = None,
        dropout: Dropout | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """A causal pass; returns the new x and this layer's keys and values [B, K, T, H]."""
        q, *kv = self.attention.queries_keys_values(self.attention_norm(x_BTD), turns)
        k, v = _by_head(*kv)
        attend = CAUSAL_ATTENTION[self.attention.config.attention]
        return self._finish(x_BTD, attend(q, k, v, segments_BT), dropout), (k, v)

    def last_token(
        self, x_BTD: jax.Array, turns: jax.Array, lengths_B: jax.Array, dropout: Dropout | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """`prompt` where only the prompt's last token goes on: its new x [B, D], and all tokens' keys and values."""
        x = self.attention_norm(x_BTD)
        k, v = _by_head(*self.attention.keys_values(x, turns))
        last = (lengths_B - 1)[:, None]
        q = self.attention.queries(_at(x, last), jnp.asarray(turns)[last])
        heads, _ = prompt_attention(q[:, None], k, v, lengths_B)
        return self._finish(_at(x_BTD, last), heads[:, 0], dropout)[:, 0], (k, v)

    def suffix(
        self,
        x_BGSD: jax.Array,
        turns: jax.Array,
        prompt: tuple[jax.Array, jax.Array],
        prompt_lengths: jax.Array,
        past: tuple[jax.Array, jax.Array] | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """A pass over S new tokens of each candidate; returns the new x and the suffix's keys and values."""
        q, k, v = self.attention.queries_keys_values(self.attention_norm(x_BGSD), turns)
        if past is not None:
            k, v = jnp.concatenate([past[0], k], axis=2), jnp.concatenate([past[1], v], axis=2)
        k, v = (constrain(side, "batch", "group", "length", "kv_heads") for side in (k, v))
        return self._finish(x_BGSD, group_attention(q, *prompt, prompt_lengths, k, v)), (k, v)

    def _finish(self, x: jax.Array, heads: jax.Array, dropout: Dropout | None = None) -> jax.Array:
        """The residual stream [..., D] past attention's heads [..., N, H] and the MLP; what joins it may be dropped."""
        x = x + dropped(self.attention.merge(heads), dropout, 0)
        return constrain(x + dropped(self.mlp(self.mlp_norm(x)), dropout, 1), "batch")


class Decoder(Family):
    """Token ids in, hidden states out; logits only for the rows of the head that are asked for."""

    takes_dropout = True
    reads_layers = True
    uses = frozenset(
        {"num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_width", "rope_theta", "rope_scaling", "norm_eps"}
        | {"attention_bias", "tie_embeddings", "layers", "remat", "attention"}
    )

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = vocabulary_table(config, rngs)
        self.layers: Any = LAYERS[config.layers].make(functools.partial(Layer, config), config.num_layers, rngs)
        self.norm = RMSNorm(config)
        self.head = None if config.tie_embeddings else vocabulary_table(config, rngs)

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Raises ConfigError where heads do not divide, and as `Family.check`."""
        super().check(config)
        if config.num_heads % config.num_kv_heads:
            raise ConfigError(
                f"model.num_heads={config.num_heads} must be a multiple of model.num_kv_heads={config.num_kv_heads}"
            )
        if config.head_dim % 2:
            raise ConfigError(f"model.head_dim={config.head_dim} must be even: rotary positions turn pairs")

    @classmethod
    def fresh(cls, config: ModelConfig, key: jax.Array) -> dict[str, Any]:
        """Parameters drawn from `key`, the same ones however layers run; inside jit, what is not used is not drawn."""
        params = super().fresh(dataclasses.replace(config, layers="scanned"), key)
        return params | {"layers": LAYERS[config.layers].from_stack(params["layers"], config.num_layers)}

    def hidden(self, tokens_BT: jax.Array, segments_BT: jax.Array | None, dropout: Dropout | None = None) -> jax.Array:
        """A plain causal pass: [B, T, D], normalised, ready for the head; each segment of a row is on its own."""
        return self.norm(self._pass(tokens_BT, segments_BT, dropout, lambda x, kept: kept)[0])

    def layer_states(
        self, tokens_BT: jax.Array, segments_BT: jax.Array | None, middle: int, dropout: Dropout | None = None
    ) -> jax.Array:
        """`hidden`, then the states of the `middle` layers before the last, the latest first: [1 + middle, B, T, D]."""
        _, states = self._pass(tokens_BT, segments_BT, dropout, lambda x, kept: x)
        return self.norm(states[::-1][: 1 + middle])

    def _pass(
        self,
        tokens_BT: jax.Array,
        segments_BT: jax.Array | None,
        dropout: Dropout | None,
        out: Callable[[jax.Array, Any], Any],
    ) -> tuple[jax.Array, Any]:
        """All layers: x [B, T, D] behind the last, and of each layer `out` of its x, its keys and values, stacked."""
        table = jnp.asarray(rope_table(self.config, tokens_BT.shape[1]))
        turns = table if segments_BT is None else table[places(segments_BT)]
        count = self.config.num_layers

        def body(layer: Layer, x: jax.Array, number: jax.Array):
            x, kept = layer.prompt(x, turns, segments_BT, dropout and dropout.within(number))
            return x, out(x, kept)

        x = dropped(self._embed(tokens_BT), dropout, count)
        return self._run(body, x, jnp.arange(count, dtype=jnp.int32))

    def prefill(self, prompts: Prompts, dropout: Dropout | None = None) -> PromptCache:
        """One causal pass over the prompts, kept for the candidates; the last layer runs what is kept and no more."""
        turns = jnp.asarray(rope_table(self.config, prompts.tokens.shape[1]))
        last_layer = self.config.num_layers - 1
        x = dropped(self._embed(prompts.tokens), dropout, self.config.num_layers)
        kept: tuple = ((), ())  # keys and values of the layers before the last

        def prompt(layer: Layer, x: jax.Array, number: jax.Array):
            return layer.prompt(x, turns, None, dropout and dropout.within(number))

        def last_token(layer: Layer, x: jax.Array, number: jax.Array):
            return layer.last_token(x, turns, prompts.lengths, dropout and dropout.within(number))

        if last_layer:
            x, (keys, values) = self._run(prompt, x, jnp.arange(last_layer, dtype=jnp.int32), stop=last_layer)
            kept = ((keys,), (values,))
        layer = LAYERS[self.config.layers].layer(self.layers, last_layer)
        x, final = self._checkpointed(last_token)(layer, x, jnp.asarray(last_layer, jnp.int32))
        keys, values = (jnp.concatenate([*side, one[None]]) for side, one in zip(kept, final, strict=True))
        return PromptCache(keys, values, prompts.lengths, self.norm(x))

    def extend(
        self, cache: PromptCache, tokens_BGS: jax.Array, past: SuffixCache | None
    ) -> tuple[jax.Array, SuffixCache]:
        """S more tokens of each candidate: hidden states [B, G, S, D] and the longer suffix."""
        done = 0 if past is None else past.keys.shape[3]
        steps = jnp.arange(tokens_BGS.shape[2], dtype=jnp.int32).reshape(1, 1, -1)
        table = rope_table(self.config, cache.keys.shape[3] + done + tokens_BGS.shape[2])
        turns = jnp.asarray(table)[cache.lengths[:, None, None] + done + steps]  # [B, 1, S, 2, H / 2]

        def body(layer: Layer, x: jax.Array, xs):
            prompt, suffix = xs
            return layer.suffix(x, turns, prompt, cache.lengths, suffix)

        prompt = (cache.keys, cache.values)
        x, (keys, values) = self._run(body, self._embed(tokens_BGS), (prompt, None if past is None else tuple(past)))
        return self.norm(x), SuffixCache(keys, values)

    def logits(self, hidden: jax.Array, rows: jax.Array | slice | None) -> jax.Array:
        """float32[..., R] for the vocabulary ids `rows`, or [..., V] for all of them."""
        table = self._head_table(hidden.dtype)
        if isinstance(rows, slice) and 2 * (rows.stop - rows.start) > table.shape[0]:
            return self._products(hidden, table)[..., rows]  # most of the table: it stays in its parts on the mesh
        return self._products(hidden, table if rows is None else constrain(table[rows]))

    def _products(self, hidden: jax.Array, table: jax.Array) -> jax.Array:
        return jnp.einsum("...d,rd->...r", hidden, table, preferred_element_type=jnp.float32)

    def log_partition(self, hidden: jax.Array) -> jax.Array:
        """float32[...]: the log of the softmax's sum over the whole vocabulary, whose logits are never held."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        return log_partition(rows, self._head_table(hidden.dtype), VOCABULARY_BLOCK).reshape(hidden.shape[:-1])

    def _head_table(self, dtype: jax.typing.DTypeLike) -> jax.Array:
        table = (self.embed if self.head is None else self.head)[...].astype(dtype)
        return constrain(table, "vocab", "width")

    def _embed(self, tokens: jax.Array) -> jax.Array:
        table = constrain(self.embed[...].astype(self.config.dtype), "vocab", "width")
        return constrain(table[tokens], "batch")

    def _run(self, body, x: jax.Array, xs, *, stop: int | None = None):
        """Runs `body(layer, x, xs of the layer) -> (x, out)` over the layers before `stop`; outs are stacked."""
        run = LAYERS[self.config.layers].run
        return run(self.layers, self._checkpointed(body), x, xs, stop or self.config.num_layers)

    def _checkpointed(self, body):
        """`body(layer, x, xs)`, its activations recomputed in the backward pass where the settings ask for it."""
        return REMAT[self.config.remat](body)


def _by_head(*sides_BTKH: jax.Array) -> list[jax.Array]:
    """A prompt's keys and values as [B, K, T, H]."""
    return [constrain(side.swapaxes(1, 2), "batch", "kv_heads") for side in sides_BTKH]


def _at(x_BTD: jax.Array, index_BS: jax.Array) -> jax.Array:
    """[B, S, D]."""
    return constrain(jnp.take_along_axis(x_BTD, index_BS[..., None], axis=1), "batch")


# The logical axes of a linear map's inputs and outputs.
_LINEAR_AXES = {
    "q": ("embed", "heads"),
    "k": ("embed", "kv_heads"),
    "v": ("embed", "kv_heads"),
    "out": ("heads", "embed"),
    "gate": ("embed", "ffn"),
    "up": ("embed", "ffn"),
    "down": ("ffn", "embed"),
}


def _linear(
    config: ModelConfig, name: str, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs
) -> nnx.Linear | nnx.LoRALinear:
    """A linear map, with a float32 adapter beside it where `model.lora` names it."""
    axes = _LINEAR_AXES[name]
    settings: dict[str, Any] = {
        "kernel_metadata": {"axes": axes},
        "bias_metadata": {"axes": axes[1:]},
        "use_bias": bias,
        "dtype": jnp.dtype(config.dtype),
        "param_dtype": jnp.dtype(config.param_dtype),
        "kernel_init": nnx.initializers.normal(config.init_std),
        "dot_general": rows_times_kernel,
        "rngs": rngs,
    }
    if config.lora.rank and name in config.lora.targets:
        settings |= {"lora_rank": config.lora.rank, "lora_dtype": jnp.dtype(config.dtype)}
        settings |= {side: {"axes": ("adapter", "adapter")} for side in ("a_metadata", "b_metadata")}
        return nnx.LoRALinear(inputs, outputs, **settings)
    return nnx.Linear(inputs, outputs, **settings)


class RMSNorm(nnx.Module):
    """Zhang and Sennrich, arXiv 1910.07467. Flax's own makes an array [..., D] of rsqrt * scale on the way."""

    def __init__(self, config: ModelConfig):
        self.scale = nnx.Param(jnp.ones(config.width, jnp.dtype(config.param_dtype)), axes=("norm",))
        self.config = config

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D]; in float32 inside."""
        wide = x.astype(jnp.float32)
        normal = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.config.norm_eps)
        scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
        return (normal * scale).astype(self.config.dtype)
