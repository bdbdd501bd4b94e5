"""Items that are left out: the distribution is that of a catalog without them, by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import (
    beam_search,
    brute_force_logps,
    some_prompts,
    tiny_policy,
    tiny_ranker,
    trie_for,
    variable_length_items,
)
from wpauc_jax import decode
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.decode import Ranker, groups

# Variable lengths, and one prefix of which nothing is left in the second row.
ITEMS = [*variable_length_items(30), (9, 3, 3), (9, 3, 4), (9, 4)]
EXCLUDED = np.array(
    [
        [4, 4, 7, 0, -1, -1],  # one named twice
        [30, 31, 32, 5, 1, 30],  # all that begin with 9
        [-1, -1, -1, -1, -1, -1],  # nothing
    ]
)
SCORINGS = ["constrained", "vocab"]


def asked():
    prompts = some_prompts()
    return PromptBatch(prompts.tokens, prompts.lengths, jnp.asarray(EXCLUDED, jnp.int32))


def left(row):
    return [item for item in range(len(ITEMS)) if item not in EXCLUDED[row]]


@jax.jit
def run(ranker, params, batch, items):
    one = ranker.prefill(params, batch)
    return ranker.search(params, one, num_beams=6), ranker.score(params, one, items), ranker.score_all(params, one)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_everything_is_as_without_the_items(scoring):
    """Beams, scores of items and scores of all items are those of a trie that never had the items."""
    policy, params = tiny_policy()
    items = jnp.array([[1, 2, 4], [2, 30, 3], [32, 4, -1]])
    found, scores, everything = run(tiny_ranker(ITEMS, scoring), params, asked(), items)
    for row in range(3):
        rest = left(row)
        prompts = jax.tree.map(lambda rows, row=row: rows[row : row + 1], some_prompts())
        trie = trie_for([ITEMS[item] for item in rest], scoring)
        plain = beam_search(policy, params, prompts, trie, num_beams=6, scoring=scoring)
        np.testing.assert_array_equal(found.items[row], np.array(rest)[np.asarray(plain.items[0])])
        np.testing.assert_allclose(found.scores[row], plain.scores[0], atol=1e-5)

        truth = brute_force_logps(policy, params, prompts, [ITEMS[item] for item in rest], scoring)[0]
        np.testing.assert_allclose(everything[row, np.array(rest)], truth, atol=1e-5)
        assert np.isneginf(np.delete(everything[row], rest)).all()
        for item, score in zip(np.asarray(items[row]), np.asarray(scores[row].sum(-1)), strict=True):
            if item in rest:
                np.testing.assert_allclose(score, truth[rest.index(item)], atol=1e-5)
            else:
                assert score == (0.0 if item < 0 else -np.inf)


def test_a_constrained_distribution_still_sums_to_one():
    _, _, everything = run(tiny_ranker(ITEMS), tiny_policy()[1], asked(), jnp.zeros((3, 1), jnp.int32))
    np.testing.assert_allclose(jnp.exp(everything).sum(1), 1.0, atol=1e-5)


def test_beams_hold_what_is_left_and_no_more():
    """A beam as wide as the catalog ends where the items do."""
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]
    found = jax.jit(lambda r, p, b: r.search(p, r.prefill(p, b), num_beams=len(ITEMS)))(ranker, params, asked())
    for row in range(3):
        listed = np.asarray(found.items[row])
        assert sorted(listed[listed >= 0]) == left(row)
        np.testing.assert_array_equal(found.valid[row], listed >= 0)
        assert np.isneginf(np.asarray(found.scores[row])[listed < 0]).all()


@pytest.mark.parametrize("scoring", SCORINGS)
def test_one_token_an_item(scoring):
    items = [(token,) for token in range(3, 20)]
    policy, params = tiny_policy()
    excluded = jnp.array([[0, 16, 3], [5, 5, -1], [-1, -1, -1]], jnp.int32)
    batch = PromptBatch(some_prompts().tokens, some_prompts().lengths, excluded)
    ranker = Ranker(policy, build_trie(items, trim=scoring == "constrained"), scoring)
    assert ranker.trie.first_row == 3
    found, _, everything = run(ranker, params, batch, jnp.zeros((3, 1), jnp.int32))
    logits = np.array(policy.logits(params, ranker.policy.prefill(params, some_prompts()).hidden))
    total = logits.copy()
    for row in range(3):
        gone = [item for item in np.asarray(excluded[row]) if item >= 0]
        masked = logits[row, 3:20].copy()
        masked[gone] = -np.inf
        among = masked if scoring == "constrained" else total[row]
        np.testing.assert_allclose(everything[row], masked - np.log(np.exp(among).sum()), atol=1e-5)
        np.testing.assert_array_equal(found.items[row], np.argsort(-masked, kind="stable")[:6])


def test_gradients_do_not_see_what_is_left_out():
    """The gradient of items' scores is that of a catalog without the others, and finite."""
    params = tiny_policy()[1]
    items, row = jnp.array([[2, 3], [2, 3], [2, 3]]), 1

    def total(params, ranker, batch, items):
        return ranker.score(params, ranker.prefill(params, batch), items).sum()

    one = jax.tree.map(lambda rows: rows[row : row + 1], asked())
    grads = jax.jit(jax.grad(total))(params, tiny_ranker(ITEMS), one, items[:1])
    rest = left(row)
    plain = PromptBatch(one.tokens, one.lengths)
    mapped = jnp.array([[rest.index(2), rest.index(3)]])
    wanted = jax.jit(jax.grad(total))(params, tiny_ranker([ITEMS[item] for item in rest]), plain, mapped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), dict(grads), dict(wanted))


@pytest.mark.parametrize("negatives", groups.NEGATIVES)
def test_no_group_has_an_item_that_is_left_out(negatives):
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]
    batch = RlBatch(asked(), jnp.array([2, 3, 4], jnp.int32))

    @jax.jit
    def draw(ranker, params, batch, key):
        return decode.groups.rollout(
            ranker, params, ranker.prefill(params, batch.prompts), batch, key, negatives=negatives, group_size=8
        )

    for seed in range(20):
        items = np.asarray(draw(ranker, params, batch, jax.random.key(seed)))
        for row in range(3):
            assert not {*items[row].tolist()} & {*EXCLUDED[row].tolist()} - {-1}
            assert len({*items[row].tolist()}) == 8


def test_random_others_are_even_among_what_is_left():
    """Each item that may stand in a group stands in it equally often; where they run out, -1."""
    excluded = jnp.tile(jnp.array([[1, 4, 1, -1]], jnp.int32), (4000, 1))
    target = jnp.full(4000, 2, jnp.int32)
    draw = jax.jit(groups.uniform_group, static_argnames=("num_items", "group_size"))
    drawn = np.asarray(draw(target, jax.random.key(0), num_items=8, group_size=3, excluded=excluded))
    assert (drawn[:, 0] == 2).all()
    counts = np.bincount(drawn[:, 1:].ravel(), minlength=8)
    assert (counts[[1, 2, 4]] == 0).all()
    np.testing.assert_allclose(counts[[0, 3, 5, 6, 7]], 4000 * 2 / 5, rtol=0.06)
    few = np.asarray(draw(target[:9], jax.random.key(1), num_items=8, group_size=8, excluded=excluded[:9]))
    for row in few:
        assert sorted(row) == [-1, -1, 0, 2, 3, 5, 6, 7]
