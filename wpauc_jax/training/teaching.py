"""Which rows teach: metrics of a step that cost no pass over the model. See `objectives.shares`."""

import jax
import jax.numpy as jnp

from wpauc_jax.decode import Prefilled, Ranker
from wpauc_jax.models import Params
from wpauc_jax.objectives import descending_ranks, gradient_sizes, shares_by_rank
from wpauc_jax.training.state import Metrics


def exact_ranks(ranker: Ranker, params: Params, asked: Prefilled, target: jax.Array) -> jax.Array | None:
    """The places int32[B] of targets among all items, 0-based, where one product scores all; otherwise None."""
    if ranker.trie.depth > 1:
        return None
    scores = ranker.score_all(*jax.lax.stop_gradient((params, asked)))
    own = jnp.take_along_axis(scores, target[:, None], axis=1)
    return (scores > own).sum(axis=1, dtype=jnp.int32)


def listed_ranks(scores: jax.Array, items: jax.Array, target: jax.Array) -> jax.Array:
    """The places int32[B] of targets in lists of items int32[B, G] with scores [B, G]; -1 where a list lacks it."""
    places = descending_ranks(scores, where=items >= 0)
    hit = items == target[:, None]
    return jnp.where(hit.any(axis=1), jnp.where(hit, places, 0).sum(axis=1), -1)


def teaching_metrics(ranks: jax.Array, pushes: jax.Array, logps: jax.Array, valid: jax.Array) -> Metrics:
    """How the gradient, and the rows, are divided by the ranks int32[B] of targets.

    `pushes` [B, M] are what is proportional to the slopes with respect to the log-probabilities [B, M] of M items.
    """
    sizes = gradient_sizes(pushes, jax.lax.stop_gradient(logps), where=valid)
    return {
        "gradient_by_rank": shares_by_rank(sizes, ranks),
        "rows_by_rank": shares_by_rank(jnp.ones_like(sizes), ranks),
    }
