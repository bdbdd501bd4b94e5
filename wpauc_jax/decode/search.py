"""From prompts to items: constrained beam search, sampling without replacement, exact scores of given items.

The policy is a distribution over the catalogue. Under `constrained` scoring each step is a softmax over the trie's
children, so the probabilities of all items sum to 1; under `vocab` scoring it is a softmax over the whole vocabulary,
of which only the legal tokens are looked at. Search and scores use the same rule. Only the head's rows that occur at
a depth of the trie are multiplied.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import ROOT, Trie
from wpauc_jax.models import Params, Policy, PromptCache, Prompts
from wpauc_jax.runtime.sharding import by_user


@functools.partial(jax.tree_util.register_dataclass, data_fields=["items", "logps", "scores", "valid"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Candidates:
    """G distinct items a user, by descending score."""

    items: jax.Array  # int32[B, G], -1 where not valid
    logps: jax.Array  # float32[B, G, C], per token; 0 past an item's end
    scores: jax.Array  # float32[B, G], their sums; -inf where not valid
    valid: jax.Array  # bool[B, G], false where the catalogue has fewer than G items


def constrained_beam_search(
    policy: Policy, params: Params, prompts: Prompts, trie: Trie, *, num_beams: int, scoring: str = "constrained"
) -> Candidates:
    """The `num_beams` best items by beam search inside the trie, without length penalty.

    Exact where `num_beams` is at least the number of items. Ties go to the smaller path.
    """
    return search(policy, params, policy.prefill(params, prompts), trie, num_beams=num_beams, scoring=scoring)


def sample_without_replacement(
    policy: Policy,
    params: Params,
    prompts: Prompts,
    trie: Trie,
    key: jax.Array,
    *,
    num_samples: int,
    scoring: str = "constrained",
) -> Candidates:
    """Distinct items drawn from the policy by stochastic beam search (Kool et al., arXiv 1903.06059)."""
    cache = policy.prefill(params, prompts)
    return search(policy, params, cache, trie, num_beams=num_samples, scoring=scoring, key=key)


def score_items(
    policy: Policy, params: Params, prompts: Prompts, trie: Trie, items: jax.Array, *, scoring: str = "constrained"
) -> jax.Array:
    """Per-token log-probabilities float32[B, G, C] of items int32[B, G]; 0 past an item's end and for an id of -1."""
    return score(policy, params, policy.prefill(params, prompts), trie, items, scoring=scoring)


def search(
    policy: Policy,
    params: Params,
    cache: PromptCache,
    trie: Trie,
    *,
    num_beams: int,
    scoring: str = "constrained",
    key: jax.Array | None = None,
) -> Candidates:
    """Beam search from a prefilled prompt; with a `key`, beams are ranked by Gumbel-perturbed scores instead."""
    B = cache.lengths.shape[0]
    node = jnp.full((B, 1), ROOT, jnp.int32)
    score = priority = jnp.zeros((B, 1))
    logps = jnp.zeros((B, 1, 0))
    hidden, past = cache.hidden[:, None], None
    for t in range(trie.depth):
        child, logp = expand(policy, params, hidden, node, trie, t, scoring)
        totals = score[..., None] + logp
        priorities = totals if key is None else _perturb(jax.random.fold_in(key, t), totals, priority)
        width = min(num_beams, trie.frontier[t])
        priority, best = top(priorities.reshape(B, -1), width)
        parent = best // child.shape[-1]
        node = _take(child.reshape(B, -1), best)
        score = _take(totals.reshape(B, -1), best)
        logps = jnp.concatenate([_take(logps, parent), _take(logp.reshape(B, -1), best)[..., None]], axis=-1)
        if t + 1 < trie.depth:
            past = jax.tree.map(lambda side, parent=parent: jax.vmap(_take, in_axes=(0, None))(side, parent), past)
            states, past = policy.extend(params, cache, jnp.maximum(trie.token[node], 0)[..., None], past)
            hidden = states[:, :, 0]
    if key is not None:
        score, order = top(score, score.shape[1])
        node, logps = _take(node, order), _take(logps, order)
    missing = ((0, 0), (0, num_beams - node.shape[1]))
    return Candidates(
        items=jnp.pad(trie.item[node], missing, constant_values=-1),
        logps=jnp.pad(logps, (*missing, (0, 0))),
        scores=jnp.pad(score, missing, constant_values=-jnp.inf),
        valid=jnp.pad(trie.item[node] >= 0, missing),
    )


def top(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """The `count` largest of each user's row, with their places; XLA's own would gather all users first."""
    return by_user(functools.partial(jax.lax.top_k, k=count))(scores)


def score(
    policy: Policy, params: Params, cache: PromptCache, trie: Trie, items: jax.Array, *, scoring: str = "constrained"
) -> jax.Array:
    """Teacher-forced log-probabilities of items int32[B, G] that share one prefilled prompt; see `score_items`."""
    nodes = trie.path(items)
    if trie.depth == 1:
        states = jnp.zeros((*items.shape, 0, cache.hidden.shape[-1]), cache.hidden.dtype)
    else:
        states, _ = policy.extend(params, cache, jnp.maximum(trie.token[nodes[..., :-1]], 0))
    return path_logps(policy, params, cache.hidden, states, trie, nodes, scoring=scoring)


def path_logps(
    policy: Policy,
    params: Params,
    first: jax.Array,
    rest: jax.Array,
    trie: Trie,
    nodes: jax.Array,
    *,
    scoring: str = "constrained",
) -> jax.Array:
    """Log-probabilities float32[B, G, C] of the steps along paths int32[B, G, C].

    `first` [B, D] is the state before the first token, which a group shares; `rest` [B, G, C - 1, D] are the states
    after each token but the last.
    """
    logits = policy.logits(params, first, trie.rows[0])
    chosen, legal = [_take(logits, trie.slot[nodes[..., 0]])], [logits[:, None]]
    for t in range(1, trie.depth):
        logits, children, _ = _child_logits(policy, params, rest[:, :, t - 1], nodes[..., t - 1], trie, t)
        chosen.append(jnp.take_along_axis(logits, trie.slot[nodes[..., t]][..., None], axis=-1)[..., 0])
        legal.append(children)
    if scoring == "vocab":  # all steps at once: the vocabulary's rows are read once, not at every depth
        sums = _path_partitions(policy, params, first, rest)
    else:
        sums = [_normaliser(policy, params, first, logits, scoring) for logits in legal]
    steps = [logit - total for logit, total in zip(chosen, sums, strict=True)]
    return jnp.where(nodes != trie.dead, jnp.stack(steps, axis=-1), 0.0)


def _path_partitions(policy: Policy, params: Params, first: jax.Array, rest: jax.Array) -> list[jax.Array]:
    """The logs of the vocabulary's partition sums at each step of paths: C of float32[B, G], the first [B, 1]."""
    B, G, S, D = rest.shape
    states = jnp.concatenate([first[:, None], rest.reshape(B, G * S, D)], axis=1)
    sums = policy.log_partition(params, states)
    return [sums[:, :1], *jnp.moveaxis(sums[:, 1:].reshape(B, G, S), -1, 0)]


def expand(
    policy: Policy, params: Params, hidden: jax.Array, node: jax.Array, trie: Trie, depth: int, scoring: str
) -> tuple[jax.Array, jax.Array]:
    """The continuations int32[B, W, K] of nodes int32[B, W] of one depth and their log-probabilities; -inf for none.

    `hidden` [B, W, D] are the states behind the nodes' tokens. A node in which an item ends continues with itself at
    no cost.
    """
    _, logits, has = _child_logits(policy, params, hidden, node, trie, depth)
    child, exists = trie.children(node, depth)
    logp = logits - _normaliser(policy, params, hidden, logits, scoring)[..., None]
    stays = (trie.item[node] >= 0) & ~has
    here = stays[..., None] & (jnp.arange(child.shape[-1]) == 0).reshape(1, 1, -1)
    return jnp.where(here, node[..., None], child), jnp.where(here, 0.0, jnp.where(exists, logp, -jnp.inf))


def _child_logits(policy, params, hidden, node, trie: Trie, depth: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of the depth's live rows [B, W, R], of each node's children [B, W, K], and which nodes have any.

    A missing child's logit is -inf; a node without children gets zeros, which keeps gradients finite.
    """
    logits = policy.logits(params, hidden, trie.rows[depth])
    child, exists = trie.children(node, depth)
    has = exists.any(-1)
    of_children = jnp.take_along_axis(logits, trie.slot[child], axis=-1)
    absent = jnp.where(has, -jnp.inf, 0.0)[..., None]
    return logits, jnp.where(exists, of_children, absent), has


def _normaliser(policy, params, hidden: jax.Array, legal_logits: jax.Array, scoring: str) -> jax.Array:
    """The log of a step's partition sum [...], over the legal tokens or over the whole vocabulary."""
    if scoring == "constrained":
        return jax.nn.logsumexp(legal_logits, axis=-1)
    if scoring == "vocab":
        return policy.log_partition(params, hidden)
    raise ValueError(f"scoring={scoring!r} is unknown; choose constrained or vocab")


def _perturb(key: jax.Array, totals: jax.Array, parent: jax.Array) -> jax.Array:
    """Gumbel-perturbed log-probabilities of children whose maximum is their parent's own value (Kool et al., B.3)."""
    noisy = totals + jax.random.gumbel(key, totals.shape)
    peak = noisy.max(-1, keepdims=True)
    gap = jnp.log1p(-jnp.exp(jnp.minimum(noisy - peak, 0.0)))  # -inf at the maximum
    shifted = parent[..., None] - noisy + gap
    bounded = parent[..., None] - jnp.maximum(shifted, 0.0) - jnp.log1p(jnp.exp(-jnp.abs(shifted)))
    return jnp.where(jnp.isneginf(totals), -jnp.inf, bounded)


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    """x[b, index[b, w], ...] for x[B, W, ...] and index int[B, W']."""
    return jax.vmap(lambda row, i: row[i])(x, index)
