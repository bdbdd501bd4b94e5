"""Makes a vocabulary larger: the input table gets rows for new tokens, and so does an output head of its own."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.models.policy import Params, Policy, make_policy
from wpauc_jax.runtime.parameters import Parameters, Path


def grow_vocabulary(
    policy: Policy, params: Params, first: int, described: Sequence[Sequence[int]]
) -> tuple[Policy, Params]:
    """Makes new tokens `first`, `first` + 1, ..., one for each entry of `described`.

    A new token's rows are the mean of the rows of the tokens that describe it, such as those of the titles of its
    items; of all rows before `first` where its entry is empty. Tables grow only where they end too early: checkpoints
    often have spare rows behind the tokenizer's last token.

    Raises ValueError where `first` lies outside the table, or a description holds a token at or behind it.
    """
    old, count = policy.config.vocab_size, len(described)
    if not 0 < first <= old:
        raise ValueError(f"new tokens cannot start at {first}: the vocabulary has {old} rows")
    flat = np.asarray([token for tokens in described for token in tokens], np.int32)
    if flat.size and (flat.min() < 0 or flat.max() >= first):
        raise ValueError(f"new tokens are described by tokens below {first}, not by {flat.min()} to {flat.max()}")
    owner = np.repeat(np.arange(count), [len(tokens) for tokens in described])

    @jax.jit
    def grown(table_VD: jax.Array) -> jax.Array:
        known = table_VD[:first].astype(jnp.float32)
        sums = jax.ops.segment_sum(known[flat], owner, count)
        counts = jnp.bincount(owner, length=count)[:, None]
        rows = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), known.mean(0, keepdims=True))
        table_VD = jnp.pad(table_VD, ((0, max(first + count - old, 0)), (0, 0)))
        return jax.lax.dynamic_update_slice_in_dim(table_VD, rows.astype(table_VD.dtype), first, 0)

    new_policy, _ = make_policy(dataclasses.replace(policy.config, vocab_size=max(old, first + count)))
    more: dict[str, Any] = dict(params)
    for path in tables(policy):
        more = _changed(more, path, grown)
    return new_policy, Parameters(more, new_policy.axes)


def tables(policy: Policy) -> list[Path]:
    """The places of the parameters that have a row for each token: input table, output head.

    Raises ValueError for one whose rows are not its first axis.
    """
    found = [path for path, axes in policy.axes.items() if "vocab" in axes]
    for path in found:
        if policy.axes[path][0] != "vocab":
            raise ValueError(f"the axes of {'.'.join(path)} are {policy.axes[path]}: 'vocab' must be the first")
    return found


def _changed(tree: dict[str, Any], path: Path, change: Callable[[jax.Array], jax.Array]) -> dict[str, Any]:
    """The nested dict with another array at `path`; nothing else is copied."""
    name, rest = path[0], path[1:]
    return {**tree, name: _changed(tree[name], rest, change) if rest else change(tree[name])}
