"""What the sequential families share: one table of item embeddings, and a state for each place of a history.

The score of an item is the product of a state with the item's embedding. An item is one token, so nothing ever follows
a candidate's first token.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ConfigError, ModelConfig
from wpauc_jax.models.cache import Prompts
from wpauc_jax.models.dropout import Dropout
from wpauc_jax.models.family import refuse_shared_keys
from wpauc_jax.models.tied import TiedFamily


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """What a prompt leaves behind: its last state."""

    hidden: jax.Array  # [B, D]
    lengths: jax.Array  # int32[B]


class SequenceEncoder(TiedFamily):
    """A family whose items are one token each."""

    takes_dropout = True
    one_token = True

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Raises ConfigError for heads that share keys, and as `Family.check`."""
        super().check(config)
        if "num_heads" in cls.uses:
            refuse_shared_keys(config)

    @abc.abstractmethod
    def encode(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """Embeddings [B, T, D] -> states [B, T, D]; a state sees its own place and those before it in its segment.

        `segments` int32[B, T] are runs of one number each. A family that takes the `times` int32[B, T] of tokens has
        them as a further argument, None where they are not known.
        """

    def hidden(
        self, tokens: jax.Array, segments: jax.Array | None, dropout: Dropout | None = None, **times: jax.Array
    ) -> jax.Array:
        """int32[B, T] -> [B, T, D]."""
        segments = jnp.zeros_like(tokens) if segments is None else segments
        return self.encode(self.embedded(tokens), segments, dropout, **times)

    def prefill(self, prompts: Prompts, dropout: Dropout | None = None) -> History:
        """The state at each prompt's last token; padding stands behind it, where it is not seen."""
        times = {} if prompts.times is None else {"times": prompts.times}
        states = self.hidden(prompts.tokens, None, dropout, **times)
        last = jnp.take_along_axis(states, (prompts.lengths - 1)[:, None, None], axis=1)[:, 0]
        return History(last, prompts.lengths)

    def extend(self, cache: History, tokens: jax.Array, past: Any | None) -> tuple[jax.Array, Any]:
        """Raises ConfigError: an item of one token has no second one."""
        raise ConfigError(
            f"model.family={self.config.family!r} scores items of one token; set catalog.ids='atomic', or take "
            "model.family='decoder'"
        )


def layer_norm(config: ModelConfig, width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Ba et al., arXiv 1607.06450."""
    return nnx.LayerNorm(
        width,
        epsilon=config.norm_eps,
        scale_metadata={"axes": ("norm",)},
        bias_metadata={"axes": ("norm",)},
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.dtype(config.param_dtype),
        rngs=rngs,
    )
