"""A guide beside the search (D3): scores are those of the mixture, by brute force over the catalog."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.decode.test_excluded import EXCLUDED, ITEMS
from tests.runtime.test_sharding import mesh_of
from tests.worlds import TINY, brute_force_logps, some_prompts, tiny_policy, tiny_ranker
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.decode import Guide, Ranker
from wpauc_jax.runtime import sharding

SHARE = 0.3
OTHER = dataclasses.replace(TINY, vocab_size=len(ITEMS) + 3)


def guide(share=SHARE):
    policy, params = tiny_policy(OTHER, 7)
    tokens = np.random.default_rng(8).permutation(len(ITEMS)) + 3  # items are in no order of tokens
    return Guide(Ranker(policy, build_trie([(int(token),) for token in tokens])), params, share)


def batch(excluded):
    prompts, beside = some_prompts(), some_prompts(seed=5)
    left_out = None if excluded is None else jnp.asarray(excluded, jnp.int32)
    other = PromptBatch(beside.tokens, beside.lengths, left_out)
    return PromptBatch(prompts.tokens, prompts.lengths, left_out, guide=other)


@jax.jit
def run(ranker, params, batch, items):
    one = ranker.prefill(params, batch)
    found = ranker.search(params, one, num_beams=len(ITEMS))
    return found, ranker.score(params, one, items).sum(-1), ranker.score_all(params, one)


def mixture(scoring, share, row, rest):
    """float64[len(rest)]: what the two models think of the items that may answer, each by itself."""
    policy, params = tiny_policy()
    prompts = jax.tree.map(lambda rows: rows[row : row + 1], some_prompts())
    own = brute_force_logps(policy, params, prompts, [ITEMS[item] for item in rest], scoring)[0]
    other = guide()
    beside = jax.tree.map(lambda rows: rows[row : row + 1], some_prompts(seed=5))
    hidden = other.ranker.policy.prefill(other.params, beside).hidden
    logits = np.asarray(other.ranker.policy.logits(other.params, hidden, None), np.float64)[0]
    tokens = np.asarray(other.ranker.trie.token)[np.asarray(other.ranker.trie.paths)[rest, 0]]
    seq = logits[tokens] - np.logaddexp.reduce(logits[tokens])
    return (1 - share) * own + share * seq


@pytest.mark.parametrize("scoring", ["constrained", "vocab"])
@pytest.mark.parametrize("left_out", [None, EXCLUDED], ids=["all", "some"])
def test_search_and_scores_are_of_the_mixture(scoring, left_out):
    ranker = dataclasses.replace(tiny_ranker(ITEMS, scoring), guide=guide())
    items = jnp.array([[1, 2, 4], [2, 8, 3], [32, 4, 9]])
    found, scores, everything = run(ranker, tiny_policy()[1], batch(left_out), items)
    for row in range(3):
        rest = [item for item in range(len(ITEMS)) if left_out is None or item not in left_out[row]]
        truth = mixture(scoring, SHARE, row, rest)
        np.testing.assert_allclose(everything[row, np.array(rest)], truth, atol=1e-5)
        assert np.isneginf(np.delete(everything[row], rest)).all()
        assert np.asarray(found.items[row])[: len(rest)].tolist() == [rest[i] for i in np.argsort(-truth)]
        np.testing.assert_allclose(found.scores[row, : len(rest)], np.sort(truth)[::-1], atol=1e-5)
        for item, score in zip(np.asarray(items[row]), np.asarray(scores[row]), strict=True):
            if item in rest:
                np.testing.assert_allclose(score, truth[rest.index(item)], atol=1e-5)
    assert np.isfinite(np.asarray(found.scores)[np.asarray(found.valid)]).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_is_one_model_alone(share):
    items = jnp.zeros((3, 1), jnp.int32)
    mixed = run(dataclasses.replace(tiny_ranker(ITEMS), guide=guide(share)), tiny_policy()[1], batch(None), items)
    alone = tiny_ranker(ITEMS) if share == 0 else guide().ranker
    params = tiny_policy()[1] if share == 0 else guide().params
    asked = batch(None) if share == 0 else batch(None).guide
    np.testing.assert_allclose(mixed[2], run(alone, params, asked, items)[2], atol=1e-5)


def test_sums_over_the_items_below_a_node():
    """Also where the numbers are far below what float32 has for their exponentials."""
    trie = tiny_ranker(ITEMS).trie
    logs = np.random.default_rng(0).normal(size=(2, len(ITEMS))).astype(np.float32) * 3
    logs[1] -= 300
    logs[0, 4] = -np.inf
    found = np.asarray(trie.log_sums(jnp.asarray(logs)))
    paths = np.asarray(trie.paths)
    for node in range(trie.token.shape[0] - 1):
        below = [item for item in range(len(ITEMS)) if node in paths[item]] if node else list(range(len(ITEMS)))
        sums = np.logaddexp.reduce(logs[:, below].astype(np.float64), axis=1)
        np.testing.assert_allclose(found[:, node], sums, rtol=1e-5)
    assert np.isneginf(found[:, trie.dead]).all()


def test_on_a_mesh_the_lists_are_the_same():
    asked, items = batch(None), jnp.zeros((3, 1), jnp.int32)
    four = jax.tree.map(lambda rows: jnp.concatenate([rows, rows[:1]]), asked)
    ranker, params = dataclasses.replace(tiny_ranker(ITEMS), guide=guide()), tiny_policy()[1]
    alone = run(ranker, params, asked, items)
    with jax.set_mesh(mesh_of(2, 1, 1)):
        placed = sharding.place_whole((ranker, params))
        found = run(*placed, sharding.place_batch(four), jnp.zeros((4, 1), jnp.int32))
    np.testing.assert_array_equal(found[0].items[:3], alone[0].items)
    np.testing.assert_allclose(found[2][:3], alone[2], atol=1e-5)
