"""Exact scores of the whole catalogue against brute force, beams and memory's bounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import beam_search, brute_force_logps, some_prompts, tiny_policy, trie_for, variable_length_items
from wpauc_jax.batches.types import EvalBatch, PromptBatch, RowIds
from wpauc_jax.decode import Ranker, score_catalogue
from wpauc_jax.evaluation.evaluate import evaluate_exact, make_exact_search

ITEMS = variable_length_items()
exact = jax.jit(score_catalogue, static_argnums=0, static_argnames=("scoring", "block_size"))


@functools.cache
def truth(scoring: str) -> np.ndarray:
    return brute_force_logps(*tiny_policy(), some_prompts(), ITEMS, scoring)


@pytest.mark.parametrize("scoring", ["constrained", "vocab"])
@pytest.mark.parametrize("block_size", [1, 4, 5, 256])
def test_every_item_is_scored_as_by_brute_force(scoring, block_size):
    scores = exact(*tiny_policy(), some_prompts(), trie_for(ITEMS, scoring), scoring=scoring, block_size=block_size)
    assert scores.shape == (3, len(ITEMS))
    np.testing.assert_allclose(scores, truth(scoring), atol=1e-5)


def test_the_catalogue_is_a_distribution():
    scores = exact(*tiny_policy(), some_prompts(), trie_for(ITEMS, "constrained"))
    np.testing.assert_allclose(jnp.exp(scores).sum(1), 1.0, atol=1e-6)


def test_a_wide_beam_ranks_alike():
    trie = trie_for(ITEMS, "constrained")
    found = beam_search(*tiny_policy(), some_prompts(), trie, num_beams=len(ITEMS))
    scores = exact(*tiny_policy(), some_prompts(), trie)
    np.testing.assert_array_equal(found.items, np.argsort(-np.asarray(scores), axis=1, kind="stable"))


@pytest.mark.parametrize("items", [[(3,)], [(3,), (4,)], [(3, 4), (5,)]])
def test_tiny_catalogues(items):
    policy, params = tiny_policy()
    scores = exact(policy, params, some_prompts(), trie_for(items, "vocab"), scoring="vocab")
    np.testing.assert_allclose(scores, brute_force_logps(policy, params, some_prompts(), items, "vocab"), atol=1e-5)


def test_ranks_among_all_items_and_what_beams_miss():
    policy, params = tiny_policy()
    trie, prompts, ks = trie_for(ITEMS, "constrained"), some_prompts(), (1, 3, 12)
    beams = np.asarray(beam_search(policy, params, prompts, trie, num_beams=3).items)[:2]
    target = np.array([beams[0, 1], 30, 2], np.int32)
    asked = PromptBatch(np.asarray(prompts.tokens), np.asarray(prompts.lengths))
    batch = EvalBatch(asked, target, np.array([True, True, False]), RowIds(np.arange(3), np.arange(3)))
    search = make_exact_search(Ranker(policy, trie), num_beams=3, ks=ks)
    found = evaluate_exact(search, params, [batch])

    order = np.argsort(-truth("constrained"), axis=1, kind="stable")[:2]
    np.testing.assert_array_equal(found.ranks.rank, (order == target[:2, None]).argmax(1))
    hit = beams == target[:2, None]
    np.testing.assert_array_equal(found.beams.rank, np.where(hit.any(1), hit.argmax(1), -1))
    assert {*hit.any(1)} == {True, False}
    missed = {
        k: np.mean([1 - len({*best[:k]} & {*beam[:k]}) / k for best, beam in zip(order, beams, strict=True)])
        for k in ks
    }
    assert found.missed == pytest.approx(missed)
    assert any(missed.values())
    assert found.metrics()["auc"] == pytest.approx(1 - found.ranks.rank.mean() / (len(ITEMS) - 1))


def test_only_nodes_with_children_are_run():
    trie = trie_for(ITEMS, "constrained")
    parents = {int(node) for path in np.asarray(trie.paths) for node in (0, *path[:-1]) if node != trie.dead}
    children = np.diff(np.asarray(trie.first_child))
    inner = np.concatenate([np.asarray(nodes) for nodes in trie.inner])
    assert set(inner.tolist()) == {node for node in parents if children[node]}
    assert (np.diff(inner) > 0).all()
