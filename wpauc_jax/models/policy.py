"""The pure functions of a model over a pytree of parameters: all that decoding and training see.

`FAMILIES` says which module `model.family` names.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.cache import PromptCache, Prompts, SuffixCache
from wpauc_jax.models.decoder import Decoder
from wpauc_jax.models.dropout import Dropout
from wpauc_jax.models.family import Family, states_behind
from wpauc_jax.models.sequential import Caser, Gru4Rec, Hstu, SasRec
from wpauc_jax.models.t5 import T5
from wpauc_jax.runtime.parameters import NO_AXES, Axes, Parameters
from wpauc_jax.runtime.sharding import RULES, gather_parameters, state_specs

Params = Any  # a nested dict of arrays: `Parameters`, which know their axes

# By `model.family`.
FAMILIES: dict[str, type[Family]] = {
    "decoder": Decoder,
    "sasrec": SasRec,
    "gru4rec": Gru4Rec,
    "caser": Caser,
    "hstu": Hstu,
    "t5": T5,
}

# By `model.gather`: (parameters, the type of the computation) -> the parameters that the passes of a step take.
GATHERED: dict[str, Callable[[Params, str], Params]] = {"pass": lambda params, _: params, "step": gather_parameters}


@dataclasses.dataclass(frozen=True)
class Policy:
    """A model family's functions. Hashable, so that it can be a static argument of jit."""

    config: ModelConfig
    graphdef: nnx.GraphDef
    axes: Axes  # the logical axes of each parameter

    def gathered(self, params: Params) -> Params:
        """Parameters for all passes of one step, made whole over the mesh's fsdp axis if `model.gather` says so."""
        return GATHERED[self.config.gather](params, self.config.dtype)

    def prefill(self, params: Params, prompts: Prompts, dropout: Dropout | None = None) -> PromptCache:
        """Runs each user's prompt once; see `PromptCache`. Only a family that `takes_dropout` can be given any."""
        return self._model(params).prefill(prompts, *([dropout] if dropout else []))

    def extend(
        self, params: Params, cache: PromptCache, tokens: jax.Array, past: SuffixCache | None = None
    ) -> tuple[jax.Array, SuffixCache]:
        """Runs int32[B, G, S] further tokens of G candidates a user -> hidden [B, G, S, D] and the longer suffix."""
        return self._model(params).extend(cache, tokens, past)

    def logits(self, params: Params, hidden: jax.Array, rows: jax.Array | slice | None = None) -> jax.Array:
        """float32[..., R] at the vocabulary ids `rows`, int32[R] or a slice; [..., V] without."""
        return self._model(params).logits(hidden, rows)

    def log_partition(self, params: Params, hidden: jax.Array) -> jax.Array:
        """float32[...]: logsumexp of `logits` over the whole vocabulary, block by block."""
        return self._model(params).log_partition(hidden)

    def hidden(
        self,
        params: Params,
        tokens: jax.Array,
        segments: jax.Array | None = None,
        dropout: Dropout | None = None,
        times: jax.Array | None = None,
    ) -> jax.Array:
        """int32[B, T] -> [B, T, D]: the states from which the tokens t + 1 are predicted.

        Sequences packed into one row are told apart by `segments` int32[B, T], each a run of one number. Only a family
        that `takes_dropout` can be given any. `times` int32[B, T], in seconds, are for a model with
        `model.time_buckets`.
        """
        told = {} if times is None else {"times": times}
        return self._model(params).hidden(tokens, segments, *([dropout] if dropout else []), **told)

    def answer_states(
        self,
        params: Params,
        tokens: jax.Array,
        segments: jax.Array | None,
        starts: jax.Array,
        count: int,
        dropout: Dropout | None = None,
        times: jax.Array | None = None,
    ) -> jax.Array:
        """[B, M, count, D]: the states from which the `count` tokens behind each of places int32[B, M] are predicted.

        The other arguments are those of `hidden`.
        """
        return self._model(params).answer_states(tokens, segments, starts, count, dropout, times)

    def layer_states(
        self,
        params: Params,
        tokens: jax.Array,
        segments: jax.Array | None,
        starts: jax.Array,
        count: int,
        middle: int,
        dropout: Dropout | None = None,
    ) -> jax.Array:
        """[1 + middle, B, M, count, D]: `answer_states`, then those of the `middle` layers before the last."""
        states = self._model(params).layer_states(tokens, segments, middle, dropout)
        return jax.vmap(lambda hidden: states_behind(hidden, starts, count))(states)

    @property
    def reads_layers(self) -> bool:
        """Whether the family has `layer_states`."""
        return FAMILIES[self.config.family].reads_layers

    @property
    def takes_dropout(self) -> bool:
        """Whether the family's `hidden` and `prefill` take a `Dropout`."""
        return FAMILIES[self.config.family].takes_dropout

    def forward(self, params: Params, tokens: jax.Array) -> jax.Array:
        """The plain causal language model: int32[B, T] -> float32[B, T, V]."""
        return self.logits(params, self.hidden(params, tokens))

    def fresh(self, key: jax.Array) -> Params:
        """Parameters drawn from `key`."""
        return Parameters(FAMILIES[self.config.family].fresh(self.config, key), self.axes)

    def _model(self, params: Params) -> Family:
        return nnx.merge(self.graphdef, dict(params))


def make_policy(config: ModelConfig) -> tuple[Policy, Params]:
    """A model without weights: its functions, and the parameters' shapes as `jax.ShapeDtypeStruct`s.

    Raises ConfigError where the vocabulary size is not set, or settings make no model of the family; and KeyError for a
    parameter whose axes are not said.
    """
    family = FAMILIES[config.family]
    if config.vocab_size < 1:
        raise ConfigError(f"model.vocab_size={config.vocab_size} must be set before a model is made")
    family.check(config)
    model = nnx.eval_shape(lambda: family(config, nnx.Rngs(0)))
    policy = Policy(config, nnx.graphdef(model), _axes(model))
    if config.lora.rank and not any("adapter" in axes for axes in policy.axes.values()):
        raise ConfigError(f"model.lora.rank={config.lora.rank}: model.family={config.family!r} takes no adapter")
    return policy, Parameters(nnx.to_pure_dict(nnx.state(model)), policy.axes)


def init(config: ModelConfig, seed: int = 0) -> tuple[Policy, Params]:
    """A freshly initialised model. Raises ConfigError as `make_policy`."""
    policy, shapes = make_policy(config)

    # Made in its parts: no device ever holds all of a cut model.
    create = jax.jit(policy.fresh, out_shardings=state_specs(shapes))
    return policy, create(jax.random.key(seed))


def _axes(model: Family) -> Axes:
    """What the parameters' metadata says."""
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        axes = variable.get_metadata("axes", ())
        if len(axes) != variable.ndim or not set(axes) <= RULES.keys():
            raise KeyError(f"{'.'.join(map(str, path))} {tuple(variable.shape)} with axes={axes} {NO_AXES}")
        found[tuple(map(str, path))] = axes
    return Axes(found)
