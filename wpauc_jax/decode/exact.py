"""The exact distribution over the catalogue: every item's log-probability by one pass over the trie.

A node is run once for each user, whatever number of items lies below it, and only nodes with children need the model:
the prompt is shared by all, an item's last token by none. Depth by depth, a node's keys and values are kept for its
children, and a depth is done in blocks of nodes, so that memory grows with the block and not with the catalogue.
"""

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.decode.search import expand
from wpauc_jax.models import Params, Policy, PromptCache, Prompts, SuffixCache


def score_catalogue(
    policy: Policy,
    params: Params,
    prompts: Prompts,
    trie: Trie,
    *,
    scoring: str = "constrained",
    block_size: int = 256,
) -> jax.Array:
    """Log-probability float32[B, I] of every item for every user; under `constrained` each row sums to 1 in exp.

    `block_size` nodes of a user are run at a time.
    """
    cache = policy.prefill(params, prompts)
    return score_all(policy, params, cache, trie, scoring=scoring, block_size=block_size)


def score_all(
    policy: Policy,
    params: Params,
    cache: PromptCache,
    trie: Trie,
    *,
    scoring: str = "constrained",
    block_size: int = 256,
) -> jax.Array:
    """`score_catalogue` from prefilled prompts."""
    B = cache.lengths.shape[0]
    root = jnp.broadcast_to(trie.inner[0], (B, 1))
    scores, past = jnp.zeros((B, trie.num_items)), None
    for t, nodes in enumerate(trie.inner):
        if t == 0:
            _, logps = expand(policy, params, cache.hidden[:, None], root, trie, 0, scoring)
        else:
            keep = t + 1 < trie.depth
            logps, past = _run_depth(policy, params, cache, trie, t, past, scoring, block_size, keep=keep)
        node, parent = trie.paths[:, t], trie.paths[:, t - 1] if t else jnp.zeros_like(trie.paths[:, 0])
        place = jnp.searchsorted(nodes, parent) * logps.shape[-1] + node - trie.first_child[parent]
        step = jnp.take(logps.reshape(B, -1), place, axis=1, mode="clip")
        scores += jnp.where(node != trie.dead, step, 0.0)
    return scores


def _run_depth(
    policy: Policy,
    params: Params,
    cache: PromptCache,
    trie: Trie,
    t: int,
    past: SuffixCache | None,
    scoring: str,
    block_size: int,
    *,
    keep: bool,
) -> tuple[jax.Array, SuffixCache | None]:
    """Log-probabilities [B, M, K] of the children of depth t's M inner nodes, and with `keep` those nodes' suffixes."""
    nodes, B = trie.inner[t], cache.lengths.shape[0]
    parent = jnp.searchsorted(trie.first_child[trie.inner[t - 1] + 1], nodes, side="right")
    width = min(block_size, nodes.shape[0])
    blocks = -(-nodes.shape[0] // width)
    inside = jnp.minimum(jnp.arange(blocks * width), nodes.shape[0] - 1).reshape(blocks, width)

    def run(block: jax.Array):
        node = jnp.broadcast_to(nodes[block], (B, width))
        before = jax.tree.map(lambda side: side[:, :, parent[block]], past)
        hidden, suffix = policy.extend(params, cache, trie.token[node][..., None], before)
        _, logps = expand(policy, params, hidden[:, :, 0], node, trie, t, scoring)
        return logps, suffix if keep else None

    logps, suffix = jax.lax.map(run, inside)
    return _joined(logps, 0), jax.tree.map(lambda side: _joined(side, 1), suffix)


def _joined(blocks: jax.Array, batch_axis: int) -> jax.Array:
    """[blocks, ..., B, W, ...] -> [..., B, blocks * W, ...], B at `batch_axis` of the result."""
    moved = jnp.moveaxis(blocks, 0, batch_axis + 1)
    shape = moved.shape
    return moved.reshape(
        *shape[: batch_axis + 1], shape[batch_axis + 1] * shape[batch_axis + 2], *shape[batch_axis + 3 :]
    )
