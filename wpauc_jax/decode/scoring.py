"""Scoring rules: which tokens share the probability of a step.

Under `constrained` a step is a softmax over the trie's children. Then the probabilities of all items sum to 1. Under
`vocab` it is a softmax over the whole vocabulary, and only the legal tokens are looked at.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import Trie, build_trie
from wpauc_jax.models import Params, Policy


@dataclasses.dataclass(frozen=True)
class ScoringRule:
    """One rule, for single steps and for all the steps of paths at once."""

    # Whether a forced token has probability 1, so that a path may end at its first unique prefix.
    trims: bool
    # (policy, params, states [..., D], logits of the legal tokens [..., K]) -> logs of the partition sums [...]
    step: Callable[[Policy, Params, jax.Array, jax.Array], jax.Array]
    # (policy, params, states [B, D] before the first token, states [B, G, C - 1, D] behind the others, the legal
    # tokens' logits of each step) -> logs of the partition sums, C of [B, G], the first of [B, 1]
    path: Callable[[Policy, Params, jax.Array, jax.Array, list[jax.Array]], list[jax.Array]]


def _among_children(policy: Policy, params: Params, states: jax.Array, legal: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(legal, axis=-1)


def _path_among_children(
    policy: Policy, params: Params, first: jax.Array, rest: jax.Array, legal: list[jax.Array]
) -> list[jax.Array]:
    return [jax.nn.logsumexp(logits, axis=-1) for logits in legal]


def _in_vocabulary(policy: Policy, params: Params, states: jax.Array, legal: jax.Array) -> jax.Array:
    return policy.log_partition(params, states)


def _path_in_vocabulary(
    policy: Policy, params: Params, first: jax.Array, rest: jax.Array, legal: list[jax.Array]
) -> list[jax.Array]:
    """All steps at once: the vocabulary's rows are read once, not at every depth."""
    B, G, S, D = rest.shape
    sums = policy.log_partition(params, jnp.concatenate([first[:, None], rest.reshape(B, G * S, D)], axis=1))
    return [sums[:, :1], *jnp.moveaxis(sums[:, 1:].reshape(B, G, S), -1, 0)]


# By the name of the rule, as `scoring` names it.
SCORING: dict[str, ScoringRule] = {
    "constrained": ScoringRule(trims=True, step=_among_children, path=_path_among_children),
    "vocab": ScoringRule(trims=False, step=_in_vocabulary, path=_path_in_vocabulary),
}


def rule_of(scoring: str) -> ScoringRule:
    """The rule of that name. Raises ValueError where there is none."""
    if scoring not in SCORING:
        raise ValueError(f"scoring={scoring!r} is unknown; choose one of {', '.join(SCORING)}")
    return SCORING[scoring]


def trie_for(sequences: Sequence[Sequence[int]], scoring: str, *, eos: int | None = None) -> Trie:
    """The trie of items for a scoring rule: forced tails are cut where they cost nothing. See `build_trie`."""
    return build_trie(sequences, eos=eos, trim=rule_of(scoring).trims)
