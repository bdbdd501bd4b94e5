"""Sums over rows in blocks: the value and the gradient of the plain sum, of the rows that count."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import tiny_policy, trie_for
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.compile_check.hlo import matmul_flops
from wpauc_jax.decode import Ranker
from wpauc_jax.training import blocks
from wpauc_jax.training.sft import sft_loss

ITEMS = [(3 + item,) for item in range(30)]


def _draw(rows: int, live: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    states = jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32)
    labels = np.full(rows, -1)
    labels[rng.permutation(rows)[:live]] = rng.integers(0, 7, live)
    return states, jnp.asarray(labels, jnp.int32), jnp.asarray(rng.normal(size=(7, 5)), jnp.float32)


def _plain(table: jax.Array, states: jax.Array, labels: jax.Array) -> jax.Array:
    logps = jax.nn.log_softmax(states @ table.T)
    return -jnp.where(labels >= 0, jnp.take_along_axis(logps, jnp.maximum(labels, 0)[:, None], 1)[:, 0], 0).sum()


def _in_blocks(table: jax.Array, states: jax.Array, labels: jax.Array, size: int) -> jax.Array:
    return blocks.sum_in_blocks(functools.partial(_plain, table), states, labels, labels >= 0, size)


@pytest.mark.parametrize(("rows", "live", "size"), [(12, 7, 4), (13, 13, 4), (13, 5, 1), (9, 9, 20), (8, 0, 3)])
def test_value_and_gradients_are_those_of_the_plain_sum(rows, live, size):
    states, labels, table = _draw(rows, live)
    loss = jax.jit(functools.partial(_in_blocks, size=size))
    np.testing.assert_allclose(loss(table, states, labels), _plain(table, states, labels), rtol=1e-6)
    # A cotangent other than 1, and parameters that come in on two ways.
    wanted = jax.grad(lambda table, states: 3 * _plain(2 * table, states @ (table.T @ table), labels), (0, 1))
    found = jax.grad(lambda table, states: 3 * loss(2 * table, states @ (table.T @ table), labels), (0, 1))
    for one, other in zip(found(table, states), wanted(table, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-5)


def test_blocks_without_a_live_row_are_not_computed():
    """Rows that count stand first, and what the others hold is never read: a NaN in them stays where it is."""
    states, labels, table = _draw(12, 4)
    states = jnp.where((labels >= 0)[:, None], states, jnp.nan)
    value, gradient = jax.value_and_grad(_in_blocks, 1)(table, states, labels, 4)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (np.asarray(gradient)[labels < 0] == 0).all()


def test_bfloat16_states_get_a_bfloat16_gradient():
    states, labels, table = _draw(12, 9)
    gradient = jax.grad(_in_blocks, 1)(table, states.astype(jnp.bfloat16), labels, 4)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient.astype(jnp.float32), jax.grad(_plain, 1)(table, states, labels), atol=0.02)


def test_no_array_of_all_scores_is_made():
    """The scores of a block are the largest array: nothing in the program has a row for each target and each item."""
    states, labels, table = _draw(64, 40)
    program = str(jax.make_jaxpr(jax.grad(functools.partial(_in_blocks, size=8), (0, 1)))(table, states, labels))
    assert "f32[8,7]" in program and "f32[64,7]" not in program


def test_the_products_of_all_blocks_are_counted():
    """compile_check reads a program's products from its loops. Of 13 rows in blocks of 4, 16 are multiplied."""
    states, labels, table = _draw(13, 5)
    program = jax.make_jaxpr(jax.grad(functools.partial(_in_blocks, size=4), (0, 1)))(table, states, labels)
    assert matmul_flops(program) == 3 * 2 * 16 * 7 * 5


def test_a_block_is_as_large_as_the_mesh_s_devices_like():
    """A mesh may be of devices that are not here, as in compile_check."""
    device = types.SimpleNamespace(platform="tpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.sharding, "get_abstract_mesh", lambda: types.SimpleNamespace(abstract_device=device))
        assert blocks.rows_of_a_block(2**20) == 2**8
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        assert blocks.rows_of_a_block(2**20) == blocks.rows_of_a_block(7) == 128


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("excludes", [False, True])
def test_sft_in_blocks_is_sft(monkeypatch, smoothing, excludes):
    policy, params = tiny_policy()
    ranker = Ranker(policy, trie_for(ITEMS, "constrained"))
    rng = np.random.default_rng(1)
    items = np.where(rng.random((6, 4)) < 0.6, rng.integers(0, 30, (6, 4)), -1).astype(np.int32)
    batch = SftBatch(
        tokens=jnp.asarray(rng.integers(3, 33, (6, 9)), jnp.int32),
        segments=jnp.ones((6, 9), jnp.int32),
        items=jnp.asarray(items),
        starts=jnp.asarray(rng.integers(0, 9, (6, 4)), jnp.int32),
        excluded=jnp.asarray((items[..., None] + [1, 5, 9]) % 30, jnp.int32) if excludes else None,
    )

    def measured(size: int):
        monkeypatch.setattr("wpauc_jax.training.sft.rows_of_a_block", lambda scores: size)
        loss = functools.partial(sft_loss, ranker, batch=batch, smoothing=smoothing)
        return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (plain, count), wanted = measured(100)
    (value, again), found = measured(5)
    assert count == again == (items >= 0).sum()
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
