"""Theorem 3.4, Lemma 3.5 and the OPAUC and LLPAUC bounds: every small case, and random large ones."""

import functools
import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from wpauc_jax.objectives import llpauc, ndcg_at_k, opauc, recall_at_k, wpauc, wpauc_window

SLACK = 1e-9  # rounding of float64 before a floor or a ceiling


class Cases(NamedTuple):
    """Rankings, best first: `is_positive` and `valid` are [R, n], the rest [R]."""

    is_positive: np.ndarray
    valid: np.ndarray
    n_pos: np.ndarray
    n_neg: np.ndarray
    k: np.ndarray


def cases(rankings, width):
    """Cases from (positions of the positives, n_pos, n_neg, k)."""
    is_positive, valid = np.zeros((len(rankings), width), bool), np.zeros((len(rankings), width), bool)
    for row, (positions, n_pos, n_neg, _) in enumerate(rankings):
        is_positive[row, list(positions)] = True
        valid[row, : n_pos + n_neg] = True
    return Cases(is_positive, valid, *np.array([ranking[1:] for ranking in rankings]).T)


@functools.cache
def every_small_case():
    """All rankings of up to 4 positives among up to 7 negatives, at every k that has a window."""
    return cases(
        [
            (positions, n_pos, n_neg, k)
            for n_pos, n_neg in itertools.product(range(1, 5), range(1, 8))
            for positions in itertools.combinations(range(n_pos + n_neg), n_pos)
            for k in range(n_pos, n_neg + 1)
        ],
        width=11,
    )


@functools.cache
def random_large_cases():
    """Positives that lean towards the top, so that all of 0 < Recall@K < 1 occurs."""
    rng = np.random.default_rng(0)
    rankings = []
    for _ in range(400):
        n_pos = int(rng.integers(1, 40))
        n_neg = int(rng.integers(n_pos, 460))
        k = int(rng.integers(n_pos, min(n_neg, 4 * n_pos) + 1))
        lean = rng.uniform(0, 4) * n_pos / (1 + np.arange(n_pos + n_neg))
        positions = np.argsort(-(lean + rng.gumbel(size=n_pos + n_neg)))[:n_pos]
        rankings.append((positions.tolist(), n_pos, n_neg, k))
    return cases(rankings, width=500)


CASES = pytest.mark.parametrize("make_cases", [every_small_case, random_large_cases])


@functools.cache
def measure(make_cases):
    """(Recall@K, NDCG@K, WPAUC, OPAUC at K, LLPAUC at K), the last two not normalised; [R] each."""

    def one(is_positive, valid, alpha, d, rate, share, k):
        scores = -np.arange(float(len(valid)))
        common = {"where": valid, "ties": "index"}
        return (
            recall_at_k(scores, is_positive, k=k, where=valid),
            ndcg_at_k(scores, is_positive, k=k, where=valid),
            wpauc(scores, is_positive, alpha=alpha, d=d, **common),
            opauc(scores, is_positive, beta=rate, normalize=False, **common),
            llpauc(scores, is_positive, alpha=share, beta=rate, normalize=False, **common),
        )

    c = make_cases()
    windows = np.array([wpauc_window(*map(int, row)) for row in zip(c.k, c.n_pos, c.n_neg, strict=True)])
    with jax.enable_x64(True):
        share = np.minimum(c.k / c.n_pos, 1.0)
        arrays = jax.jit(jax.vmap(one))(c.is_positive, c.valid, windows[:, 0], windows[:, 1], c.k / c.n_neg, share, c.k)
        return tuple(np.asarray(array) for array in arrays)


def theorem(w, n_pos):
    """Theorem 3.4's bounds on the number of hits."""
    lower = np.ceil(n_pos * (1 - np.sqrt(np.maximum(1 - w, 0))) - SLACK)
    return lower, np.floor(n_pos * np.sqrt(w) + SLACK)


def closed_window_wpauc(c):
    """WPAUC with the position after the window taken in, by comparing positions."""
    values = []
    for is_positive, n, n_pos, k in zip(c.is_positive, c.n_pos + c.n_neg, c.n_pos, c.k, strict=True):
        negatives = np.flatnonzero(~is_positive[:n])
        window = negatives[k - n_pos : k + 1]
        values.append(np.mean(np.flatnonzero(is_positive)[:, None] < window))
    return np.array(values)


@CASES
def test_theorem_3_4(make_cases):
    c, (recall, _, w, _, _) = make_cases(), measure(make_cases)
    hits = np.round(recall * c.n_pos)
    assert len(np.unique(hits)) >= 4
    lower, upper = theorem(w, c.n_pos)
    assert np.all(lower <= hits) and np.all(hits <= upper)


@CASES
def test_lemma_3_5(make_cases):
    c, (recall, _, w, _, _) = make_cases(), measure(make_cases)
    one = c.n_pos == 1
    assert set(recall[one]) == {0.0, 1.0}
    np.testing.assert_array_equal(w[one], recall[one])


def test_theorem_bounds_are_attained():
    """Each end of the theorem is reached somewhere strictly inside 0 < WPAUC < 1: it cannot be tightened as stated."""
    c, (recall, _, w, _, _) = every_small_case(), measure(every_small_case)
    hits = np.round(recall * c.n_pos)
    lower, upper = theorem(w, c.n_pos)
    inside = (w > 0) & (w < 1) & (lower < upper)
    assert np.any(inside & (hits == lower)) and np.any(inside & (hits == upper))


def test_a_closed_window_breaks_both():
    c, (recall, _, _, _, _) = every_small_case(), measure(every_small_case)
    hits, closed = np.round(recall * c.n_pos), closed_window_wpauc(c)
    lower, upper = theorem(closed, c.n_pos)
    assert np.any((hits < lower) | (upper < hits))
    assert np.any(closed[c.n_pos == 1] != recall[c.n_pos == 1])


@CASES
def test_opauc_bounds(make_cases):
    c, (recall, _, _, area, _) = make_cases(), measure(make_cases)
    hits, pairs = recall * c.n_pos, c.n_pos * c.n_neg * area
    root = np.sqrt(np.maximum((c.n_pos + c.k) ** 2 - 4 * pairs, 0))
    assert np.all((c.n_pos + c.k - root) / 2 <= hits + SLACK)
    assert np.all(hits <= np.sqrt(pairs) + SLACK)


@CASES
def test_llpauc_bounds(make_cases):
    c, (recall, _, _, _, area) = make_cases(), measure(make_cases)
    hits, pairs = recall * c.n_pos, c.n_pos * c.n_neg * area
    assert np.all(c.k - np.sqrt(np.maximum(c.k**2 - pairs, 0)) <= hits + SLACK)
    assert np.all(hits <= np.sqrt(pairs) + SLACK)


@CASES
def test_one_positive_opauc_gives_recall_and_ndcg(make_cases):
    c, (recall, ndcg, _, area, _) = make_cases(), measure(make_cases)
    one = c.n_pos == 1
    normalised = (area * c.n_neg / c.k)[one]
    np.testing.assert_array_equal(recall[one], normalised > 0)
    expected = np.where(normalised > 0, 1 / np.log2(c.k[one] * (1 - normalised) + 2), 0)
    np.testing.assert_allclose(ndcg[one], expected, rtol=0, atol=1e-12)
