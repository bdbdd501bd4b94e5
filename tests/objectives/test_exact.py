"""Closed forms of policy gradients against the sampled estimators whose expectation they are, and against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import exact_group_loss, gce_loss, group_advantages, policy_loss, rloo_advantages

LOGITS = np.float32([0.4, -0.3, 1.1, 0.0, -1.2, 0.7])
TARGET = 2  # p = .33


def closed_gradient(loss, logits=LOGITS):
    """The gradient with respect to the logits of a softmax, of a loss of the target's log-probability."""
    return jax.grad(lambda z: loss(jax.nn.log_softmax(z)[TARGET : TARGET + 1]).mean())(jnp.asarray(logits))


def sampled_gradient(advantages, groups, size, *, seed=0, parts=50):
    """The mean policy gradient over `groups` groups of `size` independent draws from the softmax.

    In parts whose mean is taken in float64: float32 loses the last of millions of small numbers that it adds up.
    """
    p = np.exp(LOGITS - LOGITS.max())
    items = np.random.default_rng(seed).choice(len(p), (parts, groups // parts, size), p=p / p.sum())

    def loss(logits, some):
        logps = jax.nn.log_softmax(logits)[some][..., None]
        return policy_loss(logps, advantages((some == TARGET).astype(jnp.float32)), kind="grpo")[0]

    gradient = jax.jit(jax.grad(loss))
    return np.mean([np.asarray(gradient(LOGITS, some), np.float64) for some in items], axis=0)


@pytest.mark.parametrize("std", ["sample", "population"])
def test_grpo_is_the_arcsine_in_expectation(std):
    """4 million draws, in groups large enough for the bias of a group's own standard deviation to be 2e-4."""
    sampled = sampled_gradient(lambda rewards: group_advantages(rewards, std=std, eps=0.0), 1000, 4096)
    closed = closed_gradient(lambda logps: exact_group_loss(logps, std=std))
    np.testing.assert_allclose(sampled, closed, atol=1e-3)
    assert np.abs(closed).max() > 0.3


@pytest.mark.parametrize(
    ("advantages", "share"),
    [(lambda rewards: group_advantages(rewards, std="none"), 1 - 1 / 8), (rloo_advantages, 1.0)],
    ids=["dr_grpo", "rloo"],
)
def test_without_the_deviation_it_is_the_probability_for_groups_of_any_size(advantages, share):
    sampled = sampled_gradient(advantages, 500_000, 8, seed=1)
    closed = closed_gradient(lambda logps: exact_group_loss(logps, std="none"))
    np.testing.assert_allclose(sampled, share * closed, atol=1e-3)
    assert np.abs(closed).max() > 0.2


def test_values_and_slopes_over_all_probabilities():
    p = np.float64([1e-12, 1e-4, 0.2, 0.5, 0.8, 0.999])
    logps = jnp.asarray(np.log(p), jnp.float32)
    arc = jax.vmap(jax.value_and_grad(lambda x: exact_group_loss(x[None]).mean()))(logps)
    np.testing.assert_allclose(arc[0], -2 * np.arcsin(np.sqrt(p)), rtol=2e-4)
    np.testing.assert_allclose(arc[1], -np.sqrt(p / (1 - p)), rtol=2e-3)
    for q in (0.25, 1.0, 2.0):
        value, slope = jax.vmap(jax.value_and_grad(lambda x, q=q: gce_loss(x[None], q=q).mean()))(logps)
        np.testing.assert_allclose(value, (1 - p**q) / q, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(slope, -(p**q), rtol=1e-4)


def test_the_q_family_goes_from_cross_entropy_to_the_expected_reward():
    logps = jnp.asarray([-0.1, -2.0, -9.0])
    np.testing.assert_allclose(gce_loss(logps, q=0.0).mean(), 11.1 / 3, rtol=1e-6)
    np.testing.assert_allclose(gce_loss(logps, q=1e-5).mean(), 11.1 / 3, rtol=1e-3)
    by_reward = exact_group_loss(logps, std="none").mean()
    np.testing.assert_allclose(gce_loss(logps, q=1.0).mean(), 1 + by_reward, rtol=1e-6)


@pytest.mark.parametrize("loss", [exact_group_loss, lambda logps, **more: gce_loss(logps, q=0.5, **more)])
def test_what_does_not_count_has_no_gradient_and_nothing_is_infinite(loss):
    logps = jnp.asarray([-1.0, 0.0, -200.0, -jnp.inf, jnp.nan])
    where = jnp.asarray([True, True, True, True, False])
    total = loss(logps, where=where)
    assert float(total.count) == 3 and np.isfinite(total.sum)
    grads = jax.grad(lambda x: loss(x, where=where).sum)(logps)
    assert np.isfinite(grads).all() and (np.asarray(grads[3:]) == 0).all() and grads[0] < 0
    alone = loss(logps[:1])
    np.testing.assert_allclose(alone.sum, loss(jnp.asarray([-1.0, -jnp.inf])).sum)


def test_a_softmax_that_has_reached_one_has_no_gradient():
    grads = closed_gradient(exact_group_loss, np.where(np.arange(6) == TARGET, 200.0, 0.0))
    np.testing.assert_array_equal(grads, 0)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="std"):
        exact_group_loss(jnp.zeros(2), std="mean")
    with pytest.raises(ValueError, match="q"):
        gce_loss(jnp.zeros(2), q=-0.1)
    with pytest.raises(ValueError, match="the mask has shape"):
        gce_loss(jnp.zeros(2), q=0.5, where=jnp.ones(3, bool))
