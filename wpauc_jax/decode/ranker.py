"""The ranker: one value that holds a model's functions, the trie of the items and a scoring rule.

It searches and it scores, both by the same rule. The policy is a distribution over the catalog. At each depth of the
trie only those rows of the output head are multiplied that occur there.

Parameters and what a prompt leaves behind (`PromptCache`) are arguments. So one ranker serves rollout, update,
reference and evaluation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.trie import ROOT, Trie
from wpauc_jax.decode.beams import perturbed, take, top
from wpauc_jax.decode.scoring import rule_of
from wpauc_jax.models import Params, Policy, PromptCache, Prompts, SuffixCache


@functools.partial(jax.tree_util.register_dataclass, data_fields=["items", "logps", "scores", "valid"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Candidates:
    """G distinct items a user, by descending score."""

    items: jax.Array  # int32[B, G], -1 where not valid
    logps: jax.Array  # float32[B, G, C], per token; 0 past an item's end
    scores: jax.Array  # float32[B, G], their sums; -inf where not valid
    valid: jax.Array  # bool[B, G], false where the catalog has fewer than G items


@functools.partial(jax.tree_util.register_dataclass, data_fields=["trie"], meta_fields=["policy", "scoring"])
@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """What ranks items. It is a pytree whose arrays are the trie's, so a program can take it as an argument.

    Raises ValueError for a scoring rule that does not exist.
    """

    policy: Policy
    trie: Trie
    scoring: str = "constrained"

    def __post_init__(self) -> None:
        rule_of(self.scoring)

    def prefill(self, params: Params, prompts: PromptBatch | Prompts) -> PromptCache:
        """Runs each user's prompt once."""
        return self.policy.prefill(params, Prompts(prompts.tokens, prompts.lengths))

    def search(self, params: Params, cache: PromptCache, *, num_beams: int, key: jax.Array | None = None) -> Candidates:
        """The `num_beams` best items by beam search inside the trie, without length penalty.

        Exact where `num_beams` is at least the number of items. Ties go to the smaller path. With a `key`, beams are
        ranked by Gumbel-perturbed scores instead, which draws items without replacement (Kool et al., arXiv
        1903.06059).
        """
        trie, B = self.trie, cache.lengths.shape[0]
        node = jnp.full((B, 1), ROOT, jnp.int32)
        score = priority = jnp.zeros((B, 1))
        logps = jnp.zeros((B, 1, 0))
        hidden, past = cache.hidden[:, None], None
        for t in range(trie.depth):
            child, logp = self.expand(params, hidden, node, t)
            totals = score[..., None] + logp
            priorities = totals if key is None else perturbed(jax.random.fold_in(key, t), totals, priority)
            width = min(num_beams, trie.frontier[t])
            priority, best = top(priorities.reshape(B, -1), width)
            parent = best // child.shape[-1]
            node = take(child.reshape(B, -1), best)
            score = take(totals.reshape(B, -1), best)
            logps = jnp.concatenate([take(logps, parent), take(logp.reshape(B, -1), best)[..., None]], axis=-1)
            if t + 1 < trie.depth:
                past = jax.tree.map(lambda side, parent=parent: jax.vmap(take, in_axes=(0, None))(side, parent), past)
                tokens = jnp.maximum(trie.token[node], 0)[..., None]
                states, past = self.policy.extend(params, cache, tokens, past)
                hidden = states[:, :, 0]
        if key is not None:
            score, order = top(score, score.shape[1])
            node, logps = take(node, order), take(logps, order)
        missing = ((0, 0), (0, num_beams - node.shape[1]))
        return Candidates(
            items=jnp.pad(trie.item[node], missing, constant_values=-1),
            logps=jnp.pad(logps, (*missing, (0, 0))),
            scores=jnp.pad(score, missing, constant_values=-jnp.inf),
            valid=jnp.pad(trie.item[node] >= 0, missing),
        )

    def expand(self, params: Params, hidden: jax.Array, node: jax.Array, depth: int) -> tuple[jax.Array, jax.Array]:
        """The continuations int32[B, W, K] of nodes int32[B, W] of one depth, and their log-probabilities.

        `hidden` [B, W, D] are the states behind the nodes' tokens. A node in which an item ends continues with itself
        at no cost. Where there is no continuation the log-probability is -inf.
        """
        _, logits, has = self._child_logits(params, hidden, node, depth)
        child, exists = self.trie.children(node, depth)
        logp = logits - rule_of(self.scoring).step(self.policy, params, hidden, logits)[..., None]
        stays = (self.trie.item[node] >= 0) & ~has
        here = stays[..., None] & (jnp.arange(child.shape[-1]) == 0).reshape(1, 1, -1)
        return jnp.where(here, node[..., None], child), jnp.where(here, 0.0, jnp.where(exists, logp, -jnp.inf))

    def score(self, params: Params, cache: PromptCache, items: jax.Array) -> jax.Array:
        """Per-token log-probabilities float32[B, G, C] of items int32[B, G]; 0 past an item's end and for an id of -1.

        Teacher-forced: a user's items share the one prompt.
        """
        nodes = self.trie.path(items)
        if self.trie.depth == 1:
            states = jnp.zeros((*items.shape, 0, cache.hidden.shape[-1]), cache.hidden.dtype)
        else:
            states, _ = self.policy.extend(params, cache, jnp.maximum(self.trie.token[nodes[..., :-1]], 0))
        return self.path_logps(params, cache.hidden, states, nodes)

    def path_logps(self, params: Params, first: jax.Array, rest: jax.Array, nodes: jax.Array) -> jax.Array:
        """Log-probabilities float32[B, G, C] of the steps along paths int32[B, G, C].

        `first` [B, D] is the state before the first token, which a group shares; `rest` [B, G, C - 1, D] are the states
        after each token but the last.
        """
        trie = self.trie
        logits = self.policy.logits(params, first, trie.rows[0])
        chosen, legal = [take(logits, trie.slot[nodes[..., 0]])], [logits[:, None]]
        for t in range(1, trie.depth):
            logits, children, _ = self._child_logits(params, rest[:, :, t - 1], nodes[..., t - 1], t)
            chosen.append(jnp.take_along_axis(logits, trie.slot[nodes[..., t]][..., None], axis=-1)[..., 0])
            legal.append(children)
        sums = rule_of(self.scoring).path(self.policy, params, first, rest, legal)
        steps = [logit - total for logit, total in zip(chosen, sums, strict=True)]
        return jnp.where(nodes != trie.dead, jnp.stack(steps, axis=-1), 0.0)

    def score_all(self, params: Params, cache: PromptCache, *, block_size: int = 256) -> jax.Array:
        """Log-probability float32[B, I] of every item for every user; under `constrained` each row sums to 1 in exp.

        One pass over the trie. A node is run once for each user, whatever number of items lies below it, and only nodes
        with children need the model: the prompt is shared by all, an item's last token by none. Depth by depth, a
        node's keys and values are kept for its children. A depth is done in blocks of `block_size` nodes of a user, so
        that memory grows with the block and not with the catalog.
        """
        trie, B = self.trie, cache.lengths.shape[0]
        root = jnp.broadcast_to(trie.inner[0], (B, 1))
        scores, past = jnp.zeros((B, trie.num_items)), None
        for t, nodes in enumerate(trie.inner):
            if t == 0:
                _, logps = self.expand(params, cache.hidden[:, None], root, 0)
            else:
                logps, past = self._run_depth(params, cache, t, past, block_size, keep=t + 1 < trie.depth)
            node, parent = trie.paths[:, t], trie.paths[:, t - 1] if t else jnp.zeros_like(trie.paths[:, 0])
            place = jnp.searchsorted(nodes, parent) * logps.shape[-1] + node - trie.first_child[parent]
            step = jnp.take(logps.reshape(B, -1), place, axis=1, mode="clip")
            scores += jnp.where(node != trie.dead, step, 0.0)
        return scores

    def _child_logits(
        self, params: Params, hidden: jax.Array, node: jax.Array, depth: int
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Logits of the depth's live rows [B, W, R], of each node's children [B, W, K], and which nodes have any.

        A missing child's logit is -inf; a node without children gets zeros, which keeps gradients finite.
        """
        logits = self.policy.logits(params, hidden, self.trie.rows[depth])
        child, exists = self.trie.children(node, depth)
        has = exists.any(-1)
        of_children = jnp.take_along_axis(logits, self.trie.slot[child], axis=-1)
        absent = jnp.where(has, -jnp.inf, 0.0)[..., None]
        return logits, jnp.where(exists, of_children, absent), has

    def _run_depth(
        self, params: Params, cache: PromptCache, t: int, past: SuffixCache | None, block_size: int, *, keep: bool
    ) -> tuple[jax.Array, SuffixCache | None]:
        """Log-probabilities [B, M, K] of the children of depth t's M inner nodes; with `keep` those nodes' suffixes."""
        trie, nodes, B = self.trie, self.trie.inner[t], cache.lengths.shape[0]
        parent = jnp.searchsorted(trie.first_child[trie.inner[t - 1] + 1], nodes, side="right")
        width = min(block_size, nodes.shape[0])
        blocks = -(-nodes.shape[0] // width)
        inside = jnp.minimum(jnp.arange(blocks * width), nodes.shape[0] - 1).reshape(blocks, width)

        def run(block: jax.Array):
            node = jnp.broadcast_to(nodes[block], (B, width))
            before = jax.tree.map(lambda side: side[:, :, parent[block]], past)
            hidden, suffix = self.policy.extend(params, cache, trie.token[node][..., None], before)
            _, logps = self.expand(params, hidden[:, :, 0], node, t)
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
