"""Ranks among negatives, TAWin weights and the hard window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.objectives import group_advantages, negative_ranks, tawin_weights, window_weights

from . import oracles

GROUP = 16
scores_lists = st.lists(st.integers(-6, 6).map(float), min_size=GROUP, max_size=GROUP)
mask_lists = st.lists(st.booleans(), min_size=GROUP, max_size=GROUP)


@functools.partial(jax.jit, static_argnames=("rank_scale",))
def jitted_tawin(scores, is_positive, where, anchor, temperature, mass, rank_scale="rank"):
    return tawin_weights(
        scores, is_positive, anchor=anchor, temperature=temperature, mass=mass, rank_scale=rank_scale, where=where
    )


@jax.jit
def jitted_window(scores, is_positive, where, start, size):
    return window_weights(scores, is_positive, start=start, size=size, where=where)


@jax.jit
def jitted_ranks(scores, is_positive, where):
    return negative_ranks(scores, is_positive, where=where)


def oracle_ranks(scores, is_positive, where):
    ranks = np.full(len(scores), -1)
    negatives = [i for i in oracles.order(scores, where) if not is_positive[i]]
    ranks[negatives] = np.arange(len(negatives))
    return ranks


def one_hit(group=GROUP, hit=3):
    """Scores in descending order with the positive at one place, so that ranks read off from left to right."""
    return -np.arange(float(group)), np.arange(group) == hit


@settings(deadline=None, max_examples=100)
@given(scores_lists, mask_lists, mask_lists)
def test_ranks_equal_a_python_sort(scores, is_positive, where):
    scores, is_positive, where = np.float32(scores), np.asarray(is_positive), np.asarray(where)
    actual = np.asarray(jitted_ranks(scores, is_positive, where))
    assert actual.dtype == np.int32
    np.testing.assert_array_equal(actual, oracle_ranks(scores, is_positive, where))


def test_minus_infinity_is_a_score_and_masked_scores_do_not_matter():
    scores = np.float32([-np.inf, 1.0, np.nan, -np.inf, 2.0])
    where = np.array([True, True, False, True, True])
    ranks = negative_ranks(scores, np.zeros(5), where=where)
    np.testing.assert_array_equal(ranks, [2, 1, -1, 3, 0])


@settings(deadline=None, max_examples=100)
@given(
    scores_lists,
    mask_lists,
    mask_lists,
    st.integers(0, 20),
    st.sampled_from([0.1, 1.0, 7.0]),
    st.sampled_from([1.0, 2.5, 5.0]),
    st.sampled_from(["rank", "fraction", "log"]),
)
def test_weights_equal_their_definition(scores, is_positive, where, anchor, temperature, mass, rank_scale):
    scores, is_positive, where = np.float32(scores), np.asarray(is_positive), np.asarray(where)
    weights = np.asarray(jitted_tawin(scores, is_positive, where, anchor, temperature, mass, rank_scale=rank_scale))
    ranks = oracle_ranks(scores, is_positive, where)
    negative, count = ranks >= 0, int((ranks >= 0).sum())
    expected = where.astype(float)
    if count and (is_positive & where).any():
        scale = {"rank": lambda r: r, "fraction": lambda r: r / max(count - 1, 1), "log": np.log1p}[rank_scale]
        distance = np.abs(scale(ranks[negative].astype(float)) - scale(float(min(anchor, count - 1))))
        soft = oracles.soft_top_k(-distance, mass, temperature)
        expected[negative] = count * soft / soft.sum()
    np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-6)
    advantages = np.asarray(group_advantages(np.float32(is_positive), where=where))
    np.testing.assert_allclose((weights * advantages).sum(), 0, atol=2e-5)


REFERENCE = {  # the beginning of the negatives' weights: 15 negatives, temperature 1
    ("rank", 1, 2): [0.97, 2.65, 7.19, 2.65, 0.97, 0.36, 0.13],
    ("rank", 1, 4): [0.13, 0.35, 0.94, 2.56, 6.97, 2.56, 0.94, 0.35],
    ("rank", 1, 0): [9.48, 3.49, 1.28, 0.47, 0.17],
    ("fraction", 1, 2): [1.23, 1.32, 1.42, 1.32, 1.23],
    ("log", 1, 2): [0.77, 1.55, 2.32, 1.74, 1.39, 1.16],
    ("rank", 3, 2): [1.25, 3.39, 5.00, 3.39, 1.25, 0.46],
    ("rank", 5, 4): [0.26, 0.72, 1.94, 3, 3, 3, 1.94, 0.72, 0.26],
}


@pytest.mark.parametrize(("setting", "expected"), REFERENCE.items())
def test_reference_values(setting, expected):
    """The published-precision table; `test_weights_equal_their_definition` pins the further digits."""
    rank_scale, mass, anchor = setting
    scores, is_positive = one_hit()
    weights = tawin_weights(scores, is_positive, anchor=anchor, mass=mass, rank_scale=rank_scale)
    negatives = np.asarray(weights)[~is_positive]
    np.testing.assert_allclose(negatives[: len(expected)], expected, rtol=0, atol=0.005 + 1e-6)
    np.testing.assert_allclose(negatives.sum(), 15, rtol=1e-6)


def test_large_temperature_is_plain_grpo():
    scores, is_positive = one_hit()
    np.testing.assert_allclose(tawin_weights(scores, is_positive, anchor=2, temperature=1e7), np.ones(16), atol=1e-5)


@pytest.mark.parametrize("anchor", [0, 2, 14, 99])
def test_small_temperature_is_the_hard_window(anchor):
    scores, is_positive = one_hit()
    expected = np.where(is_positive, 1.0, 0.0)
    expected[np.flatnonzero(~is_positive)[min(anchor, 14)]] = 15
    soft = tawin_weights(scores, is_positive, anchor=anchor, temperature=1e-3)
    np.testing.assert_allclose(soft, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(window_weights(scores, is_positive, start=anchor, size=1), expected)


@settings(deadline=None, max_examples=100)
@given(scores_lists, mask_lists, mask_lists, st.integers(0, 20), st.integers(1, 20))
def test_window_shares_the_mass(scores, is_positive, where, start, size):
    scores, is_positive, where = np.float32(scores), np.asarray(is_positive), np.asarray(where)
    weights = np.asarray(jitted_window(scores, is_positive, where, start, size))
    ranks = oracle_ranks(scores, is_positive, where)
    negative, count = ranks >= 0, int((ranks >= 0).sum())
    expected = where.astype(float)
    if count and (is_positive & where).any():
        first = min(start, count - 1)
        inside = negative & (first <= ranks) & (ranks < first + size)
        assert inside.any()
        expected[negative] = 0
        expected[inside] = count / inside.sum()
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_weights_are_constants():
    scores, is_positive = one_hit()

    def weighted_sum(scores, anchor, temperature):
        weights = tawin_weights(scores, is_positive, anchor=anchor, temperature=temperature)
        return jnp.sum(weights * jnp.arange(16))

    gradients = jax.grad(weighted_sum, argnums=(0, 1, 2))(scores, 1.0, 0.5)
    np.testing.assert_array_equal(gradients[0], np.zeros(16))
    assert gradients[1:] == (0, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"anchor": -1}, "anchor=-1"),
        ({"anchor": 1, "temperature": 0}, "temperature=0"),
        ({"anchor": 1, "mass": 0.0}, "mass=0"),
        ({"anchor": 1, "rank_scale": "square"}, "rank_scale='square'.*fraction"),
        ({"anchor": 1, "where": np.ones(3, bool)}, r"shape \(3,\)"),
    ],
)
def test_static_mistakes_raise(settings, message):
    scores, is_positive = one_hit()
    with pytest.raises(ValueError, match=message):
        tawin_weights(scores, is_positive, **settings)


@pytest.mark.parametrize("settings", [{"start": -1, "size": 1}, {"start": 0, "size": 0}])
def test_static_mistakes_of_a_window_raise(settings):
    scores, is_positive = one_hit()
    with pytest.raises(ValueError, match=r"start=-1|size=0"):
        window_weights(scores, is_positive, **settings)
