"""Advantages and losses of single tokens, against loops and at their limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import bounded_negatives, policy_loss, prefix_loss, sibling_advantages

RNG = np.random.default_rng(0)


def slow_siblings(rewards, nodes, where):
    """By the words of the definition."""
    out = np.zeros(nodes.shape)
    for g, t in zip(*np.nonzero(where), strict=True):
        parent = nodes[g, t - 1] if t else None
        value = {}
        for node in set(nodes[where[:, t], t]):
            through = where[:, t] & (nodes[:, t] == node)
            if t == 0 or nodes[np.argmax(through), t - 1] == parent:
                value[node] = rewards[through].mean()
        values = np.array(list(value.values()))
        if values.std() > 0:
            out[g, t] = (value[nodes[g, t]] - values.mean()) / (values.std() + 1e-4)
    return out


def test_siblings_are_those_of_the_definition():
    first = RNG.integers(0, 3, 12)
    second = 10 + first * 4 + RNG.integers(0, 3, 12)
    nodes = np.stack([first, second, 100 + np.arange(12)], 1)
    where = np.ones((12, 3), bool)
    where[4, 2] = where[7] = False
    rewards = (np.arange(12) % 5 == 0).astype(np.float32)
    found = sibling_advantages(rewards, nodes, where=where)
    np.testing.assert_allclose(found, slow_siblings(rewards, nodes, where), atol=1e-5)
    assert np.abs(found).max() > 0.5
    assert not np.asarray(sibling_advantages(np.ones(12), nodes)).any()  # equal rewards teach nothing
    alone = sibling_advantages(np.eye(1, 4)[0], np.arange(8).reshape(1, 8).repeat(4, 0))  # one path: no sibling
    assert not np.asarray(alone).any()


def test_depth_one_is_a_group():
    """With one token an item all candidates are siblings: GRPO's advantages with the population's deviation."""
    rewards = (np.arange(6) == 2).astype(np.float32)
    found = np.asarray(sibling_advantages(rewards, np.arange(6)[:, None]))[:, 0]
    np.testing.assert_allclose(found, (rewards - rewards.mean()) / (rewards.std() + 1e-4), rtol=1e-5)


def test_a_negative_is_bounded_and_a_positive_is_not():
    p = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]], np.float32)
    found = np.asarray(bounded_negatives(np.array([1.0, -1.0]), np.log(p)))
    np.testing.assert_allclose(found, [[1, 1, 1], [-1, -1, -1 / 9]], rtol=1e-5)
    np.testing.assert_allclose(bounded_negatives(np.full((2, 3), -2.0), np.log(p))[1], [-2, -2, -2 / 9], rtol=1e-5)


def test_bounded_negatives_are_the_papers_ratio():
    """The gradient of pi / max(pi_old, 1 - sg(pi)) * A at pi = pi_old."""
    logps = jnp.log(jnp.array([[[0.7, 0.2]], [[0.05, 0.4]]]))
    advantages = jnp.array([[-1.5], [-0.5]])

    def papers(lp):
        fixed = jax.lax.stop_gradient(jnp.exp(lp))
        return -(jnp.exp(lp) / jnp.maximum(fixed, 1 - fixed) * advantages[..., None]).mean()

    def ours(lp):
        return policy_loss(lp, bounded_negatives(advantages, lp))[0]

    np.testing.assert_allclose(jax.grad(ours)(logps), jax.grad(papers)(logps), rtol=1e-5)


@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_equal_advantages_of_tokens_are_those_of_the_candidate(kind):
    logps, advantages = RNG.normal(size=(2, 4, 3)).astype(np.float32), RNG.normal(size=(2, 4)).astype(np.float32)
    mask = np.arange(3) < np.array([3, 2, 1, 0])[:, None]
    mask = np.broadcast_to(mask, logps.shape)
    repeated = np.repeat(advantages[..., None], 3, -1)
    whole, tokens = (
        jax.grad(lambda lp, a=a: policy_loss(lp, a, token_mask=mask, kind=kind)[0])(logps)
        for a in (advantages, repeated)
    )
    np.testing.assert_array_equal(whole, tokens)
    with pytest.raises(ValueError, match="one ratio for a sequence"):
        policy_loss(logps, repeated, kind="gspo")


def test_the_worst_prefix_weighs_most():
    losses = np.array([[1.0, 3.0, 2.0], [2.0, 1.0, 9.0]], np.float32)
    where = np.array([[True, True, True], [True, True, False]])
    means = np.array([1.5, (2.0 + 1.5) / 2, 2.0])  # of the first 1, 2 and 3 tokens
    weight = means * np.exp(0.7 * means)
    np.testing.assert_allclose(
        prefix_loss(losses, eta=0.7, where=where), (weight / weight.sum() * means).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(prefix_loss(losses, eta=500.0, where=where), 2.0, rtol=1e-5)
    flat = np.full((2, 3), 0.4, np.float32)
    np.testing.assert_allclose(prefix_loss(flat), 0.4, rtol=1e-6)
    slope = jax.grad(prefix_loss)(flat)  # the weights are constants: a third each, of means over two rows
    np.testing.assert_allclose(slope[0], [(1 + 1 / 2 + 1 / 3) / 6, (1 / 2 + 1 / 3) / 6, 1 / 3 / 6], rtol=1e-5)
    nothing = jax.value_and_grad(lambda x: prefix_loss(x, where=np.zeros((2, 3), bool)))(losses)
    assert nothing[0] == 0 and not np.asarray(nothing[1]).any()
