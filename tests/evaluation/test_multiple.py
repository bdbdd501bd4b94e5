"""Holm's correction against its definition, and the smallest difference against a simulation."""

import itertools

import numpy as np
import pytest

from wpauc_jax.evaluation.multiple import holm, smallest_difference


def plain_holm(p_values):
    """The least level of a grid at which the step-down procedure rejects a hypothesis, for each of them."""
    levels = np.linspace(0, 1, 20_001)
    found = [1.0] * len(p_values)
    for level in levels[::-1]:
        order = sorted(range(len(p_values)), key=lambda i: p_values[i])
        for step, i in enumerate(order):
            if p_values[i] > level / (len(p_values) - step):
                break
            found[i] = level
    return found


def test_known_values():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []


def test_the_correction_is_the_step_down_procedure():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 9):
        p_values = (rng.random(size) ** 3).tolist()
        assert holm(p_values) == pytest.approx(plain_holm(p_values), abs=1e-4)


def test_the_order_of_the_comparisons_does_not_matter():
    p_values = [0.001, 0.02, 0.02, 0.5]
    expected = dict(zip(p_values, holm(p_values), strict=True))
    for order in itertools.permutations(p_values):
        assert holm(order) == [expected[p] for p in order]


def test_the_smallest_difference_is_seen_four_times_in_five():
    """A two-sided z-test at the corrected level, drawn 200,000 times."""
    error, comparisons = 0.003, 6
    difference = smallest_difference(error, comparisons=comparisons)
    drawn = np.random.default_rng(1).normal(difference, error, 200_000)
    limit = 2.6382573 * error  # the normal quantile at 1 - .05 / 12
    assert np.mean(np.abs(drawn) > limit) == pytest.approx(0.8, abs=0.004)
    assert smallest_difference(1.0) == pytest.approx(1.959964 + 0.841621, abs=1e-5)


def test_what_is_no_probability_is_refused():
    for wrong in ({"level": 0}, {"power": 1}, {"comparisons": 0}):
        with pytest.raises(ValueError, match="must lie between 0 and 1"):
            smallest_difference(1.0, **wrong)
