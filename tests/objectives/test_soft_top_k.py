"""The threshold-adjusted soft top-k operator against bisection, and its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from wpauc_jax.objectives import soft_top_k

from . import oracles

SMALL = 8
jitted = jax.jit(lambda x, k, temperature, where: soft_top_k(x, k, temperature=temperature, where=where))
temperatures = st.floats(-3, 3).map(lambda exponent: 10.0**exponent)
values = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, width=32))
vectors = st.lists(values, min_size=SMALL, max_size=SMALL)
masks = st.lists(st.booleans(), min_size=SMALL, max_size=SMALL)


def run(x, k, temperature, where=None, dtype=np.float64):
    x = np.asarray(x, dtype)
    where = np.ones(x.shape, bool) if where is None else np.asarray(where)
    with jax.enable_x64(True):
        return np.asarray(jitted(x, np.asarray(k, dtype), np.asarray(temperature, dtype), where))


@settings(deadline=None, max_examples=150)
@given(vectors, st.floats(0, SMALL + 1), temperatures, masks)
def test_float64_equals_bisection(x, k, temperature, where):
    kept = np.flatnonzero(where)
    actual = run(x, k, temperature, where)
    assert np.all(actual[~np.asarray(where)] == 0)
    expected = oracles.soft_top_k(np.asarray(x)[kept], k, temperature) if len(kept) else []
    np.testing.assert_allclose(actual[kept], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(actual.sum(), min(k, len(kept)), rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=150)
@given(vectors, st.floats(0, SMALL + 1, width=32), temperatures, masks)
def test_float32_equals_bisection(x, k, temperature, where):
    kept = np.flatnonzero(where)
    temperature = np.float32(temperature)
    actual = run(x, k, temperature, where, np.float32)
    assert actual.dtype == np.float32
    expected = oracles.soft_top_k(np.float32(x)[kept], k, float(temperature)) if len(kept) else []
    np.testing.assert_allclose(actual[kept], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-6)])
def test_long_vectors_equal_bisection(dtype, tolerance):
    rng = np.random.default_rng(0)
    normal = rng.normal(size=4096).astype(dtype)
    for x in (normal, np.round(normal, 1), np.sort(normal)):  # few ties, many ties, sorted
        for temperature in (1e-3, 1.0, 1e3):
            for k in (1.0, 2.25, 100.0, 2000.3, 4095.5):
                k, temperature = dtype(k), dtype(temperature)
                actual = run(x, k, temperature, dtype=dtype)
                expected = oracles.soft_top_k(x, float(k), float(temperature))
                np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance, err_msg=f"{k=} {temperature=}")


def test_the_fraction_of_a_large_constant_k_survives_float32():
    x = np.arange(4096, dtype=np.float32)
    actual = np.asarray(soft_top_k(x, 2000.3, temperature=1e-3))
    np.testing.assert_allclose(actual[4096 - 2001], 0.3, rtol=0, atol=1e-7)


@settings(deadline=None, max_examples=50)
@given(vectors, st.floats(0.1, SMALL), temperatures, st.floats(-10, 10), st.permutations(range(SMALL)))
def test_shift_permutation_and_order(x, k, temperature, shift, permutation):
    x, permutation = np.asarray(x), list(permutation)
    weights = run(x, k, temperature)
    atol = 1e-13 * (20 + abs(shift)) / temperature + 1e-12  # the rounding of x + shift itself, divided by temperature
    np.testing.assert_allclose(run(x + shift, k, temperature), weights, rtol=0, atol=atol)
    np.testing.assert_allclose(run(x[permutation], k, temperature), weights[permutation], rtol=0, atol=1e-12)
    ascending = weights[np.argsort(x, kind="stable")]
    assert np.all(np.diff(ascending) >= -1e-12)
    for value in np.unique(x):
        assert np.ptp(weights[x == value]) <= 1e-12  # ties share one weight


def test_mass_one_is_softmax():
    x = np.array([0.3, -1.0, 2.0, 2.0, -5.0, 0.0, 1.0, 0.5])
    with jax.enable_x64(True):
        np.testing.assert_allclose(run(x, 1.0, 0.7), np.asarray(jax.nn.softmax(x / 0.7)), rtol=0, atol=1e-14)


def test_limits():
    x = [3.0, 1.0, 1.0, 1.0, 0.0, -1.0, -2.0, -3.0]
    hard = run(x, 2.0, 1e-3)
    np.testing.assert_allclose(hard, [1, 1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(run(x, 2.5, 1e9), np.full(8, 2.5 / 8), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(run(x, 8.0, 1.0), np.ones(8))
    np.testing.assert_array_equal(run(x, 0.0, 1.0), np.zeros(8))


@pytest.mark.parametrize("k", [0.5, 1.0, 2.5, 4.0])
def test_gradient_equals_finite_differences(k):
    x = np.array([0.9, -1.0, 2.0, 1.2, 0.1, -0.4])
    direction = np.array([0.2, -0.5, 1.0, 0.3, -0.7, 0.4])
    with jax.enable_x64(True):

        def value(x, k, temperature):
            return jnp.sum(direction * soft_top_k(x, k, temperature=temperature))

        check_grads(value, (x, k, 0.8), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_vmap_and_leading_axes_agree():
    x = np.random.default_rng(1).normal(size=(3, 4, 6)).astype(np.float32)
    where = x > -1
    whole = soft_top_k(x, 2.5, temperature=0.5, where=where)
    mapped = jax.vmap(jax.vmap(lambda x, w: soft_top_k(x, 2.5, temperature=0.5, where=w)))(x, where)
    np.testing.assert_allclose(whole, mapped, rtol=0, atol=1e-7)


def test_masked_values_may_be_anything():
    x = np.array([np.nan, 1.0, np.inf, 0.0], np.float32)
    where = np.array([False, True, False, True])

    def first(x, temperature):
        return soft_top_k(x, 1, temperature=temperature, where=where)[1]

    value, gradients = jax.value_and_grad(first, argnums=(0, 1))(x, 1.0)
    np.testing.assert_allclose(value, 1 / (1 + np.exp(-1)), rtol=1e-6)
    assert np.all(np.isfinite(gradients[0])) and np.isfinite(gradients[1])


@pytest.mark.parametrize("settings", [{"k": -1}, {"k": 1, "temperature": 0.0}, {"k": 1, "where": np.ones(2, bool)}])
def test_static_mistakes_raise(settings):
    with pytest.raises(ValueError, match=r"k=-1|temperature=0|shape \(2,\)"):
        soft_top_k(np.zeros(3, np.float32), **settings)
