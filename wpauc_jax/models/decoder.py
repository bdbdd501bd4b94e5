"""A decoder-only language model of the Qwen2 and Llama families in Flax NNX.

Grouped-query attention, rotary positions, RMSNorm, SwiGLU; layers are stacked and scanned. The module is split once
into structure and parameters (`wpauc_jax.models.policy`); nothing outside this package sees it.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.attention import causal_attention, group_attention
from wpauc_jax.models.matmul import rows_times_kernel
from wpauc_jax.models.rope import rope, rope_frequencies


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "lengths"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Prompts:
    """B prompts, padded on the right."""

    tokens: jax.Array  # int32[B, T]
    lengths: jax.Array  # int32[B]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["keys", "values", "lengths", "hidden"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class PromptCache:
    """What a prompt leaves behind for the candidates that follow it."""

    keys: jax.Array  # [L, B, T, K, H]
    values: jax.Array  # [L, B, T, K, H]
    lengths: jax.Array  # int32[B]
    hidden: jax.Array  # [B, D] at the prompt's last token, ready for the output head


class SuffixCache(NamedTuple):
    """Keys and values of the P tokens that each candidate has so far."""

    keys: jax.Array  # [L, B, G, P, K, H]
    values: jax.Array  # [L, B, G, P, K, H]


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

    def project(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """x[..., S, D], positions int[..., S] -> q[..., S, N, H], k and v[..., S, K, H]."""
        config = self.config
        q = self.q(x).reshape(*x.shape[:-1], config.num_heads, config.head_dim)
        k = self.k(x).reshape(*x.shape[:-1], config.num_kv_heads, config.head_dim)
        v = self.v(x).reshape(*x.shape[:-1], config.num_kv_heads, config.head_dim)
        frequencies = rope_frequencies(config)
        return rope(q, positions, frequencies), rope(k, positions, frequencies), v

    def merge(self, heads: jax.Array) -> jax.Array:
        """[..., N, H] -> [..., D]."""
        return self.out(heads.reshape(*heads.shape[:-2], -1))


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
        self.attention_norm = _norm(config, rngs)
        self.attention = Attention(config, rngs)
        self.mlp_norm = _norm(config, rngs)
        self.mlp = Mlp(config, rngs)

    def prompt(self, x_BTD: jax.Array, positions_BT: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """A causal pass; returns the new x and this layer's keys and values."""
        q, k, v = self.attention.project(self.attention_norm(x_BTD), positions_BT)
        x = x_BTD + self.attention.merge(causal_attention(q, k, v))
        return x + self.mlp(self.mlp_norm(x)), (k, v)

    def suffix(
        self,
        x_BGSD: jax.Array,
        positions_BGS: jax.Array,
        prompt: tuple[jax.Array, jax.Array],
        prompt_lengths: jax.Array,
        past: tuple[jax.Array, jax.Array] | None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """A pass over S new tokens of each candidate; returns the new x and the suffix's keys and values."""
        q, k, v = self.attention.project(self.attention_norm(x_BGSD), positions_BGS)
        if past is not None:
            k, v = jnp.concatenate([past[0], k], axis=2), jnp.concatenate([past[1], v], axis=2)
        x = x_BGSD + self.attention.merge(group_attention(q, *prompt, prompt_lengths, k, v))
        return x + self.mlp(self.mlp_norm(x)), (k, v)


class Decoder(nnx.Module):
    """Token ids in, hidden states out; logits only for the rows of the head that are asked for."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = _table(config, rngs)
        self.layers = _stack(config, rngs)
        self.norm = _norm(config, rngs)
        self.head = None if config.tie_embeddings else _table(config, rngs)

    def hidden(self, prompts: Prompts) -> jax.Array:
        """A plain causal pass: [B, T, D], normalised, ready for the head."""
        x, _ = self._run_prompt(prompts.tokens)
        return self.norm(x)

    def prefill(self, prompts: Prompts) -> PromptCache:
        """One causal pass over the prompts, kept for the candidates."""
        x, (keys, values) = self._run_prompt(prompts.tokens)
        last = jnp.take_along_axis(x, (prompts.lengths - 1)[:, None, None], axis=1)[:, 0]
        return PromptCache(keys, values, prompts.lengths, self.norm(last))

    def extend(
        self, cache: PromptCache, tokens_BGS: jax.Array, past: SuffixCache | None
    ) -> tuple[jax.Array, SuffixCache]:
        """S more tokens of each candidate: hidden states [B, G, S, D] and the longer suffix."""
        done = 0 if past is None else past.keys.shape[3]
        steps = jnp.arange(tokens_BGS.shape[2], dtype=jnp.int32).reshape(1, 1, -1)
        positions = jnp.broadcast_to(cache.lengths[:, None, None] + done + steps, tokens_BGS.shape)

        def body(layer: Layer, x: jax.Array, xs):
            prompt, suffix = xs
            return layer.suffix(x, positions, prompt, cache.lengths, suffix)

        prompt = (cache.keys, cache.values)
        x, (keys, values) = self._scan(body, self._embed(tokens_BGS), (prompt, None if past is None else tuple(past)))
        return self.norm(x), SuffixCache(keys, values)

    def logits(self, hidden: jax.Array, rows: jax.Array | None) -> jax.Array:
        """float32[..., R] for the vocabulary ids `rows`, or [..., V] for all of them."""
        table = (self.embed if self.head is None else self.head)[...].astype(hidden.dtype)
        if rows is not None:
            table = table[rows]
        return jnp.einsum("...d,rd->...r", hidden, table, preferred_element_type=jnp.float32)

    def _embed(self, tokens: jax.Array) -> jax.Array:
        return self.embed[...][tokens].astype(self.config.dtype)

    def _run_prompt(self, tokens_BT: jax.Array):
        positions = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1], dtype=jnp.int32)[None], tokens_BT.shape)
        return self._scan(lambda layer, x, _: layer.prompt(x, positions), self._embed(tokens_BT), None)

    def _scan(self, body, x: jax.Array, xs):
        """Runs `body(layer, x, xs)` over the stacked layers."""
        graphdef, state = nnx.split(self.layers)

        def step(x, inputs):
            layer_state, layer_xs = inputs
            return body(nnx.merge(graphdef, layer_state), x, layer_xs)

        if self.config.remat == "layer":
            step = jax.checkpoint(step, prevent_cse=False)
        return jax.lax.scan(step, x, (state, xs))


def _linear(
    config: ModelConfig, name: str, inputs: int, outputs: int, *, bias: bool, rngs: nnx.Rngs
) -> nnx.Linear | nnx.LoRALinear:
    """A linear map, with a float32 adapter beside it where `model.lora` names it."""
    settings: dict[str, Any] = {
        "use_bias": bias,
        "dtype": jnp.dtype(config.dtype),
        "param_dtype": jnp.dtype(config.param_dtype),
        "kernel_init": nnx.initializers.normal(config.init_std),
        "dot_general": rows_times_kernel,
        "rngs": rngs,
    }
    if config.lora.rank and name in config.lora.targets:
        settings |= {"lora_rank": config.lora.rank, "lora_dtype": jnp.dtype(config.dtype)}
        return nnx.LoRALinear(inputs, outputs, **settings)
    return nnx.Linear(inputs, outputs, **settings)


def _norm(config: ModelConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(
        config.width,
        epsilon=config.norm_eps,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )


def _table(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Param:
    """One row of width D per vocabulary id; input embedding and output head have the same layout."""
    init = nnx.initializers.normal(config.init_std)
    return nnx.Param(init(rngs.params(), (config.vocab_size, config.width), jnp.dtype(config.param_dtype)))


def _stack(config: ModelConfig, rngs: nnx.Rngs) -> Layer:
    """`num_layers` layers as one module whose parameters have a leading layer axis."""

    @nnx.split_rngs(splits=config.num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs: nnx.Rngs) -> Layer:
        return Layer(config, rngs)

    return create(rngs)
