"""The pure functions of a model over a pytree of parameters: all that decoding and training see."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.decoder import Decoder, PromptCache, Prompts, SuffixCache, fresh_parameters
from wpauc_jax.runtime.sharding import gather_parameters, state_specs

Params = Any  # a nested dict of arrays


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model family's functions. Hashable, so that it can be a static argument of jit."""

    config: ModelConfig
    graphdef: nnx.GraphDef

    def gathered(self, params: Params) -> Params:
        """Parameters for all passes of one step, made whole over the mesh's fsdp axis if `model.gather` says so."""
        return gather_parameters(params, self.config.dtype) if self.config.gather == "step" else params

    def prefill(self, params: Params, prompts: Prompts) -> PromptCache:
        """Runs each user's prompt once; see `PromptCache`."""
        return self._model(params).prefill(prompts)

    def extend(
        self, params: Params, cache: PromptCache, tokens: jax.Array, past: SuffixCache | None = None
    ) -> tuple[jax.Array, SuffixCache]:
        """Runs int32[B, G, S] further tokens of G candidates a user -> hidden [B, G, S, D] and the longer suffix."""
        return self._model(params).extend(cache, tokens, past)

    def logits(self, params: Params, hidden: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """float32[..., R] at the vocabulary ids `rows` int32[R]; [..., V] without."""
        return self._model(params).logits(hidden, rows)

    def log_partition(self, params: Params, hidden: jax.Array) -> jax.Array:
        """float32[...]: logsumexp of `logits` over the whole vocabulary, block by block."""
        return self._model(params).log_partition(hidden)

    def hidden(self, params: Params, tokens: jax.Array, segments: jax.Array | None = None) -> jax.Array:
        """int32[B, T] -> [B, T, D]: the states from which the tokens t + 1 are predicted.

        Sequences packed into one row are told apart by `segments` int32[B, T], each a run of one number.
        """
        return self._model(params).hidden(tokens, segments)

    def forward(self, params: Params, tokens: jax.Array) -> jax.Array:
        """The plain causal language model: int32[B, T] -> float32[B, T, V]."""
        return self.logits(params, self.hidden(params, tokens))

    def _model(self, params: Params) -> Decoder:
        return nnx.merge(self.graphdef, params)


def make_policy(config: ModelConfig) -> tuple[Policy, Params]:
    """A model without weights: its functions, and the parameters' shapes as `jax.ShapeDtypeStruct`s.

    Raises ConfigError where heads do not divide, or where the vocabulary size is not set.
    """
    if config.vocab_size < 1:
        raise ConfigError(f"model.vocab_size={config.vocab_size} must be set before a model is made")
    if config.num_heads % config.num_kv_heads:
        raise ConfigError(
            f"model.num_heads={config.num_heads} must be a multiple of model.num_kv_heads={config.num_kv_heads}"
        )
    if config.head_dim % 2:
        raise ConfigError(f"model.head_dim={config.head_dim} must be even: rotary positions turn pairs")
    model = nnx.eval_shape(lambda: Decoder(config, nnx.Rngs(0)))
    return Policy(config, nnx.graphdef(model)), nnx.to_pure_dict(nnx.state(model))


def init(config: ModelConfig, seed: int = 0) -> tuple[Policy, Params]:
    """A freshly initialised model. Raises ConfigError as `make_policy`."""
    policy, shapes = make_policy(config)

    # Made in its parts: no device ever holds all of a cut model.
    create = jax.jit(functools.partial(fresh_parameters, config), out_shardings=state_specs(shapes))
    return policy, create(jax.random.key(seed))
