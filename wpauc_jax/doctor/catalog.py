"""Checks of the catalog and its trie. Can every item be reached by the tokens that it is taught by, and it alone?"""

import itertools
import pathlib

import numpy as np

from wpauc_jax.catalog.items import Catalog
from wpauc_jax.catalog.trie import ROOT, Trie
from wpauc_jax.config import CatalogConfig
from wpauc_jax.data.dataset import Dataset, positions
from wpauc_jax.doctor.findings import Finding, items, note, problem, share


def catalog_fits(dataset: Dataset, catalog: Catalog) -> list[Finding]:
    """The catalog has a sequence for each item of the data."""
    if catalog.num_items == dataset.num_items:
        return []
    text = f"the catalog has {catalog.num_items:,} items, the data {dataset.num_items:,}"
    return [problem(f"{text}; delete catalog.npz and catalog.json and run again")]


def tokens_are_sound(dataset: Dataset, catalog: Catalog) -> list[Finding]:
    """Sequences are not empty, have no gap, hold no special token, and stay inside the vocabulary."""
    inside = np.arange(catalog.tokens.shape[1]) < catalog.lengths[:, None]
    own_vocabulary = catalog.end < 0  # in a tokenizer's, items may take any token
    found = []
    for text, wrong in (
        ("have no token", catalog.lengths < 1),
        ("have a gap in their tokens", (inside & (catalog.tokens < 0)).any(1)),
        ("go on behind their end", (~inside & (catalog.tokens >= 0)).any(1)),
        (
            "hold a token set aside for prompts",
            (inside & own_vocabulary & (catalog.tokens < catalog.first_code)).any(1),
        ),
        ("do not end in the token that ends an item, or hold it before", _ends_wrong(catalog, inside)),
        ("hold a token beyond the vocabulary", (inside & (catalog.tokens >= catalog.vocab_size)).any(1)),
    ):
        if wrong.any():
            found.append(problem(f"items that {text}: {int(wrong.sum()):,}", items(dataset, np.flatnonzero(wrong))))
    return found


def _ends_wrong(catalog: Catalog, inside: np.ndarray) -> np.ndarray:
    """bool[I]; where items have no ending token, none is wrong."""
    if catalog.end < 0:
        return np.zeros(catalog.num_items, bool)
    ends = inside & (catalog.tokens == catalog.end)
    is_last = np.arange(catalog.tokens.shape[1]) == catalog.lengths[:, None] - 1
    return (ends != is_last).any(1)


def sequences_are_unique(dataset: Dataset, catalog: Catalog) -> list[Finding]:
    """No item's sequence equals or begins another's: a hit is a hit of one item."""
    sequences = [tuple(sequence) for sequence in catalog.sequences()]
    order = sorted(range(len(sequences)), key=sequences.__getitem__)  # a beginning comes just before what it begins
    found = []
    for verb, clash in (("equals", lambda a, b: a == b), ("begins", lambda a, b: len(a) < len(b) and b[: len(a)] == a)):
        pairs = [(a, b) for a, b in itertools.pairwise(order) if clash(sequences[a], sequences[b])]
        if pairs:
            text = f"items whose sequence {verb} another's: {len(pairs):,}; one such pair is"
            found.append(problem(text, items(dataset, pairs[0])))
    return found


def ids_are_of_these_items(dataset: Dataset, config: CatalogConfig) -> list[Finding]:
    """The titles that MiniOneRec's info file gives beside its semantic ids are those of the data's items.

    Two files may number the same items differently; the ids of one are then no ids for the other. Other files of
    semantic ids have no titles to compare.
    """
    path = pathlib.Path(config.path)
    if config.ids != "file" or not path.name.removesuffix(".gz").endswith(".txt"):
        return []
    if not path.is_file():
        return [note(f"{path}, from which the semantic ids came, is gone: its titles were not compared")]
    from wpauc_jax.data.sources.minionerec import parse_info  # and with it Polars

    info = parse_info(path.read_bytes(), str(path))
    told = dict(zip(info["item"], info["title"], strict=True))
    titled = [number for number, title in enumerate(dataset.titles) if title and told.get(dataset.item_ids[number])]
    other = [number for number in titled if told[dataset.item_ids[number]].strip() != dataset.titles[number].strip()]
    if not other:
        return []
    first = dataset.item_ids[other[0]]
    return [
        problem(
            f"{share(len(other), len(titled))} items have another title in {path}, whose semantic ids they were "
            f"given; it calls item {first!r} {told[first]!r:.70}",
            items(dataset, other),
        )
    ]


def items_are_reachable(dataset: Dataset, catalog: Catalog, trie: Trie) -> list[Finding]:
    """From the root, the tokens that SFT teaches lead to each item's own leaf, and to no other item on the way.

    The walk follows the trie's edges by their tokens; the trie may stop where the rest of a sequence is forced.
    """
    token, first_child, item = (np.asarray(column) for column in (trie.token, trie.first_child, trie.item))
    node = np.full(catalog.num_items, ROOT)
    for step in range(catalog.tokens.shape[1]):
        walking = (item[node] < 0) & (node != trie.dead) & (step < catalog.lengths)
        node[walking] = _child(node[walking], catalog.tokens[walking, step], token, first_child, trie.dead)
    lost = np.flatnonzero(item[node] != np.arange(catalog.num_items))
    if not len(lost):
        return []
    test = dataset.item[positions(dataset, "test")]
    return [
        problem(
            f"items that their tokens do not lead to in the trie: {len(lost):,}; they are the targets of "
            f"{share(int(np.isin(test, lost).sum()), len(test))} test samples",
            items(dataset, lost),
        )
    ]


def _child(node: np.ndarray, wanted: np.ndarray, token: np.ndarray, first_child: np.ndarray, dead: int) -> np.ndarray:
    """The child of each node on the edge `wanted`, or the dead node. Children are consecutive, their tokens ascend."""
    low, end = first_child[node].copy(), first_child[node + 1]
    high = end.copy()
    while (low < high).any():
        middle = (low + high) // 2
        below = (low < high) & (token[np.minimum(middle, len(token) - 1)] < wanted)
        high = np.where((low < high) & ~below, middle, high)
        low = np.where(below, middle + 1, low)
    found = (low < end) & (token[np.minimum(low, len(token) - 1)] == wanted)
    return np.where(found, low, dead)


def code_labels(catalog: Catalog) -> np.ndarray | None:
    """int[I]: which items share their semantic id before the disambiguating code; None where items are titles."""
    if not catalog.level_sizes:
        return None
    codes = catalog.code_places()
    codes = np.where(codes < sum(catalog.level_sizes), codes, -1)
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def title_labels(dataset: Dataset) -> np.ndarray | None:
    """int[I]: which items share their title; an item without one shares it with none. None where none has a title."""
    if not any(dataset.titles):
        return None
    names = [title or f"\0{number}" for number, title in enumerate(dataset.titles)]
    return np.unique(names, return_inverse=True)[1]


def shared_labels(dataset: Dataset, labels: np.ndarray, what: str) -> list[Finding]:
    """Items that are one under `labels` (their `what`), and what that does to a metric that is scored by it."""
    sizes = np.bincount(labels)
    grouped = sizes[labels] > 1
    if not grouped.any():
        return []
    shared, groups = int(grouped.sum()), int((sizes > 1).sum())
    found = [
        note(
            f"items that share their {what} with another: {shared:,}, of which {shared - groups:,} beyond the first of "
            f"their group; groups: {groups:,}, the largest of {sizes.max():,} items",
            items(dataset, np.flatnonzero(labels == sizes.argmax())),
        )
    ]
    test = dataset.item[positions(dataset, "test")]
    if len(test) and grouped[test].any():
        found.append(_effect(dataset, labels, test, grouped, what))
    return found


def _effect(dataset: Dataset, labels: np.ndarray, test: np.ndarray, grouped: np.ndarray, what: str) -> Finding:
    by_label = np.bincount(labels[test][grouped[test]], minlength=labels.max() + 1)
    top = int(by_label.argmax())
    members = np.flatnonzero(labels == top)
    by_item = np.bincount(test, minlength=dataset.num_items)[members]
    return note(
        f"{share(int(grouped[test].sum()), len(test))} test targets are such items. Always naming the most frequent "
        f"{what} among them has Recall@1 {by_label[top] / len(test):.4f} if scored by {what}, "
        f"{by_item.max() / len(test):.4f} if scored by item id",
        items(dataset, members[np.argsort(-by_item, kind="stable")]),
    )
