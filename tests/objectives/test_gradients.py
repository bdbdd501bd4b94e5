"""Which AUC each way of choosing negatives optimises: gradients of the loss against those of the pairwise objective.

The policy is a softmax over a small catalogue, so the pairwise objectives are differentiated through the whole model.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import (
    group_advantages,
    policy_loss,
    tawin_advantages,
    window_weights,
)

NUM_ITEMS, WIDTH, NUM_TOKENS = 12, 5, 3
EXACT = {"std": "population", "eps": 0.0}  # the advantages of Lemma 3.1, without the safety of eps


def token_logps(parameters, items):
    """log-probs [G, C] of items under a bilinear model: C softmaxes over the catalogue."""
    features, user = parameters
    return jax.nn.log_softmax(features @ user, axis=0)[jnp.asarray(items)]


@pytest.fixture
def parameters():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        yield jnp.asarray(rng.normal(size=(NUM_ITEMS, WIDTH))), jnp.asarray(rng.normal(size=(WIDTH, NUM_TOKENS)))


def pairwise_objective(parameters, positives, negatives):
    """Mean over pairs of mean-token log-prob differences: AUC with an identity surrogate on this set of negatives."""
    value = token_logps(parameters, [*positives, *negatives]).mean(-1)
    return value[: len(positives)].mean() - value[len(positives) :].mean()


def loss(parameters, positives, negatives, reweight):
    items = np.array([*positives, *negatives])
    logps = token_logps(parameters, items)
    rewards = (np.arange(len(items)) < len(positives)).astype(float)
    advantages = reweight(rewards, jax.lax.stop_gradient(logps.sum(-1)))
    return policy_loss(logps[None], advantages[None])[0]


def plain(rewards, scores):
    del scores
    return group_advantages(rewards, **EXACT)


def assert_proportional(parameters, positives, group, window, reweight):
    """-grad(loss) on the group is sqrt(p (1 - p)) times the gradient of the pairwise objective on the window."""
    p = len(positives) / (len(positives) + len(group))
    actual = jax.jit(jax.grad(lambda q: -loss(q, positives, group, reweight)))(parameters)
    expected = jax.jit(jax.grad(lambda q: np.sqrt(p * (1 - p)) * pairwise_objective(q, positives, window)))(parameters)
    for got, wanted in zip(actual, expected, strict=True):
        assert np.abs(wanted).max() > 1e-3
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def hardest(parameters, positives):
    """All negatives by descending score."""
    scores = np.asarray(token_logps(parameters, np.arange(NUM_ITEMS)).sum(-1))
    return [item for item in np.argsort(-scores) if item not in positives]


@pytest.mark.parametrize("positives", [[4], [4, 7, 1]])
def test_random_negatives_give_auc(parameters, positives):
    others = [item for item in range(NUM_ITEMS) if item not in positives]
    group = np.random.default_rng(1).choice(others, size=6, replace=False).tolist()
    assert_proportional(parameters, positives, group, group, plain)


def test_random_negatives_give_auc_of_the_catalogue_on_average(parameters):
    """Averaged over every possible draw of 2 negatives, the group's gradient is that of AUC over all negatives."""
    others = [item for item in range(NUM_ITEMS) if item != 4]
    draws = list(itertools.combinations(others, 2))

    def mean_loss(q):
        logps = token_logps(q, np.array([[4, *draw] for draw in draws]).ravel()).reshape(len(draws), 3, NUM_TOKENS)
        rewards = np.tile([1.0, 0.0, 0.0], (len(draws), 1))
        return policy_loss(logps, group_advantages(rewards, **EXACT))[0]

    actual = jax.jit(jax.grad(lambda q: -mean_loss(q)))(parameters)
    expected = jax.jit(jax.grad(lambda q: np.sqrt(2 / 9) * pairwise_objective(q, [4], others)))(parameters)
    for got, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("positives", [[4], [4, 7, 1]])
def test_top_negatives_give_opauc(parameters, positives):
    top = hardest(parameters, positives)[:5]
    assert_proportional(parameters, positives, top, top, plain)


def test_opauc_window_of_random_negatives_gives_opauc(parameters):
    """A whole catalogue as the group, reweighted to its top 5, is OPAUC too; the factor is the group's."""
    group = hardest(parameters, [4])[::-1]

    def reweight(rewards, scores):
        return group_advantages(rewards, **EXACT) * window_weights(scores, rewards, start=0, size=5)

    assert_proportional(parameters, [4], group, group[-5:], reweight)


@pytest.mark.parametrize("anchor", [0, 2, 5])
def test_tawin_at_small_temperature_gives_the_hard_window(parameters, anchor):
    group = hardest(parameters, [4])[:9]

    def reweight(rewards, scores):
        return tawin_advantages(rewards, scores=scores, anchor=anchor, temperature=1e-3, **EXACT)

    assert_proportional(parameters, [4], group, [group[anchor]], reweight)


def test_lemma_3_1_away_from_the_rollout_policy():
    """With ratios around the clip bounds: sqrt(p (1 - p)) E[s+ - s-], s+ = mean min(ratio, 1 + eps)."""
    rng = np.random.default_rng(2)
    n_pos, group, eps = 3, 8, 0.2
    with jax.enable_x64(True):
        old = jnp.asarray(rng.normal(size=(group, NUM_TOKENS)) - 3)
        logps = old + jnp.asarray(rng.normal(size=old.shape) * 0.3)
        rewards = (np.arange(group) < n_pos).astype(float)

        def lemma(logps):
            ratio = jnp.exp(logps - old)
            upper, lower = jnp.minimum(ratio, 1 + eps).mean(-1), jnp.maximum(ratio, 1 - eps).mean(-1)
            p = n_pos / group
            return np.sqrt(p * (1 - p)) * (upper[:n_pos].mean() - lower[n_pos:].mean())

        def objective(logps):
            advantages = group_advantages(rewards, **EXACT)
            return -policy_loss(logps[None], advantages[None], old_logps=old[None], clip_low=eps, clip_high=eps)[0]

        (actual, slope), (expected, wanted) = (jax.jit(jax.value_and_grad(f))(logps) for f in (objective, lemma))
        assert 0 < np.mean(np.asarray(wanted) == 0) < 1  # some tokens are clipped, some are not
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
        np.testing.assert_allclose(slope, wanted, rtol=0, atol=1e-14)
