"""The AUC family, Recall@K and NDCG@K against loops, the step-ROC formula and scikit-learn."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from wpauc_jax import objectives

from . import oracles

SIZE = 12
score_lists = st.lists(st.integers(-4, 4).map(float), min_size=SIZE, max_size=SIZE)  # with many ties
mask_lists = st.lists(st.booleans(), min_size=SIZE, max_size=SIZE)
rates = st.one_of(st.floats(0, 1), st.integers(0, 12).map(lambda n: n / 12))


def jit_metric(name):
    """A metric with traced settings, so that hypothesis does not recompile it."""
    metric = getattr(objectives, name)
    return jax.jit(lambda scores, is_positive, where, **rates: metric(scores, is_positive, where=where, **rates))


METRICS = {name: jit_metric(name) for name in ("auc", "partial_auc", "opauc", "wpauc", "tpauc", "llpauc")}
METRICS |= {name: jit_metric(name) for name in ("recall_at_k", "ndcg_at_k")}
unnormalised = jax.jit(
    lambda s, p, w, low, high: objectives.partial_auc(s, p, low=low, high=high, normalize=False, where=w)
)


def run(name, scores, is_positive, where=None, **rates):
    where = np.ones(len(scores), bool) if where is None else np.asarray(where)
    with jax.enable_x64(True):
        rates = {name: np.asarray(value) for name, value in rates.items()}
        return float(METRICS[name](np.asarray(scores, np.float64), np.asarray(is_positive), where, **rates))


@settings(deadline=None, max_examples=100)
@given(score_lists, mask_lists, mask_lists)
def test_auc_counts_pairs(scores, is_positive, where):
    expected = oracles.pair_share(*oracles.split(scores, is_positive, where))
    np.testing.assert_allclose(run("auc", scores, is_positive, where), expected, rtol=0, atol=1e-14)


@settings(deadline=None, max_examples=200)
@given(score_lists, mask_lists, mask_lists, rates, rates)
def test_partial_auc_is_the_step_roc_integral(scores, is_positive, where, low, high):
    low, high = min(low, high), max(low, high)
    expected = oracles.partial_auc(scores, is_positive, low, high, where)
    with jax.enable_x64(True):
        actual = unnormalised(np.asarray(scores), np.asarray(is_positive), np.asarray(where), low, high)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)
    if high - low > 1e-3:
        normalised = run("partial_auc", scores, is_positive, where, low=low, high=high)
        np.testing.assert_allclose(normalised, expected / (high - low), rtol=0, atol=1e-11)
        windowed = run("wpauc", scores, is_positive, where, alpha=low, d=high - low)
        np.testing.assert_allclose(windowed, expected / (high - low), rtol=0, atol=1e-11)
        one_way = run("opauc", scores, is_positive, where, beta=high)
        expected = oracles.partial_auc(scores, is_positive, 0.0, high, where) / high
        np.testing.assert_allclose(one_way, expected, rtol=0, atol=1e-11)


def test_partial_auc_agrees_with_scikit_learn():
    """scikit-learn standardises by McClish and interpolates, so ends fall on whole negatives and scores differ."""
    rng = np.random.default_rng(0)
    n_neg = 7
    is_positive = np.arange(SIZE) >= n_neg
    for _ in range(20):
        scores = rng.permutation(SIZE).astype(float)
        for count in range(1, n_neg):
            max_fpr = count / n_neg
            ours = run("opauc", scores, is_positive, beta=max_fpr) * max_fpr
            chance = max_fpr**2 / 2
            standardised = (1 + (ours - chance) / (max_fpr - chance)) / 2
            np.testing.assert_allclose(standardised, roc_auc_score(is_positive, scores, max_fpr=max_fpr), atol=1e-12)
        np.testing.assert_allclose(run("auc", scores, is_positive), roc_auc_score(is_positive, scores), atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(st.permutations(range(SIZE)), mask_lists, mask_lists, rates, rates)
def test_two_way_areas_count_selected_pairs(scores, is_positive, where, first, second):
    positives, negatives = oracles.split(scores, is_positive, where)
    positives, negatives = sorted(positives, reverse=True), sorted(negatives, reverse=True)

    def floor(rate, count):  # of the product as meant: 12 * (7 / 12) is 7
        return int(np.floor(round(rate * count, 9)))

    lowest = floor(1 - first, len(positives))
    two_way = oracles.pair_share(positives[len(positives) - lowest :], negatives[: floor(second, len(negatives))])
    actual = run("tpauc", scores, is_positive, where, min_tpr=first, max_fpr=second)
    np.testing.assert_allclose(actual, two_way, rtol=0, atol=1e-14)
    top = positives[: floor(first, len(positives))]
    lower_left = oracles.pair_share(top, negatives[: floor(second, len(negatives))])
    actual = run("llpauc", scores, is_positive, where, alpha=first, beta=second)
    np.testing.assert_allclose(actual, lower_left, rtol=0, atol=1e-14)


def test_two_way_areas_per_pair_of_the_group():
    scores, is_positive = np.float32([6, 5, 4, 3, 2, 1]), np.bool_([0, 1, 0, 1, 0, 0])
    # the top positive beats 1 of the top 2 negatives, the lower one none; 8 pairs in all
    np.testing.assert_allclose(
        objectives.llpauc(scores, is_positive, alpha=0.5, beta=0.5, normalize=False), 1 / 8, rtol=1e-6
    )
    np.testing.assert_allclose(
        objectives.tpauc(scores, is_positive, min_tpr=0.5, max_fpr=0.75, normalize=False), 1 / 8, rtol=1e-6
    )


def test_ties_by_the_stated_rules():
    scores, is_positive = np.zeros(4, np.float32), np.bool_([0, 1, 0, 0])
    np.testing.assert_allclose(objectives.auc(scores, is_positive), 1 / 2, rtol=1e-6)
    np.testing.assert_allclose(objectives.auc(scores, is_positive, ties="index"), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(objectives.opauc(scores, is_positive, beta=1 / 3, ties="index"), 0, atol=1e-7)
    np.testing.assert_allclose(objectives.opauc(scores, is_positive, beta=1 / 3), 1 / 2, rtol=1e-6)


@settings(deadline=None, max_examples=100)
@given(score_lists, mask_lists, mask_lists, st.integers(1, SIZE + 2))
def test_recall_and_ndcg_read_the_top_of_the_list(scores, is_positive, where, k):
    ranked = [is_positive[i] for i in oracles.order(scores, where)]
    n_pos = sum(ranked)
    recall = sum(ranked[:k]) / n_pos if n_pos else 0
    np.testing.assert_allclose(run("recall_at_k", scores, is_positive, where, k=k), recall, rtol=0, atol=1e-14)
    expected = 0.0
    if n_pos and len(ranked) > 1:
        expected = ndcg_score([np.asarray(ranked, float)], [-np.arange(float(len(ranked)))], k=k)
    elif n_pos:
        expected = 1.0
    np.testing.assert_allclose(run("ndcg_at_k", scores, is_positive, where, k=k), expected, rtol=0, atol=1e-12)


def test_window_of_recall():
    alpha, d = objectives.wpauc_window(5, 2, 100)
    np.testing.assert_allclose((alpha, d), (0.03, 0.02), rtol=1e-15)
    for k, n_pos, n_neg in ((1, 2, 10), (11, 1, 10), (3, 0, 10)):
        with pytest.raises(ValueError, match=f"Recall@{k}.*n_pos={n_pos} and n_neg={n_neg}"):
            objectives.wpauc_window(k, n_pos, n_neg)


@pytest.mark.parametrize(
    ("name", "rates", "message"),
    [
        ("partial_auc", {"low": 0.5, "high": 0.5}, "empty"),
        ("partial_auc", {"low": -0.1, "high": 0.5}, "low=-0.1"),
        ("opauc", {"beta": 1.5}, r"high=1\.5"),
        ("wpauc", {"alpha": 0.1, "d": 0}, "d=0"),
        ("tpauc", {"min_tpr": 2, "max_fpr": 0.5}, "min_tpr=2"),
        ("llpauc", {"alpha": 0.5, "beta": -1}, "beta=-1"),
        ("recall_at_k", {"k": 0}, "k=0"),
        ("ndcg_at_k", {"k": 0}, "k=0"),
        ("auc", {"ties": "random"}, "ties='random'.*half"),
    ],
)
def test_static_mistakes_raise(name, rates, message):
    with pytest.raises(ValueError, match=message):
        getattr(objectives, name)(np.zeros(3, np.float32), np.zeros(3, bool), **rates)
