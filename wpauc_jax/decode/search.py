"""From prompts to items in one call, for callers who have a policy and a trie. See `Ranker` for what each call does.

A `PromptBatch` can say which items may not answer; to `Prompts` every item may.
"""

import jax

from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode.ranker import Candidates, Ranker
from wpauc_jax.models import Params, Policy, Prompts


def constrained_beam_search(
    policy: Policy,
    params: Params,
    prompts: Prompts | PromptBatch,
    trie: Trie,
    *,
    num_beams: int,
    scoring: str = "constrained",
) -> Candidates:
    """The `num_beams` best items of each prompt; see `Ranker.search`."""
    ranker = Ranker(policy, trie, scoring)
    return ranker.search(params, ranker.prefill(params, prompts), num_beams=num_beams)


def sample_without_replacement(
    policy: Policy,
    params: Params,
    prompts: Prompts | PromptBatch,
    trie: Trie,
    key: jax.Array,
    *,
    num_samples: int,
    scoring: str = "constrained",
) -> Candidates:
    """Distinct items drawn from the policy by stochastic beam search; see `Ranker.search`."""
    ranker = Ranker(policy, trie, scoring)
    return ranker.search(params, ranker.prefill(params, prompts), num_beams=num_samples, key=key)


def score_items(
    policy: Policy,
    params: Params,
    prompts: Prompts | PromptBatch,
    trie: Trie,
    items: jax.Array,
    *,
    scoring: str = "constrained",
) -> jax.Array:
    """Per-token log-probabilities float32[B, G, C] of items int32[B, G]; see `Ranker.score`."""
    ranker = Ranker(policy, trie, scoring)
    return ranker.score(params, ranker.prefill(params, prompts), items)


def score_catalogue(
    policy: Policy,
    params: Params,
    prompts: Prompts | PromptBatch,
    trie: Trie,
    *,
    scoring: str = "constrained",
    block_size: int = 256,
) -> jax.Array:
    """Log-probability float32[B, I] of every item for every prompt; see `Ranker.score_all`."""
    ranker = Ranker(policy, trie, scoring)
    return ranker.score_all(params, ranker.prefill(params, prompts), block_size=block_size)
