"""Constrained search against brute force over the whole catalogue."""

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
    trie_for,
    variable_length_items,
)
from wpauc_jax.decode import sample_without_replacement
from wpauc_jax.decode.scoring import SCORING

ITEMS = variable_length_items()


@functools.cache
def truth(scoring: str) -> np.ndarray:
    return brute_force_logps(*tiny_policy(), some_prompts(), ITEMS, scoring)


@pytest.mark.parametrize("scoring", SCORING)
def test_a_beam_as_wide_as_the_catalogue_is_exact(scoring):
    policy, params = tiny_policy()
    trie = trie_for(ITEMS, scoring)
    found = beam_search(policy, params, some_prompts(), trie, num_beams=len(ITEMS), scoring=scoring)
    order = np.argsort(-truth(scoring), axis=1, kind="stable")
    np.testing.assert_array_equal(found.items, order)
    np.testing.assert_allclose(found.scores, np.take_along_axis(truth(scoring), order, axis=1), atol=1e-5)
    np.testing.assert_allclose(found.logps.sum(-1), found.scores, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORING)
def test_teacher_forced_scores_equal_brute_force(scoring):
    policy, params = tiny_policy()
    items = jnp.broadcast_to(jnp.arange(len(ITEMS))[None], (3, len(ITEMS)))
    logps = score_items(policy, params, some_prompts(), trie_for(ITEMS, scoring), items, scoring=scoring)
    np.testing.assert_allclose(logps.sum(-1), truth(scoring), atol=1e-5)


def test_probabilities_of_the_catalogue_sum_to_one():
    policy, params = tiny_policy()
    found = beam_search(policy, params, some_prompts(), trie_for(ITEMS, "constrained"), num_beams=40)
    np.testing.assert_allclose(jnp.exp(found.scores).sum(1), 1.0, atol=1e-6)


@pytest.mark.parametrize("scoring", SCORING)
def test_narrow_beams_are_legal_distinct_sorted_and_carry_their_own_scores(scoring):
    policy, params = tiny_policy()
    trie = trie_for(ITEMS, scoring)
    found = beam_search(policy, params, some_prompts(), trie, num_beams=6, scoring=scoring)
    assert found.valid.all()
    assert all(len(set(row)) == 6 for row in np.asarray(found.items).tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()
    logps = score_items(policy, params, some_prompts(), trie, found.items, scoring=scoring)
    np.testing.assert_allclose(logps, found.logps, atol=1e-5)


def test_catalogue_smaller_than_the_beam():
    policy, params = tiny_policy()
    trie = trie_for(ITEMS[:5], "constrained")
    found = beam_search(policy, params, some_prompts(), trie, num_beams=8)
    np.testing.assert_array_equal(found.valid, [[True] * 5 + [False] * 3] * 3)
    np.testing.assert_array_equal(np.sort(np.asarray(found.items), axis=1), [[-1, -1, -1, 0, 1, 2, 3, 4]] * 3)
    assert np.isneginf(found.scores[:, 5:]).all()
    np.testing.assert_array_equal(found.logps[:, 5:], 0.0)


def test_catalogue_of_one_item():
    policy, params = tiny_policy()
    found = beam_search(policy, params, some_prompts(), trie_for([(5, 6)], "constrained"), num_beams=2)
    np.testing.assert_array_equal(found.items, [[0, -1]] * 3)
    np.testing.assert_array_equal(found.scores[:, 0], 0.0)


def test_padding_of_prompts_changes_nothing():
    policy, params = tiny_policy()
    trie, prompts = trie_for(ITEMS, "constrained"), some_prompts()
    wide = type(prompts)(jnp.pad(prompts.tokens, ((0, 0), (0, 5)), constant_values=7), prompts.lengths)
    narrow = beam_search(policy, params, prompts, trie, num_beams=10)
    padded = beam_search(policy, params, wide, trie, num_beams=10)
    np.testing.assert_array_equal(narrow.items, padded.items)
    np.testing.assert_allclose(narrow.scores, padded.scores, atol=1e-5)


@pytest.mark.parametrize("scoring", SCORING)
def test_gradients_are_finite_and_equal_finite_differences(scoring):
    policy, params = tiny_policy()
    trie, prompts = trie_for(ITEMS, scoring), some_prompts()
    items = jnp.array([[3, 0, -1], [1, 5, 2], [7, -1, 4]])

    @jax.jit
    def total(scale):
        moved = params | {"embed": params["embed"] * scale}
        return score_items(policy, moved, prompts, trie, items, scoring=scoring).sum()

    slope = jax.grad(total)(jnp.float32(1.0))
    step = 1e-2
    np.testing.assert_allclose(slope, (total(1.0 + step) - total(1.0 - step)) / (2 * step), rtol=1e-2)
    assert np.isfinite(slope)


def test_sampling_draws_from_the_policy_without_replacement():
    policy, params = tiny_policy()
    items = ITEMS[:6]
    trie, prompts = trie_for(items, "constrained"), some_prompts(batch=1)
    draw = jax.jit(
        jax.vmap(lambda key: sample_without_replacement(policy, params, prompts, trie, key, num_samples=2).items[0])
    )
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    p = np.exp(brute_force_logps(policy, params, prompts, items, "constrained")[0])
    # inclusion of i in two draws without replacement: p_i + sum_{j != i} p_j p_i / (1 - p_j)
    included = p * (1 + (p / (1 - p)).sum() - p / (1 - p))
    observed = np.bincount(drawn.ravel(), minlength=len(items)) / len(drawn)
    np.testing.assert_allclose(observed, included, atol=4 * np.sqrt(0.25 / len(drawn)))
    assert np.abs(included - 2 * p).max() > 0.05  # so that draws with replacement would fail


def test_unknown_scoring_rule():
    policy, params = tiny_policy()
    with pytest.raises(ValueError, match="scoring='other' is unknown"):
        beam_search(policy, params, some_prompts(), trie_for(ITEMS, "vocab"), num_beams=2, scoring="other")
