"""Gradient accumulation: the gradient of a whole batch, from its parts one after another.

Only one part's activations are in memory at a time. A mean of the parts' means is wrong where they count different
numbers of rows or tokens. So sums, counts and the gradients of sums are added up, and divided once at the end.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch, SftBatch
from wpauc_jax.models import Params
from wpauc_jax.objectives import Total
from wpauc_jax.runtime.sharding import constrain, constrain_state
from wpauc_jax.training.state import Metrics

Totals = tuple[Total, ...]
# (trained parameters, a part of the batch, its number) -> the terms of its loss, and metrics, means over its rows.
Terms = Callable[[Params, Any, jax.Array], tuple[Totals, Metrics]]


def weighted_mean(totals: Sequence[Total], weights: Sequence[float]) -> jax.Array:
    """The loss: each term's mean times its weight."""
    first, *rest = (weight * one.mean() for one, weight in zip(totals, weights, strict=True))
    return sum(rest, first)


def gradient_in_parts(
    terms: Terms, trained: Params, batch: RlBatch | SftBatch, *, parts: int, weights: Sequence[float]
) -> tuple[Totals, Params, Metrics]:
    """Terms, gradient and metrics of a batch whose B rows are taken in `parts` parts of B / parts rows.

    The terms are those of the whole batch, and the gradient is that of their `weighted_mean`. Counts must not depend on
    the parameters. Each metric is the mean over the parts. Part m holds the rows m, m + parts, ..., so that each device
    keeps its rows. A part runs backwards once for each term.
    """

    def add(carry: tuple[list[Params], Totals], part: tuple[jax.Array, Any]) -> tuple[Any, Metrics]:
        number, rows = part
        rows = jax.tree.map(lambda leaf: constrain(leaf, "batch"), rows)

        def sums(trained: Params) -> tuple[list[jax.Array], tuple[Totals, Metrics]]:
            totals, metrics = terms(trained, rows, number)
            return [one.sum for one in totals], (totals, metrics)

        each, pull, (totals, metrics) = jax.vjp(sums, trained, has_aux=True)
        of_terms = []
        for place, so_far in enumerate(carry[0]):
            (grads,) = pull([jnp.asarray(other == place, one.dtype) for other, one in enumerate(each)])
            of_terms.append(constrain_state(jax.tree.map(jnp.add, so_far, grads)))
        return (of_terms, jax.tree.map(jnp.add, carry[1], totals)), metrics

    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)), trained)
    nothing = tuple(Total(jnp.zeros(()), jnp.zeros(())) for _ in weights)
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1), batch)
    start = ([constrain_state(empty) for _ in weights], nothing)
    (of_terms, totals), metrics = jax.lax.scan(add, start, (jnp.arange(parts), rows))

    def divided(leaf: jax.Array, *sums: jax.Array) -> jax.Array:
        shares = [weight / jnp.maximum(one.count, 1.0) for one, weight in zip(totals, weights, strict=True)]
        first, *rest = (share * one for share, one in zip(shares, sums, strict=True))
        return sum(rest, first).astype(leaf.dtype)

    grads = jax.tree.map(divided, trained, *of_terms)
    return totals, grads, jax.tree.map(lambda values: values.mean(axis=0), metrics)
