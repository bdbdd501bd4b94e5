"""The ranker: one value that holds a model's functions, the trie of the items and a scoring rule.

It searches and it scores, both by the same rule. The policy is a distribution over the catalog. At each depth of the
trie only those rows of the output head are multiplied that occur there.

Parameters and what a prompt leaves behind (`Prefilled`) are arguments. So one ranker serves rollout, update, reference
and evaluation.

A prompt may say which items cannot answer it, such as those of the user's history. A node below which all items are
left out is closed: no beam enters it, and it has no share in the softmax of its siblings. So the distribution is that
of a trie without these items. It is not a filter behind a wider search.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.trie import ROOT, Trie
from wpauc_jax.decode.beams import perturbed, step_shares, take, top
from wpauc_jax.decode.scoring import rule_of
from wpauc_jax.models import Dropout, Params, Policy, PromptCache, Prompts, SuffixCache

Closed = tuple[jax.Array, ...]  # C of int32[B, E]: the closed nodes of each depth, filled up with the dead node


@functools.partial(jax.tree_util.register_dataclass, data_fields=["items", "logps", "scores", "valid"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Candidates:
    """G distinct items a user, by descending score."""

    items: jax.Array  # int32[B, G], -1 where not valid
    logps: jax.Array  # float32[B, G, C], per token; 0 past an item's end
    scores: jax.Array  # float32[B, G], their sums; -inf where not valid
    valid: jax.Array  # bool[B, G], false where the catalog has fewer than G items


@functools.partial(jax.tree_util.register_dataclass, data_fields=["cache", "closed", "guided"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Prefilled:
    """What B prompts leave behind for the items that may answer them."""

    cache: PromptCache
    closed: Closed | None  # where every item may answer: None
    guided: jax.Array | None = None  # float32[B, N], `Guide.log_shares`; where there is no guide: None


@functools.partial(jax.tree_util.register_dataclass, data_fields=["trie", "guide"], meta_fields=["policy", "scoring"])
@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """What ranks items. It is a pytree whose arrays are the trie's, so a program can take it as an argument.

    Raises ValueError for a scoring rule that does not exist.
    """

    policy: Policy
    trie: Trie
    scoring: str = "constrained"
    guide: Any = None  # a `Guide`, which search and scores listen to, or None; losses of training do not

    def __post_init__(self) -> None:
        rule_of(self.scoring)

    def prefill(self, params: Params, prompts: PromptBatch | Prompts, dropout: Dropout | None = None) -> Prefilled:
        """Runs each user's prompt once. To `Prompts` every item may answer. A guide needs its own prompts beside."""
        excluded, beside = (prompts.excluded, prompts.guide) if isinstance(prompts, PromptBatch) else (None, None)
        if self.guide is not None and beside is None:
            raise ValueError(
                "this ranker has a guide, so its prompts must stand beside the model's (PromptBatch.guide)"
            )
        cache = self.policy.prefill(params, Prompts(prompts.tokens, prompts.lengths, prompts.times), dropout)
        guided = None if self.guide is None else self.guide.log_shares(self.trie, beside)
        return Prefilled(cache, self.closed_by(excluded), guided)

    def closed_by(self, excluded: jax.Array | None) -> Closed | None:
        """The nodes that are closed where items int32[B, E], -1 for none, are left out; None for None."""
        return None if excluded is None else self.trie.emptied(excluded)

    def search(self, params: Params, asked: Prefilled, *, num_beams: int, key: jax.Array | None = None) -> Candidates:
        """The `num_beams` best items by beam search inside the trie, without length penalty.

        Exact where `num_beams` is at least the number of items. Ties go to the smaller path. With a `key`, beams are
        ranked by Gumbel-perturbed scores instead, which draws items without replacement (Kool et al., arXiv
        1903.06059).
        """
        trie, cache, B = self.trie, asked.cache, asked.cache.lengths.shape[0]
        node = jnp.full((B, 1), ROOT, jnp.int32)
        score = priority = jnp.zeros((B, 1))
        logps = jnp.zeros((B, 1, 0))
        hidden, past = cache.hidden[:, None], None
        for t in range(trie.depth):
            child, logp = self.expand(params, hidden, node, t, asked)
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

    def expand(
        self, params: Params, hidden: jax.Array, node: jax.Array, depth: int, asked: Prefilled
    ) -> tuple[jax.Array, jax.Array]:
        """The continuations int32[B, W, K] of nodes int32[B, W] of one depth, and their log-probabilities.

        `hidden` [B, W, D] are the states behind the nodes' tokens. A node in which an item ends continues with itself
        at no cost. Where there is no continuation the log-probability is -inf.
        """
        child, exists = self._children(node, depth, asked.closed)
        _, logits = self._child_logits(params, hidden, child, exists, depth)
        logp = logits - rule_of(self.scoring).step(self.policy, params, hidden, logits)[..., None]
        if asked.guided is not None:
            logp = self.guide.mixed(logp, step_shares(asked.guided, node[..., None], child))
        stays = (self.trie.item[node] >= 0)[..., None] & (jnp.arange(child.shape[-1]) == 0).reshape(1, 1, -1)
        return jnp.where(stays, node[..., None], child), jnp.where(stays, 0.0, jnp.where(exists, logp, -jnp.inf))

    def score(self, params: Params, asked: Prefilled, items: jax.Array) -> jax.Array:
        """Per-token log-probabilities float32[B, G, C] of items int32[B, G]; 0 past an item's end and for an id of -1.

        Teacher-forced: a user's items share the one prompt. An item that is left out has -inf where its path closes.
        """
        nodes, cache = self.trie.path(items), asked.cache
        if self.trie.depth == 1:
            states = jnp.zeros((*items.shape, 0, cache.hidden.shape[-1]), cache.hidden.dtype)
        else:
            states, _ = self.policy.extend(params, cache, jnp.maximum(self.trie.token[nodes[..., :-1]], 0))
        logps = self.path_logps(params, cache.hidden, states, nodes, asked.closed)
        if asked.guided is None:
            return logps
        parents = jnp.concatenate([jnp.full_like(nodes[..., :1], ROOT), nodes[..., :-1]], axis=-1)
        return jnp.where(nodes != self.trie.dead, self.guide.mixed(logps, step_shares(asked.guided, parents, nodes)), 0)

    def path_logps(
        self, params: Params, first: jax.Array, rest: jax.Array, nodes: jax.Array, closed: Closed | None = None
    ) -> jax.Array:
        """Log-probabilities float32[B, G, C] of the steps along paths int32[B, G, C].

        `first` [B, D] is the state before the first token, which a group shares; `rest` [B, G, C - 1, D] are the states
        after each token but the last.
        """
        chosen, legal = self.path_logits(params, first, rest, nodes, closed)
        sums = rule_of(self.scoring).path(self.policy, params, first, rest, legal)
        steps = jnp.stack([logit - total for logit, total in zip(chosen, sums, strict=True)], axis=-1)
        for t, shut in enumerate(closed or ()):
            steps = steps.at[..., t].set(jnp.where(_among(nodes[..., t], shut), -jnp.inf, steps[..., t]))
        return jnp.where(nodes != self.trie.dead, steps, 0.0)

    def path_losses(
        self,
        params: Params,
        first: jax.Array,
        rest: jax.Array,
        nodes: jax.Array,
        closed: Closed | None = None,
        *,
        smoothing: float,
    ) -> jax.Array:
        """Smoothed losses float32[B, G, C] of the steps along paths; arguments as for `path_logps`.

        Of a step whose node has n open continuations the right one is wanted with the share 1 - smoothing, and each of
        the n with smoothing / n more (Szegedy et al., arXiv 1512.00567). No path may be closed.
        """
        chosen, legal = self.path_logits(params, first, rest, nodes, closed)
        sums = rule_of(self.scoring).path(self.policy, params, first, rest, legal)
        steps = []
        for logit, options, total in zip(chosen, legal, sums, strict=True):
            is_open = ~jnp.isneginf(options)
            mean = jnp.where(is_open, options, 0.0).sum(-1) / jnp.maximum(is_open.sum(-1), 1)
            steps.append(total - (1.0 - smoothing) * logit - smoothing * mean)
        return jnp.where(nodes != self.trie.dead, jnp.stack(steps, axis=-1), 0.0)

    def item_logits(self, params: Params, first: jax.Array, closed: Closed | None = None) -> jax.Array:
        """Logits float32[B, I] behind states [B, D] of all items of a catalog of one token an item; -inf where closed.

        Item i stands in column `trie.slot[trie.path(i)[..., 0]]`.
        """
        return self._open_logits(self.policy.logits(params, first, self.trie.vocabulary(0)), closed)

    def path_places(self, nodes: jax.Array) -> list[jax.Array]:
        """Of each step of paths int32[B, G, C], the place int32[B, G] of its node among the continuations."""
        first = self.trie.first_child
        return [
            self.trie.slot[nodes[..., 0]],
            *(nodes[..., t] - first[nodes[..., t - 1]] for t in range(1, self.trie.depth)),
        ]

    def path_logits(
        self, params: Params, first: jax.Array, rest: jax.Array, nodes: jax.Array, closed: Closed | None
    ) -> tuple[list[jax.Array], list[jax.Array]]:
        """Of each step, the logits [B, G] of the paths' tokens and those [B, 1 or G, K] of all continuations."""
        trie = self.trie
        logits = self.policy.logits(params, first, trie.vocabulary(0))
        chosen, legal = [take(logits, trie.slot[nodes[..., 0]])], [self._open_logits(logits, closed)[:, None]]
        for t in range(1, trie.depth):
            child, exists = self._children(nodes[..., t - 1], t, closed)
            logits, children = self._child_logits(params, rest[:, :, t - 1], child, exists, t)
            chosen.append(jnp.take_along_axis(logits, trie.slot[nodes[..., t]][..., None], axis=-1)[..., 0])
            legal.append(children)
        return chosen, legal

    def score_all(self, params: Params, asked: Prefilled, *, block_size: int = 256) -> jax.Array:
        """Log-probability float32[B, I] of every item for every user; under `constrained` each row sums to 1 in exp.

        That of an item which is left out is -inf.

        One pass over the trie. A node is run once for each user, whatever number of items lies below it, and only nodes
        with children need the model: the prompt is shared by all, an item's last token by none. Depth by depth, a
        node's keys and values are kept for its children. A depth is done in blocks of `block_size` nodes of a user, so
        that memory grows with the block and not with the catalog.
        """
        trie, cache, B = self.trie, asked.cache, asked.cache.lengths.shape[0]
        root = jnp.broadcast_to(trie.inner[0], (B, 1))
        scores, past = jnp.zeros((B, trie.num_items)), None
        for t, nodes in enumerate(trie.inner):
            if t == 0:
                _, logps = self.expand(params, cache.hidden[:, None], root, 0, asked)
            else:
                logps, past = self._run_depth(params, asked, t, past, block_size, keep=t + 1 < trie.depth)
            node, parent = trie.paths[:, t], trie.paths[:, t - 1] if t else jnp.zeros_like(trie.paths[:, 0])
            place = jnp.searchsorted(nodes, parent) * logps.shape[-1] + node - trie.first_child[parent]
            step = jnp.take(logps.reshape(B, -1), place, axis=1, mode="clip")
            scores += jnp.where(node != trie.dead, step, 0.0)
        return scores

    def _children(self, node: jax.Array, depth: int, closed: Closed | None) -> tuple[jax.Array, jax.Array]:
        """`Trie.children` of nodes int32[B, W], without those that are closed."""
        child, exists = self.trie.children(node, depth)
        if closed is None:
            return child, exists
        if depth == 0:  # all beams stand at the root, whose children are many
            shut = _marked(closed[0] - self.trie.first_child[ROOT], child.shape[-1])[:, None]
        else:
            shut = _among(child, closed[depth])
        return jnp.where(shut, self.trie.dead, child), exists & ~shut

    def _open_logits(self, logits: jax.Array, closed: Closed | None) -> jax.Array:
        """Logits [B, R] of the first depth's tokens, -inf where they are closed."""
        if closed is None:
            return logits
        return jnp.where(_marked(closed[0] - self.trie.first_child[ROOT], logits.shape[-1]), -jnp.inf, logits)

    def _child_logits(
        self, params: Params, hidden: jax.Array, child: jax.Array, exists: jax.Array, depth: int
    ) -> tuple[jax.Array, jax.Array]:
        """Logits of the depth's live rows [B, W, R], and of nodes' children [B, W, K].

        A missing child's logit is -inf; a node without children gets zeros, which keeps gradients finite.
        """
        logits = self.policy.logits(params, hidden, self.trie.vocabulary(depth))
        of_children = logits if depth == 0 else jnp.take_along_axis(logits, self.trie.slot[child], axis=-1)
        absent = jnp.where(exists.any(-1), -jnp.inf, 0.0)[..., None]
        return logits, jnp.where(exists, of_children, absent)

    def _run_depth(
        self, params: Params, asked: Prefilled, t: int, past: SuffixCache | None, block_size: int, *, keep: bool
    ) -> tuple[jax.Array, SuffixCache | None]:
        """Log-probabilities [B, M, K] of the children of depth t's M inner nodes; with `keep` those nodes' suffixes."""
        trie, nodes, cache, B = self.trie, self.trie.inner[t], asked.cache, asked.cache.lengths.shape[0]
        parent = jnp.searchsorted(trie.first_child[trie.inner[t - 1] + 1], nodes, side="right")
        width = min(block_size, nodes.shape[0])
        blocks = -(-nodes.shape[0] // width)
        inside = jnp.minimum(jnp.arange(blocks * width), nodes.shape[0] - 1).reshape(blocks, width)

        def run(block: jax.Array):
            node = jnp.broadcast_to(nodes[block], (B, width))
            before = jax.tree.map(lambda side: side[:, :, parent[block]], past)
            hidden, suffix = self.policy.extend(params, cache, trie.token[node][..., None], before)
            _, logps = self.expand(params, hidden[:, :, 0], node, t, asked)
            return logps, suffix if keep else None

        logps, suffix = jax.lax.map(run, inside)
        return _joined(logps, 0), jax.tree.map(lambda side: _joined(side, 1), suffix)


def _among(nodes: jax.Array, closed: jax.Array) -> jax.Array:
    """bool[B, ...]: which nodes int32[B, ...] stand in `closed` int32[B, E]."""
    return (nodes[..., None] == closed.reshape(closed.shape[0], *(1,) * (nodes.ndim - 1), -1)).any(-1)


def _marked(places: jax.Array, width: int) -> jax.Array:
    """bool[B, width], true at places int32[B, E]; those at `width` or beyond are none."""
    rows = jnp.arange(places.shape[0])[:, None]
    return jnp.zeros((places.shape[0], width), bool).at[rows, places].set(True, mode="drop")


def _joined(blocks: jax.Array, batch_axis: int) -> jax.Array:
    """[blocks, ..., B, W, ...] -> [..., B, blocks * W, ...], B at `batch_axis` of the result."""
    moved = jnp.moveaxis(blocks, 0, batch_axis + 1)
    shape = moved.shape
    return moved.reshape(
        *shape[: batch_axis + 1], shape[batch_axis + 1] * shape[batch_axis + 2], *shape[batch_axis + 3 :]
    )
