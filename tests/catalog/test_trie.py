"""The trie holds exactly the catalogue."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.catalog.trie import ROOT, build_trie

EOS = 1
catalogues = st.lists(
    st.lists(st.integers(2, 6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=30, unique=True
)


def walk(trie, node=ROOT, depth=0, prefix=()):
    """Every (path, item) by following children one by one."""
    first, token, item = (np.asarray(array) for array in (trie.first_child, trie.token, trie.item))
    if item[node] >= 0:
        yield prefix, int(item[node])
    for child in range(first[node], first[node + 1]):
        yield from walk(trie, child, depth + 1, (*prefix, int(token[child])))


@settings(max_examples=60, deadline=None)
@given(catalogues)
def test_untrimmed_trie_spells_every_item_once(items):
    trie = build_trie(items, eos=EOS, trim=False)
    assert sorted(walk(trie)) == sorted(((*item, EOS), i) for i, item in enumerate(items))


@settings(max_examples=60, deadline=None)
@given(catalogues)
def test_trimmed_paths_are_the_shortest_unique_prefixes(items):
    full = [(*item, EOS) for item in items]
    trie = build_trie(items, eos=EOS)
    for path, i in walk(trie):
        assert path == full[i][: len(path)]
        assert sum(other[: len(path)] == path for other in full) == 1
        assert len(path) == 1 or sum(other[: len(path) - 1] == path[:-1] for other in full) > 1
    assert sorted(i for _, i in walk(trie)) == list(range(len(items)))


@settings(max_examples=40, deadline=None)
@given(catalogues, st.randoms())
def test_order_of_items_does_not_matter(items, random):
    order = list(range(len(items)))
    random.shuffle(order)
    trie, shuffled = build_trie(items, eos=EOS), build_trie([items[i] for i in order], eos=EOS)
    np.testing.assert_array_equal(trie.token, shuffled.token)
    np.testing.assert_array_equal(np.asarray(trie.paths)[order], shuffled.paths)


@settings(max_examples=40, deadline=None)
@given(catalogues)
def test_static_facts(items):
    trie = build_trie(items, eos=EOS, trim=False)
    first, token, slot = (np.asarray(array) for array in (trie.first_child, trie.token, trie.slot))
    level, seen = [ROOT], 0
    for t in range(trie.depth):
        seen += sum(first[n] == first[n + 1] for n in level)
        below = [child for n in level for child in range(first[n], first[n + 1])]
        assert trie.branching[t] == max(first[n + 1] - first[n] for n in level)
        assert trie.frontier[t] == len(below) + seen
        np.testing.assert_array_equal(np.asarray(trie.rows[t])[slot[below]], token[below])
        np.testing.assert_array_equal(trie.rows[t], np.unique(token[below]))
        level = below


def test_paths_of_items_and_of_ids_outside_the_catalogue():
    trie = build_trie([(5, 6), (4,), (5, 7, 8)])
    token = np.asarray(trie.token)[np.asarray(trie.path(np.array([0, 1, 2, -1, 3])))]
    np.testing.assert_array_equal(token, [[5, 6], [4, -1], [5, 7], [-1, -1], [-1, -1]])


@pytest.mark.parametrize(
    ("items", "eos", "message"),
    [
        ([], None, "at least one item"),
        ([(1, 2), ()], None, "item 1 has an empty"),
        ([(1, 2), (3, -4)], None, "item 1 has a negative token id -4"),
        ([(1, 2), (3,), (1, 2)], None, "items 0 and 2 have the same"),
        ([(1, 2), (3,), (1,)], None, "item 2's sequence is a prefix of item 0's"),
        ([(1, 2), (3,), (1, 2)], 9, "items 0 and 2 have the same"),
    ],
)
def test_bad_catalogues_are_named(items, eos, message):
    with pytest.raises(ValueError, match=message):
        build_trie(items, eos=eos)
