"""Soft Recall@K: its thresholds against sorting, its limits, and the gradients of the losses made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import (
    policy_loss,
    policy_weights,
    soft_recall,
    soft_top_k_loss,
    top_k_threshold,
    window_threshold,
    wpauc,
    wpauc_window,
)

SCORES = jnp.asarray(np.random.default_rng(0).normal(size=(5, 12)), jnp.float32)
WHERE = jnp.asarray(np.random.default_rng(1).random((5, 12)) < 0.7)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_threshold_is_the_kth_of_a_sort(k):
    sorts = [sorted(np.asarray(row)[np.asarray(mask)])[::-1] for row, mask in zip(SCORES, WHERE, strict=True)]
    expected = [row[k - 1] if k <= len(row) else -np.inf for row in sorts]
    np.testing.assert_array_equal(top_k_threshold(SCORES, k, where=WHERE), np.float32(expected))


def test_without_k_negatives_there_is_no_threshold():
    scores = jnp.asarray([[1.0, 2.0, 3.0]])
    few = jnp.asarray([[True, False, True]])
    np.testing.assert_array_equal(top_k_threshold(scores, 3, where=few), -np.inf)
    none = jnp.zeros((1, 3), bool)
    np.testing.assert_array_equal(window_threshold(scores, anchor=0, where=none), -np.inf)
    np.testing.assert_array_equal(top_k_threshold(jnp.zeros((2, 0)), 1), [-np.inf, -np.inf])


def test_the_windows_threshold_goes_from_the_kth_score_to_the_mean_of_all():
    narrow = window_threshold(SCORES, anchor=2, temperature=1e-3, where=WHERE)
    np.testing.assert_allclose(narrow, top_k_threshold(SCORES, 3, where=WHERE), atol=1e-5)
    wide = window_threshold(SCORES, anchor=2, temperature=1e6, where=WHERE)
    p = np.where(WHERE, np.exp(SCORES), 0).sum(1) / np.asarray(WHERE).sum(1)
    np.testing.assert_allclose(wide, np.log(p), atol=1e-4)
    between = window_threshold(SCORES, anchor=2, temperature=1.0, where=WHERE)
    assert not np.allclose(between, narrow, atol=0.05) and not np.allclose(between, wide, atol=0.05)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_at_temperature_zero_it_is_wpauc_of_the_window_of_recall_at_k(k):
    """One positive: Lemma 3.5."""
    target = jnp.asarray([0.1, 1.4, -2.0, 0.6, 5.0], jnp.float32)
    found = soft_recall(target, top_k_threshold(SCORES, k), temperature=1e-6)
    both = jnp.concatenate([target[:, None], SCORES], axis=1)
    hits = jnp.broadcast_to(jnp.arange(13) == 0, both.shape)
    alpha, d = wpauc_window(k, 1, 12)
    np.testing.assert_allclose(found, wpauc(both, hits, alpha=alpha, d=d), atol=1e-6)
    assert 0 < float(found.sum()) < 5 or k == 5


def test_the_likelihood_form_is_that_of_the_targets_mass_with_the_kth():
    """At temperature 1 its gradient is that of -log(p + exp(b)), b held fixed."""
    logps, b = jnp.asarray([-1.0, -3.0, -6.0]), jnp.asarray([-2.0, -2.5, -1.0])
    grads = jax.grad(lambda x: soft_top_k_loss(x, b).sum)(logps)
    np.testing.assert_allclose(grads, jax.grad(lambda x: -jnp.logaddexp(x, b).sum())(logps), rtol=1e-5)


def test_the_surrogates_gradient_is_largest_at_the_threshold():
    logps, b = jnp.asarray([-1.0, -2.0, -8.0]), jnp.full(3, -2.0)
    grads = jax.grad(lambda x: soft_top_k_loss(x, b, temperature=0.5, form="surrogate").sum)(logps)
    r = 1 / (1 + np.exp(-(np.asarray(logps) + 2) / 0.5))
    np.testing.assert_allclose(grads, -r * (1 - r) / 0.5, rtol=1e-5)
    assert grads[1] < grads[0] < grads[2] < 0


def test_the_ends_of_the_likelihood_form():
    logps = jnp.asarray([-1.0, -4.0])
    beyond = soft_top_k_loss(logps, jnp.full(2, -jnp.inf))  # K is beyond the last negative
    np.testing.assert_allclose(beyond.mean(), 2.5)
    np.testing.assert_allclose(soft_top_k_loss(logps, jnp.zeros(2), temperature=1e6).mean(), 1.25, rtol=1e-4)


def test_only_the_targets_score_is_moved_and_nothing_is_infinite():
    target = jnp.asarray([-1.0, -jnp.inf, -3.0, -2.0, 0.0])
    where = jnp.asarray([True, True, True, True, False])

    def loss(target, scores):
        return soft_top_k_loss(target, top_k_threshold(scores, 2, where=WHERE), where=where).sum

    to_target, to_scores = jax.grad(loss, (0, 1))(target, SCORES)
    np.testing.assert_array_equal(to_scores, 0)
    assert np.isfinite(to_target).all() and to_target[1] == to_target[4] == 0 and to_target[0] < 0
    assert float(soft_top_k_loss(target, jnp.zeros(5), where=where).count) == 3
    np.testing.assert_array_equal(soft_recall(target[:2], jnp.full(2, -jnp.inf)), [1.0, 0.0])


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="k"):
        top_k_threshold(SCORES, 0)
    with pytest.raises(ValueError, match="form"):
        soft_top_k_loss(jnp.zeros(2), jnp.zeros(2), form="hinge")
    with pytest.raises(ValueError, match="temperature"):
        soft_recall(jnp.zeros(2), jnp.zeros(2), temperature=0.0)
    with pytest.raises(ValueError, match="thresholds"):
        soft_recall(jnp.zeros(2), jnp.zeros(3))


def test_weights_by_the_policys_probability():
    p = np.float32([0.4, 0.3, 0.1, 0.05])
    hit = jnp.asarray([False, True, False, False])
    weights = policy_weights(jnp.log(p), hit)
    np.testing.assert_allclose(weights, [3 * 0.4 / 0.7, 1, 3 * 0.1 / 0.7, 3 * 0.05 / 0.7], rtol=1e-5)
    one_sided = policy_weights(jnp.log(p), jnp.zeros(4, bool), where=jnp.asarray([True, True, True, False]))
    np.testing.assert_array_equal(one_sided, [1, 1, 1, 0])


def test_a_group_of_the_whole_catalog_weighted_by_probability_moves_the_target_alone():
    """Its gradient is a multiple of grad log p(target), as that of independent draws is; equal weights give another."""
    logits = jnp.asarray([0.4, -0.3, 1.1, 0.0, -1.2])
    hit = jnp.arange(5) == 1

    def gradient(weigh):
        def loss(z):
            logps = jax.nn.log_softmax(z)
            advantages = jnp.where(hit, 0.8, -0.2) * weigh(logps)
            return policy_loss(logps[None, :, None], advantages[None], kind="grpo")[0]

        return np.asarray(jax.grad(loss)(logits))

    of_target = np.asarray(jax.grad(lambda z: jax.nn.log_softmax(z)[1])(logits))
    found = gradient(lambda logps: policy_weights(logps, hit))
    np.testing.assert_allclose(found / found[1] * of_target[1], of_target, rtol=1e-5)
    equal = gradient(jnp.ones_like)
    assert not np.allclose(equal / equal[1] * of_target[1], of_target, rtol=0.1)
