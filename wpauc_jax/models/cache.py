"""Prompts, and what a decoder keeps of prompts and of the candidates that follow them."""

import dataclasses
import functools
from typing import NamedTuple

import jax


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "lengths", "times"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Prompts:
    """B prompts, padded on the right."""

    tokens: jax.Array  # int32[B, T]
    lengths: jax.Array  # int32[B]
    times: jax.Array | None = None  # int32[B, T], seconds since the first token's; for a family that takes them


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["keys", "values", "lengths", "hidden"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class PromptCache:
    """What a prompt leaves behind for the candidates that follow it."""

    keys: jax.Array  # [L, B, K, T, H]
    values: jax.Array  # [L, B, K, T, H]
    lengths: jax.Array  # int32[B]
    hidden: jax.Array  # [B, D] at the prompt's last token, ready for the output head


class SuffixCache(NamedTuple):
    """Keys and values of the P tokens that each candidate has so far."""

    keys: jax.Array  # [L, B, G, P, K, H]
    values: jax.Array  # [L, B, G, P, K, H]
