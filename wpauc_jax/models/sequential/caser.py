"""Caser: convolutions over a user's last items, along time and along the embedding.

Source: Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", arXiv
1809.07426. Its embedding of the user is left out, so that a model serves users whom training has not seen.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from wpauc_jax.config import ModelConfig
from wpauc_jax.models.dropout import Dropout, dropped
from wpauc_jax.models.family import linear
from wpauc_jax.models.sequential.encoder import SequenceEncoder


class Caser(SequenceEncoder):
    """Filters of heights 1 to `window` with their maximum over time, and vertical ones; then a dense layer."""

    uses: ClassVar[frozenset[str]] = frozenset({"window", "filters", "vertical_filters"})

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        heights = range(1, config.window + 1)
        self.horizontal: Any = nnx.Dict(
            {
                str(height): linear(config, height * config.width, config.filters, ("embed", "ffn"), rngs)
                for height in heights
            }
        )
        self.vertical = linear(config, config.window, config.vertical_filters, ("length", "ffn"), rngs)
        features = config.window * config.filters + config.vertical_filters * config.width
        self.out = linear(config, features, config.width, ("ffn", "embed"), rngs)

    def encode(self, x: jax.Array, segments: jax.Array, dropout: Dropout | None) -> jax.Array:
        """[B, T, D] -> [B, T, D]."""
        last = _last(x, segments, self.config.window)
        *shape, window, width = last.shape
        found = []
        for height in range(1, window + 1):
            steps = [last[..., start : start + height, :] for start in range(window - height + 1)]
            stacked = jnp.stack(steps, axis=-3).reshape(*shape, len(steps), height * width)
            found.append(jax.nn.relu(self.horizontal[str(height)](stacked)).max(-2))
        found.append(self.vertical(last.swapaxes(-1, -2)).reshape(*shape, -1))
        return jax.nn.relu(self.out(dropped(jnp.concatenate(found, axis=-1), dropout, 0)))


def _last(x: jax.Array, segments: jax.Array, window: int) -> jax.Array:
    """[B, T, D] -> [B, T, window, D]: each place's last items, the latest last, 0 before the segment's begin."""
    views = []
    for back in reversed(range(window)):
        padding = ((0, 0), (back, 0))
        earlier = jnp.pad(x, (*padding, (0, 0)))[:, : x.shape[1]]
        same = jnp.pad(segments, padding, constant_values=-1)[:, : x.shape[1]] == segments
        views.append(jnp.where(same[..., None], earlier, jnp.zeros_like(earlier)))
    return jnp.stack(views, axis=2)
