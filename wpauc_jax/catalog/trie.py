"""The catalog as a trie on the device: which tokens may follow a prefix, and in which item a path ends.

Nodes are numbered by depth, and within a depth by the lexicographic order of their paths. So the children of a node
have consecutive numbers, and one array of offsets is the whole structure. It is a compressed sparse matrix whose column
indices are the row numbers of the next depth. A walk carries numbers of nodes, never strings of tokens.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

ROOT = 0


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["token", "slot", "first_child", "item", "below", "rows", "inner", "paths", "lengths"],
    meta_fields=["branching", "frontier", "first_row"],
)
@dataclasses.dataclass(frozen=True)
class Trie:
    """N nodes over I items of at most C tokens. The last node is dead: no token, no child, no item."""

    token: jax.Array  # int32[N], the vocabulary id on the edge into a node; -1 at the root and the dead node
    slot: jax.Array  # int32[N], that id's place in `rows` of its depth
    first_child: jax.Array  # int32[N + 1], node n's children are first_child[n] .. first_child[n + 1] - 1
    item: jax.Array  # int32[N], the item that ends in a node, or -1
    below: jax.Array  # int32[N], how many items have a node on their path; 0 of the root and the dead node
    rows: tuple[jax.Array, ...]  # C of int32[R_t], the vocabulary ids that occur at depth t, ascending
    inner: tuple[jax.Array, ...]  # C of int32[M_t], the nodes of depth t that have children, ascending
    paths: jax.Array  # int32[I, C], the nodes of an item's path; the dead node past its end
    lengths: jax.Array  # int32[I]
    branching: tuple[int, ...]  # C, the most children that a node of depth t has
    frontier: tuple[int, ...]  # C, how many beams can be distinct after step t: nodes there and items above
    first_row: int  # the first vocabulary id where every item is one token and the ids have no gaps; otherwise -1

    @property
    def num_items(self) -> int:
        """I."""
        return self.paths.shape[0]

    @property
    def depth(self) -> int:
        """C."""
        return self.paths.shape[1]

    @property
    def dead(self) -> int:
        """The number of the dead node."""
        return self.token.shape[0] - 1

    def vocabulary(self, depth: int) -> jax.Array | slice:
        """The vocabulary ids that occur at a depth: a slice where `first_row` tells it."""
        first = self.first_row
        return self.rows[depth] if first < 0 else slice(first, first + self.num_items)

    def children(self, node: jax.Array, depth: int) -> tuple[jax.Array, jax.Array]:
        """Children of nodes of one depth: int32[..., K] numbers and bool[..., K] which of them exist.

        K is the depth's branching. Where none exists the number is the dead node's.
        """
        first, end = self.first_child[node], self.first_child[node + 1]
        child = first[..., None] + jnp.arange(self.branching[depth], dtype=jnp.int32).reshape((1,) * node.ndim + (-1,))
        exists = child < end[..., None]
        return jnp.where(exists, child, self.dead), exists

    def path(self, items: jax.Array) -> jax.Array:
        """The nodes int32[..., C] on the paths of items[...]; all dead for an id outside the catalog."""
        known = (items >= 0) & (items < self.num_items)
        return jnp.where(known[..., None], self.paths[jnp.where(known, items, 0)], self.dead)

    def emptied(self, items: jax.Array) -> tuple[jax.Array, ...]:
        """The nodes that lead nowhere any more once `items` int32[B, E] are left out, -1 for no item.

        C of int32[B, E], filled up with the dead node; a node may stand several times. A node is emptied if all the
        items below it are left out.
        """
        ordered = jnp.sort(items, axis=1)
        again = jnp.pad(ordered[:, 1:] == ordered[:, :-1], ((0, 0), (1, 0)))  # an item that is named twice counts once
        nodes = self.path(jnp.where(again, -1, ordered))
        return tuple(self._emptied(jnp.sort(nodes[..., t], axis=1)) for t in range(self.depth))

    def log_sums(self, logs: jax.Array) -> jax.Array:
        """Of values float32[B, I], one an item: log sum exp over the items below each node, float32[B, N].

        -inf where there is none, and at the dead node.
        """
        nodes = self.paths.reshape(-1)
        values = jnp.repeat(logs, self.depth, axis=1)
        peak = jnp.full((logs.shape[0], self.token.shape[0]), -jnp.inf).at[:, nodes].max(values)
        peak = jnp.where(jnp.isneginf(peak), 0.0, peak)  # what lies below is nothing, so any number will do
        sums = jnp.zeros(peak.shape).at[:, nodes].add(jnp.exp(values - peak[:, nodes]))
        found = peak + jnp.log(sums)
        return found.at[:, ROOT].set(jax.nn.logsumexp(logs, axis=1)).at[:, self.dead].set(-jnp.inf)

    def _emptied(self, nodes: jax.Array) -> jax.Array:
        first, end = (
            jax.vmap(lambda row, side=side: jnp.searchsorted(row, row, side=side))(nodes) for side in ("left", "right")
        )
        return jnp.where(end - first == self.below[nodes], nodes, self.dead)


def build_trie(sequences: Sequence[Sequence[int]], *, eos: int | None = None, trim: bool = True) -> Trie:
    """The trie of a catalog, item i being `sequences[i]`, in any order.

    `eos` is appended to every sequence; it is needed where one sequence is a prefix of another. With `trim`, a path
    stops at its first unique prefix: the tokens behind it are forced, so that under `constrained` scoring their
    log-probability is 0. `vocab` scoring needs them: `trim=False`.

    Raises ValueError for an empty catalog or sequence, a negative token, equal sequences, and, without `eos`, a
    sequence that is a prefix of another; the message names the items.
    """
    tokens, lengths = _padded(sequences, eos)
    order = np.lexsort(tokens.T[::-1])
    tokens, lengths = tokens[order], lengths[order]
    num_items, width = tokens.shape
    # new[i, t]: sorted item i differs from the one before it at or before depth t
    new = np.ones((num_items, width), bool)
    new[1:] = np.logical_or.accumulate(tokens[1:] != tokens[:-1], axis=1)
    shared = np.zeros(num_items + 1, np.int64)  # shared[i]: length of the common prefix of i - 1 and i
    shared[1:-1] = (~new[1:]).sum(axis=1)
    _check_distinct(order, lengths, shared)
    if trim:
        lengths = np.minimum(lengths, np.maximum(shared[:-1], shared[1:]) + 1)

    starts, node_of, rows, frontier = 1, [], [], []
    token, slot = [np.array([-1])], [np.array([0])]  # the root
    for t in range(int(lengths.max())):
        first = new[:, t] & (lengths > t)  # the first item of each node at this depth
        node_of.append(np.where(lengths > t, starts + np.cumsum(first) - 1, -1))
        token.append(tokens[first, t])
        live, index = np.unique(tokens[first, t], return_inverse=True)
        rows.append(live)
        slot.append(index)
        starts += int(first.sum())
        frontier.append(int(first.sum() + (lengths <= t).sum()))
    paths = np.stack(node_of, axis=1)
    dead = starts
    first_child, branching, inner = _offsets(paths, dead)
    below = np.bincount(paths[paths >= 0], minlength=dead + 1)
    item = np.full(dead + 1, -1)
    item[paths[np.arange(num_items), lengths - 1]] = order
    paths[paths < 0] = dead
    by_item = np.empty_like(order)
    by_item[order] = np.arange(num_items)

    def put(array: np.ndarray) -> jax.Array:
        return jnp.asarray(array, jnp.int32)

    return Trie(
        token=put(np.concatenate([*token, [-1]])),
        slot=put(np.concatenate([*slot, [0]])),
        first_child=put(first_child),
        item=put(item),
        below=put(below),
        rows=tuple(put(live) for live in rows),
        inner=tuple(put(nodes) for nodes in inner),
        paths=put(paths[by_item]),
        lengths=put(lengths[by_item]),
        branching=branching,
        frontier=tuple(frontier),
        first_row=int(rows[0][0]) if np.ptp(rows[0]) + 1 == num_items and len(rows) == 1 else -1,
    )


def _padded(sequences: Sequence[Sequence[int]], eos: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Sequences as int64[I, C], -1 past their ends, and their lengths."""
    if not len(sequences):
        raise ValueError("a trie needs at least one item")
    lengths = np.asarray([len(sequence) for sequence in sequences])
    if not lengths.all():
        raise ValueError(f"item {int(np.argmin(lengths))} has an empty token sequence")
    flat = np.concatenate([np.asarray(sequence, np.int64) for sequence in sequences])
    if flat.min() < 0:
        item = int(np.searchsorted(np.cumsum(lengths), np.argmin(flat), side="right"))
        raise ValueError(f"item {item} has a negative token id {int(flat.min())}")
    tokens = np.full((len(lengths), int(lengths.max()) + (eos is not None)), -1)
    tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = flat
    if eos is not None:
        tokens[np.arange(len(lengths)), lengths] = eos
        lengths = lengths + 1
    return tokens, lengths


def _check_distinct(order: np.ndarray, lengths: np.ndarray, shared: np.ndarray) -> None:
    """In sorted order a prefix of any sequence is a prefix of the next one."""
    clash = np.flatnonzero(shared[1:-1] >= lengths[:-1])
    if not len(clash):
        return
    i = int(clash[0])
    first, second = int(order[i]), int(order[i + 1])
    if lengths[i] == lengths[i + 1]:
        raise ValueError(f"items {first} and {second} have the same token sequence; append a disambiguating code")
    raise ValueError(f"item {first}'s sequence is a prefix of item {second}'s; pass eos= so that it can end")


def _offsets(paths: np.ndarray, dead: int) -> tuple[np.ndarray, tuple[int, ...], list[np.ndarray]]:
    """`first_child` of all nodes; each depth's branching and inner nodes; from sorted paths (-1 past the end)."""
    parent = np.full(dead, -1)
    parent[paths[:, 0]] = ROOT
    for t in range(1, paths.shape[1]):
        inside = paths[:, t] >= 0
        parent[paths[inside, t]] = paths[inside, t - 1]
    count = np.bincount(parent[1:], minlength=dead + 1)
    first_child = np.concatenate([[1], 1 + np.cumsum(count)])
    last = [-1, ROOT, *(int(column.max()) for column in paths.T[:-1])]  # the last node of each depth, from depth -1
    depths = [(a + 1, b + 1) for a, b in itertools.pairwise(last)]
    inner = [a + np.flatnonzero(count[a:b]) for a, b in depths]
    return first_child, tuple(int(count[a:b].max()) for a, b in depths), inner
