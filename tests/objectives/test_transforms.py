"""Every objective under jit, vmap, grad and shard_map, in float32 and bfloat16, on groups of every degenerate kind."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec

from wpauc_jax import objectives as o

ROOT = pathlib.Path(__file__).parents[2]
GROUP, TOKENS = 6, 2
HALF = GROUP // 2


def policy(kind):
    def run(scores, is_positive, where):
        logps = jnp.stack([scores, scores / 2], -1)
        token_mask = jnp.stack([where, where & (scores > 0)], -1)
        return o.tawin_loss(
            logps,
            is_positive,
            scores=scores,
            anchor=1,
            kind=kind,
            where=where,
            token_mask=token_mask,
            old_logps=logps + 0.25,
            ref_logps=logps - 0.5,
            kl_coef=0.1,
        )

    return run


def llpauc_loss(scores, is_positive, where):
    return o.llpauc_loss(scores, is_positive, o.LlpaucMin(), o.LlpaucMax(), alpha=0.5, beta=0.5, where=where)


def opauc_of_halves(loss, **setting):
    """The first half of a group as positives against the second."""

    def run(scores, is_positive, where):
        masks = {"where_positive": where[..., :HALF] & is_positive[..., :HALF], "where_negative": where[..., HALF:]}
        thresholds = {"thresholds": scores[..., :HALF]} if loss is o.opauc_cvar_loss else {}
        return loss(scores[..., :HALF], scores[..., HALF:], **thresholds, **setting, **masks)

    return run


def dpo(scores, is_positive, where):
    return o.softmax_dpo_loss(
        scores[..., 0],
        scores[..., 1:],
        ref_positive_logps=jnp.zeros_like(scores[..., 0]),
        ref_negative_logps=jnp.zeros_like(scores[..., 1:]),
        where=is_positive[..., 0],
        where_negative=where[..., 1:],
    )


def cross_entropy(scores, is_positive, where):
    allowed = is_positive & where
    targets = jnp.where(jnp.any(allowed, -1), jnp.argmax(allowed, -1), -1)
    return o.catalog_cross_entropy(scores, targets, item_mask=where)


def masked(function, **setting):
    return lambda scores, is_positive, where: function(scores, is_positive, where=where, **setting)


def paths(scores):
    """Two tokens a candidate: the first is shared by three, the second is its own."""
    number = jnp.broadcast_to(jnp.arange(GROUP), scores.shape)
    return jnp.stack([number // 3, number], -1)


PER_GROUP = {
    "soft_top_k": lambda s, p, w: o.soft_top_k(s, 2.5, where=w),
    "descending_ranks": lambda s, p, w: o.descending_ranks(s, where=w),
    "negative_ranks": masked(o.negative_ranks),
    "tawin_weights": masked(o.tawin_weights, anchor=1, mass=1.5),
    "window_weights": masked(o.window_weights, start=1, size=2),
    "group_advantages": lambda s, p, w: o.group_advantages(s, where=w),
    "population_advantages": lambda s, p, w: o.group_advantages(s, std="population", eps=0.0, where=w),
    "rloo_advantages": lambda s, p, w: o.rloo_advantages(s, where=w),
    "tawin_advantages": lambda s, p, w: o.tawin_advantages(p, scores=s, anchor=1, where=w),
    "auc": masked(o.auc),
    "partial_auc": masked(o.partial_auc, low=0.1, high=0.7),
    "opauc": masked(o.opauc, beta=0.5),
    "wpauc": masked(o.wpauc, alpha=0.2, d=0.2),
    "tpauc": masked(o.tpauc, min_tpr=0.3, max_fpr=0.5),
    "llpauc": masked(o.llpauc, alpha=0.5, beta=0.5, normalize=False),
    "recall_at_k": masked(o.recall_at_k, k=2),
    "ndcg_at_k": masked(o.ndcg_at_k, k=2),
    "ranking_reward": masked(o.ranking_reward),
    "cosine_reward": lambda s, p, w: o.cosine_reward(jnp.stack([s, p], -1), jnp.ones((*s.shape[:-1], 2)), where=w),
    "gradient_sizes": lambda s, p, w: o.gradient_sizes(p - 0.3, s, where=w),
    "sibling_advantages": lambda s, p, w: o.sibling_advantages(s, paths(s), where=jnp.stack([w, w], -1)),
}
PER_BATCH = {
    **{kind: policy(kind) for kind in ("grpo", "dapo", "gspo", "dr_grpo")},
    "llpauc_loss": llpauc_loss,
    "llpauc_pairwise_loss": masked(o.llpauc_pairwise_loss, alpha=0.5, beta=0.5),
    "opauc_top_loss": opauc_of_halves(o.opauc_top_loss, beta=0.5),
    "opauc_cvar_loss": opauc_of_halves(o.opauc_cvar_loss, beta=0.5),
    "opauc_kl_loss": opauc_of_halves(o.opauc_kl_loss, temperature=0.1),
    "softmax_dpo_loss": dpo,
    "catalog_cross_entropy": cross_entropy,
}
ALL = PER_GROUP | PER_BATCH


def degenerate_groups():
    """(scores, is_positive, where): ordinary, no positive, no negative, one candidate, none, and all scores equal."""
    scores = np.random.default_rng(0).normal(size=(7, GROUP)).astype(np.float32)
    scores[6] = 0.5
    is_positive = np.arange(GROUP) == np.array([[1], [-1], [0], [1], [3], [-1], [2]])
    is_positive[2] = True
    where = np.ones((7, GROUP), bool)
    where[3] = np.arange(GROUP) == 1
    where[4] = where[5] = False
    return scores, is_positive, where


@functools.cache
def value_and_slope(name):
    """jitted (outputs, gradient of their sum with respect to the scores)."""

    def summed(scores, is_positive, where):
        outputs = ALL[name](scores, is_positive, where)
        return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(outputs)), outputs

    def run(scores, is_positive, where):
        (_, outputs), slope = jax.value_and_grad(summed, has_aux=True)(scores, is_positive, where)
        return outputs, slope

    return jax.jit(run)


def assert_finite(name, arrays):
    outputs, slope = value_and_slope(name)(*arrays)
    for leaf in [*jax.tree.leaves(outputs), slope]:
        assert bool(jnp.all(jnp.isfinite(leaf.astype(jnp.float32)))), (name, leaf)
    return outputs, slope


@pytest.mark.parametrize("name", ALL)
def test_degenerate_groups_are_finite_and_masked_entries_inert(name):
    scores, is_positive, where = degenerate_groups()
    outputs, slope = assert_finite(name, (scores, is_positive, where))
    assert np.all(np.asarray(slope)[~where] == 0)
    poisoned = np.where(where, scores, np.nan).astype(np.float32)
    poisoned_outputs, poisoned_slope = value_and_slope(name)(poisoned, is_positive, where)
    jax.tree.map(np.testing.assert_array_equal, poisoned_outputs, outputs)
    np.testing.assert_array_equal(poisoned_slope, slope)
    for leaf in jax.tree.leaves(outputs):
        assert leaf.dtype in (jnp.float32, jnp.int32)


flags = st.lists(st.booleans(), min_size=7 * GROUP, max_size=7 * GROUP)


@settings(deadline=None, max_examples=25)
@given(flags, flags, st.integers(0, 2**16))
def test_any_masks_are_finite(is_positive, where, seed):
    scores = np.random.default_rng(seed).integers(-3, 3, size=(7, GROUP)).astype(np.float32)
    arrays = scores, np.reshape(is_positive, (7, GROUP)), np.reshape(where, (7, GROUP))
    for name in ("grpo", "gspo", "soft_top_k", "population_advantages", "opauc_kl_loss", "tpauc", "ndcg_at_k"):
        assert_finite(name, arrays)


@pytest.mark.parametrize("name", PER_GROUP)
def test_vmap_equals_leading_axes(name):
    arrays = degenerate_groups()
    doubled = [np.stack([array, array[::-1]]) for array in arrays]
    mapped = jax.jit(jax.vmap(jax.vmap(PER_GROUP[name])))(*doubled)
    direct = jax.jit(PER_GROUP[name])(*doubled)
    np.testing.assert_allclose(mapped, direct, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["soft_top_k", "tawin_weights", "group_advantages", "auc", "grpo", "opauc_top_loss"])
def test_bfloat16_is_read_and_float32_returned(name):
    """The same numbers as float32 inputs give: nothing is summed in 8 bits."""
    scores, is_positive, where = degenerate_groups()
    rounded = jnp.asarray(scores, jnp.bfloat16)
    outputs, slope = assert_finite(name, (rounded, is_positive, where))
    assert slope.dtype == jnp.bfloat16
    if name not in ("grpo", "opauc_top_loss"):  # the test's own scores / 2 and log-prob shifts round in bfloat16
        expected, _ = value_and_slope(name)(rounded.astype(jnp.float32), is_positive, where)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), outputs, expected)
    for leaf in jax.tree.leaves(outputs):
        assert leaf.dtype == jnp.float32


def test_shard_map_on_four_devices():
    """The test below once more: the number of host devices is fixed when JAX starts, so in a process of its own."""
    test = f"{__file__}::test_shard_map_sums_are_those_of_the_batch"
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_shard_map_sums_are_those_of_the_batch():
    """Each device sees its users and adds its sums: loss, metrics and gradient are those of one device."""
    devices = len(jax.devices())
    users = 4 * devices
    rng = np.random.default_rng(0)
    logps = rng.normal(size=(users, GROUP, TOKENS)).astype(np.float32)
    where = rng.random((users, GROUP)) < 0.7
    rewards = (np.arange(GROUP) == rng.integers(0, GROUP, size=(users, 1))).astype(np.float32)

    def sums(logps, rewards, where):
        scores = jax.lax.stop_gradient(logps.sum(-1))
        advantages = o.tawin_advantages(rewards, scores=scores, anchor=1, where=where)
        return o.policy_loss_sums(logps, advantages, old_logps=logps * 0.9, where=where)

    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = PartitionSpec("data")

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(rows, rows, rows), out_specs=PartitionSpec())
    def sharded(logps, rewards, where):
        return jax.lax.psum(sums(logps, rewards, where), "data")

    def loss(function):
        return jax.jit(jax.value_and_grad(lambda logps: function(logps, rewards, where).means(), has_aux=True))(logps)

    (value, metrics), slope = loss(sharded)
    (expected, expected_metrics), expected_slope = loss(sums)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-6, atol=1e-8)
    for name, metric in metrics.items():
        np.testing.assert_allclose(metric, expected_metrics[name], rtol=1e-6)
