"""What a model family is: a Flax module with four functions, and axes on each of its parameters.

A parameter is made as `nnx.Param(value, axes=(...))`. Each axis has a name of `RULES` in `runtime.sharding`. From there
on the names go with the array. They decide where the array and its moments lie on the mesh. They decide whether weight
decay acts on it, and whether it is a table that grows with the vocabulary.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.cache import Prompts
from wpauc_jax.models.dropout import Dropout

# Settings that act on every family.
EVERY = frozenset(
    {"family", "pretrained", "width", "vocab_size", "init_std", "dtype", "param_dtype", "gather", "new_rows"}
    | {"lora", "freeze", "seed"}
)
_DEFAULT = ModelConfig()


class Family(nnx.Module):
    """A causal language model: token ids in, hidden states out, logits for those rows of its head that are asked for.

    A prompt is run once, and candidates that share it go on from its cache. Search and training look at a cache's
    `lengths` int32[B] and `hidden` [B, D] and hand the rest back as it is. What `extend` returns to go on with (`past`)
    is a pytree of arrays [L, B, G, ...] with any L: search picks candidates along the third axis.
    """

    takes_dropout: ClassVar[bool] = False  # whether `hidden` and `prefill` take a `Dropout` as last
    one_token: ClassVar[bool] = False  # whether an item can only be one token, so that `extend` is never asked for
    # Whether a token's state depends on those before it alone, so that one pass predicts every next item of a row.
    causal: ClassVar[bool] = True
    reads_layers: ClassVar[bool] = False  # whether it has `layer_states`
    uses: ClassVar[frozenset[str]] = frozenset()  # settings of the model that it uses beside those of EVERY

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Raises ConfigError for settings that make no model of this family, or that it does not use."""
        for field in dataclasses.fields(ModelConfig):
            value, default = getattr(config, field.name), getattr(_DEFAULT, field.name)
            if value != default and field.name not in EVERY | cls.uses:
                raise ConfigError(
                    f"model.{field.name}={value} has no effect with model.family={config.family!r}; "
                    f"leave it at {default}"
                )

    @classmethod
    def fresh(cls, config: ModelConfig, key: jax.Array) -> dict[str, Any]:
        """Parameters drawn from `key`, as a nested dict."""
        return nnx.to_pure_dict(nnx.state(cls(config, nnx.Rngs(key))))

    @abc.abstractmethod
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        """Makes the parameters, each with its axes."""

    @abc.abstractmethod
    def hidden(self, tokens: jax.Array, segments: jax.Array | None) -> jax.Array:
        """int32[B, T] -> [B, T, D]: the states from which the tokens t + 1 are predicted.

        Sequences packed into one row are told apart by `segments` int32[B, T], each a run of one number.
        """

    def answer_states(
        self,
        tokens: jax.Array,
        segments: jax.Array | None,
        starts: jax.Array,
        count: int,
        dropout: Dropout | None = None,
        times: jax.Array | None = None,
    ) -> jax.Array:
        """[B, M, count, D]: the states from which the `count` tokens behind each of places int32[B, M] are predicted.

        Arguments as for `hidden`. A place is that of the last token before an answer. A family that takes the `times`
        int32[B, T] of tokens, in seconds, may be given them.
        """
        told = {} if times is None else {"times": times}
        hidden = self.hidden(tokens, segments, *([dropout] if dropout else []), **told)
        return states_behind(hidden, starts, count)

    def layer_states(
        self, tokens: jax.Array, segments: jax.Array | None, middle: int, dropout: Dropout | None = None
    ) -> jax.Array:
        """[1 + middle, B, T, D]: `hidden`, then the states of the `middle` layers before the last, ready for the head.

        Raises NotImplementedError where `reads_layers` is false.
        """
        raise NotImplementedError(f"{type(self).__name__} reads no middle layers")

    @abc.abstractmethod
    def prefill(self, prompts: Prompts) -> Any:
        """Runs B prompts and keeps what their candidates need: a cache."""

    @abc.abstractmethod
    def extend(self, cache: Any, tokens: jax.Array, past: Any | None) -> tuple[jax.Array, Any]:
        """S more tokens int32[B, G, S] of each candidate: hidden states [B, G, S, D] and the longer `past`."""

    @abc.abstractmethod
    def logits(self, hidden: jax.Array, rows: jax.Array | slice | None) -> jax.Array:
        """float32[..., R] for the vocabulary ids `rows`, or [..., V] for all of them.

        A slice says that the ids are a range; `table[rows]` does for both.
        """

    def log_partition(self, hidden: jax.Array) -> jax.Array:
        """float32[...]: the log of the softmax's sum over the whole vocabulary."""
        return jax.nn.logsumexp(self.logits(hidden, None), axis=-1)


def states_behind(hidden: jax.Array, starts: jax.Array, count: int) -> jax.Array:
    """[B, M, count, D]: of states [B, T, D] those at the `count` places from each of int32[B, M] `starts` on."""
    (B, T, D), M = hidden.shape, starts.shape[1]
    return jnp.take_along_axis(hidden, behind(starts, count, T)[..., None], axis=1).reshape(B, M, count, D)


def behind(starts: jax.Array, count: int, length: int) -> jax.Array:
    """int32[B, M * count]: the `count` places from each of int32[B, M] `starts` on, none beyond a row's last."""
    places = starts[..., None] + jnp.arange(count, dtype=jnp.int32).reshape(1, 1, -1)
    return jnp.minimum(places, length - 1).reshape(len(starts), -1)


def refuse_shared_keys(config: ModelConfig) -> None:
    """Raises ConfigError where query heads share heads of keys."""
    if config.num_kv_heads != config.num_heads:
        raise ConfigError(
            f"model.num_kv_heads={config.num_kv_heads} must be model.num_heads={config.num_heads} with "
            f"model.family={config.family!r}: its heads share no keys"
        )


def vocabulary_table(config: ModelConfig, rngs: nnx.Rngs) -> nnx.Param:
    """One row of width D per vocabulary id; an input embedding and an output head have the same layout."""
    init = nnx.initializers.normal(config.init_std)
    value = init(rngs.params(), (config.vocab_size, config.width), jnp.dtype(config.param_dtype))
    return nnx.Param(value, axes=("vocab", "embed"))


def linear(
    config: ModelConfig,
    inputs: int,
    outputs: int,
    axes: tuple[str, str],
    rngs: nnx.Rngs,
    *,
    bias: bool = True,
    std: float | None = None,
) -> nnx.Linear:
    """A linear map with its logical axes; its weights are drawn with `std`, or else with `model.init_std`."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        kernel_metadata={"axes": axes},
        bias_metadata={"axes": axes[1:]},
        kernel_init=nnx.initializers.normal(config.init_std if std is None else std),
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )
