"""The ranker: one program for any catalog of a shape; exact scores against brute force, beams and memory's bounds."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import (
    beam_search,
    brute_force_logps,
    score_items,
    some_prompts,
    tiny_policy,
    tiny_ranker,
    trie_for,
    variable_length_items,
)
from wpauc_jax.batches.types import EvalBatch, PromptBatch, RowIds
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.decode import Ranker, score_catalogue
from wpauc_jax.decode.scoring import SCORING
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
    batch = EvalBatch(
        asked, target, np.array([True, True, False]), np.zeros(3, np.int32), RowIds(np.arange(3), np.arange(3))
    )
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


@pytest.mark.parametrize("scoring", SCORING)
def test_a_ranker_computes_what_the_functions_compute(scoring):
    """From one prefill: its methods are theirs, and `expand` at the root is the first step of `score_all`."""
    ranker, (policy, params), prompts = tiny_ranker(ITEMS, scoring), tiny_policy(), some_prompts()
    items = jnp.array([[3, 0, -1], [1, 5, 2], [7, -1, 4]])

    @jax.jit
    def run(ranker, params, prompts):
        asked = ranker.prefill(params, prompts)
        found = ranker.search(params, asked, num_beams=4)
        first = ranker.expand(params, asked.cache.hidden[:, None], jnp.zeros((3, 1), jnp.int32), 0, asked)
        return found, ranker.score(params, asked, items), ranker.score_all(params, asked), first

    found, scores, everything, (child, logps) = run(ranker, params, PromptBatch(prompts.tokens, prompts.lengths))
    plain = beam_search(policy, params, prompts, ranker.trie, num_beams=4, scoring=scoring)
    np.testing.assert_array_equal(found.items, plain.items)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-6)
    wanted = score_items(policy, params, prompts, ranker.trie, items, scoring=scoring)
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    np.testing.assert_allclose(everything, truth(scoring), atol=1e-5)
    for row, item in enumerate(np.asarray(items[:, 1])):
        if item >= 0:  # by the first token of its path
            place = np.asarray(child[row, 0]).tolist().index(int(ranker.trie.paths[item, 0]))
            np.testing.assert_allclose(logps[row, 0, place], scores[row, 1, 0], atol=1e-6)


def test_another_catalog_of_the_same_shape_needs_no_other_program():
    _, params = tiny_policy()

    @jax.jit
    def program(ranker, params, prompts):
        return ranker.search(params, ranker.prefill(params, prompts), num_beams=2)

    one, other = tiny_ranker([(3, 5), (4, 6), (4, 7)]), tiny_ranker([(8, 5), (9, 6), (9, 7)])
    lists = [program(ranker, params, some_prompts()) for ranker in (one, other)]
    assert program._cache_size() == 1
    assert not np.array_equal(lists[0].scores, lists[1].scores)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(one))
    assert jax.tree.structure(one) != jax.tree.structure(dataclasses.replace(one, scoring="vocab"))


def test_a_catalog_of_one_token_an_item():
    items = [(token,) for token in range(3, 20)]
    policy, params = tiny_policy()
    ranker = Ranker(policy, build_trie(items))
    assert ranker.trie.depth == 1
    asked = ranker.prefill(params, some_prompts())
    scores = ranker.score_all(params, asked)
    found = ranker.search(params, asked, num_beams=5)
    np.testing.assert_allclose(jnp.exp(scores).sum(1), 1.0, atol=1e-6)
    tokens = policy.logits(params, asked.cache.hidden, jnp.arange(3, 20))
    np.testing.assert_allclose(scores, jax.nn.log_softmax(tokens), atol=1e-6)
    np.testing.assert_array_equal(found.items, np.argsort(-np.asarray(scores), axis=1)[:, :5])


def test_only_nodes_with_children_are_run():
    trie = trie_for(ITEMS, "constrained")
    parents = {int(node) for path in np.asarray(trie.paths) for node in (0, *path[:-1]) if node != trie.dead}
    children = np.diff(np.asarray(trie.first_child))
    inner = np.concatenate([np.asarray(nodes) for nodes in trie.inner])
    assert set(inner.tolist()) == {node for node in parents if children[node]}
    assert (np.diff(inner) > 0).all()
