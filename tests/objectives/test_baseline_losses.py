"""OPAUC surrogates, S-DPO, softmax cross-entropy and LLPAUC's minimax loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import (
    LlpaucMax,
    LlpaucMin,
    catalog_cross_entropy,
    llpauc_loss,
    llpauc_pairwise_loss,
    opauc_cvar_loss,
    opauc_kl_loss,
    opauc_top_loss,
    softmax_dpo_loss,
)

SURROGATES = {
    "squared_hinge": lambda d: np.maximum(1 - d, 0) ** 2,
    "logistic": lambda d: np.log1p(np.exp(-d)),
    "linear": lambda d: -d,
}
ROWS, P, N = 3, 2, 8


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def make_scores(seed=0):
    """(positives, negatives, where_positive, where_negative); the last row has no valid negative."""
    rng = np.random.default_rng(seed)
    where_positive, where_negative = np.ones((ROWS, P), bool), np.ones((ROWS, N), bool)
    where_positive[0, 1] = False
    where_negative[1, 2:4] = False
    where_negative[2] = False
    return rng.normal(size=(ROWS, P)), rng.normal(size=(ROWS, N)), where_positive, where_negative


def pairs(surrogate, positives, negatives, where_positive, where_negative):
    """Losses of each counted positive against its valid negatives, hardest first."""
    return [
        np.sort(SURROGATES[surrogate](positives[row, i] - negatives[row][where_negative[row]]))[::-1]
        for row in range(ROWS)
        for i in range(P)
        if where_positive[row, i] and where_negative[row].any()
    ]


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("beta", [0.1, 0.4, 1.0])
def test_top_loss_averages_the_hardest_negatives(x64, surrogate, beta):
    positives, negatives, where_positive, where_negative = data = make_scores()
    masks = {"where_positive": where_positive, "where_negative": where_negative}
    result = opauc_top_loss(positives, negatives, beta=beta, surrogate=surrogate, **masks)
    expected = 0.0
    for losses in pairs(surrogate, *data):
        end = beta * len(losses)
        expected += np.sum(losses * np.clip(end - np.arange(len(losses)), 0, 1)) / end
    np.testing.assert_allclose(result.sum, expected, rtol=1e-12)
    assert int(result.count) == 3


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_cvar_at_its_minimum_is_the_top_loss(x64, surrogate):
    """The loss is convex and piecewise linear in the threshold, so its minimum is at one of the pair losses."""
    beta = 0.4
    positives, negatives, where_positive, where_negative = data = make_scores(1)
    masks = {"where_positive": where_positive, "where_negative": where_negative}
    thresholds, best = np.zeros((ROWS, P)), iter(pairs(surrogate, *data))
    for row, i in [(0, 0), (1, 0), (1, 1)]:
        losses = next(best)
        thresholds[row, i] = losses[int(np.ceil(beta * len(losses))) - 1]

    def cvar(thresholds):
        result = opauc_cvar_loss(positives, negatives, thresholds, beta=beta, surrogate=surrogate, **masks)
        return result.mean()

    top = opauc_top_loss(positives, negatives, beta=beta, surrogate=surrogate, **masks).mean()
    np.testing.assert_allclose(cvar(thresholds), top, rtol=1e-12)
    for shift in (-0.3, -0.01, 0.01, 0.3):
        assert cvar(thresholds + shift) > top + 1e-4


def test_kl_loss_definition_and_limits(x64):
    positives, negatives, where_positive, where_negative = data = make_scores(2)
    masks = {"where_positive": where_positive, "where_negative": where_negative}

    def kl(temperature):
        return opauc_kl_loss(positives, negatives, temperature=temperature, surrogate="logistic", **masks).mean()

    groups = pairs("logistic", *data)
    expected = np.mean([0.3 * np.log(np.mean(np.exp(losses / 0.3))) for losses in groups])
    np.testing.assert_allclose(kl(0.3), expected, rtol=1e-12)
    np.testing.assert_allclose(kl(1e-4), np.mean([losses[0] for losses in groups]), atol=1e-3)
    np.testing.assert_allclose(kl(1e6), np.mean([losses.mean() for losses in groups]), atol=1e-5)


def test_linear_kl_loss_is_softmax_at_its_temperature(x64):
    """T log mean exp((s_j - s_i) / T), over the negatives with the positive among them, is cross-entropy + const."""
    rng = np.random.default_rng(3)
    scores, target, temperature = rng.normal(size=(1, N)), 2, 0.7

    def by_kl(scores):
        positive = scores[:, target : target + 1]
        return opauc_kl_loss(positive, scores, temperature=temperature, surrogate="linear").mean() / temperature

    def by_softmax(scores):
        return catalog_cross_entropy(scores / temperature, np.array([target])).mean()

    np.testing.assert_allclose(by_kl(scores) + np.log(N), by_softmax(scores), rtol=1e-12)
    slopes = jax.jit(lambda scores: (jax.grad(by_kl)(scores), jax.grad(by_softmax)(scores)))(scores)
    np.testing.assert_allclose(*slopes, atol=1e-12)


def test_softmax_dpo(x64):
    rng = np.random.default_rng(4)
    positive, ref_positive = rng.normal(size=(2, 4)) - 5
    negative, ref_negative = rng.normal(size=(2, 4, 3)) - 5
    where_negative = np.ones((4, 3), bool)
    where_negative[1, :2] = False  # a single negative: DPO
    where_negative[3] = False
    beta, expected = 0.5, []
    for row in range(3):
        h = beta * ((negative - ref_negative)[row] - (positive - ref_positive)[row])[where_negative[row]]
        expected.append(-np.log(1 / (1 + np.exp(np.log(np.sum(np.exp(h)))))))
    references = {"ref_positive_logps": ref_positive, "ref_negative_logps": ref_negative}
    result = softmax_dpo_loss(positive, negative, beta=beta, where_negative=where_negative, **references)
    np.testing.assert_allclose(result.mean(), np.mean(expected), rtol=1e-12)
    dpo = np.log1p(np.exp(-beta * ((positive - ref_positive)[1] - (negative - ref_negative)[1, 2])))
    np.testing.assert_allclose(expected[1], dpo, rtol=1e-12)
    where = np.array([False, True, False, True])
    one_row = softmax_dpo_loss(positive, negative, beta=beta, where=where, where_negative=where_negative, **references)
    np.testing.assert_allclose((one_row.sum, one_row.count), (dpo, 1), rtol=1e-12)


def test_softmax_dpo_does_not_overflow():
    loss = softmax_dpo_loss(
        np.float32([-2000.0]),
        np.float32([[-1.0, -1.0]]),
        ref_positive_logps=np.float32([0.0]),
        ref_negative_logps=np.zeros((1, 2), np.float32),
    )
    np.testing.assert_allclose(loss.mean(), 1999 + np.log(2), rtol=1e-6)


def test_catalog_cross_entropy(x64):
    scores = np.random.default_rng(5).normal(size=(4, 6))
    targets = np.array([2, -1, 5, 0])
    item_mask = np.ones((4, 6), bool)
    item_mask[0, [1, 4]] = False
    item_mask[2, 5] = False  # the target competes all the same
    where = np.array([True, True, True, False])
    first = np.log(np.sum(np.exp(scores[0, [0, 2, 3, 5]]))) - scores[0, 2]
    third = np.log(np.sum(np.exp(scores[2]))) - scores[2, 5]
    result = catalog_cross_entropy(scores, targets, item_mask=item_mask, where=where)
    np.testing.assert_allclose((result.sum, result.count), (first + third, 2), rtol=1e-12)
    beyond = catalog_cross_entropy(scores, np.array([6, 0, 0, 0]))
    assert np.isnan(beyond.sum)


ALPHA, BETA, SHARP = 0.5, 0.25, 1e5


def llpauc_problem():
    """Scores of 6 positives and 8 negatives, and the saddle point in closed form for alpha, beta above."""
    rng = np.random.default_rng(6)
    is_positive = np.arange(14) < 6
    scores = rng.permutation(np.linspace(-2, 2, 14))
    p = 1 / (1 + np.exp(-scores))
    top_positive, top_negative = np.sort(p[:6])[::-1][:4], np.sort(p[6:])[::-1][:3]
    a, b = top_positive[:3].mean(), top_negative[:2].mean()
    gamma = b - a
    gains = -((top_positive - a) ** 2) + 2 * (1 + gamma) * top_positive
    losses = (top_negative - b) ** 2 + 2 * (1 + gamma) * top_negative
    minimised = LlpaucMin(a, b, negative_threshold=losses[1:].mean())
    maximised = LlpaucMax(gamma, positive_threshold=gains[2:].mean())
    pairwise = np.mean((1 - (top_positive[:3, None] - top_negative[None, :2])) ** 2) - 1
    return scores, is_positive, minimised, maximised, pairwise


def test_llpauc_loss_at_the_saddle_is_the_pairwise_square_loss(x64):
    scores, is_positive, minimised, maximised, pairwise = llpauc_problem()

    def loss(scores, minimised, maximised):
        return llpauc_loss(scores, is_positive, minimised, maximised, alpha=ALPHA, beta=BETA, sharpness=SHARP)

    value, slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(scores, minimised, maximised)
    np.testing.assert_allclose(value, pairwise, atol=1e-9)
    assert np.abs(jax.tree.leaves(slopes[1])[:3]).max() < 1e-9  # a, b and the threshold are stationary
    assert np.abs(jax.tree.leaves(slopes[2])).max() < 1e-9

    def pairwise_square(scores):
        p = jax.nn.sigmoid(scores)
        positive, negative = -jnp.sort(-p[:6])[:3], -jnp.sort(-p[6:])[:2]
        return jnp.mean((1 - (positive[:, None] - negative[None, :])) ** 2)

    np.testing.assert_allclose(slopes[0], jax.jit(jax.grad(pairwise_square))(scores), atol=1e-9)


def test_llpauc_pairwise_loss_is_the_saddle_value_and_its_gradient(x64):
    scores, is_positive, minimised, maximised, pairwise = llpauc_problem()
    rates = {"alpha": ALPHA, "beta": BETA}

    def saddle(scores):
        return llpauc_loss(scores, is_positive, minimised, maximised, sharpness=SHARP, **rates)

    value, slope = jax.value_and_grad(lambda scores: llpauc_pairwise_loss(scores, is_positive, **rates))(scores)
    np.testing.assert_allclose(value - 1, pairwise, rtol=1e-12)
    np.testing.assert_allclose(slope, jax.grad(saddle)(scores), atol=1e-9)


def test_llpauc_pairwise_loss_cuts_a_candidate_in_part_and_needs_both_classes(x64):
    logits = jax.scipy.special.logit(jnp.array([0.9, 0.5, 0.6, 0.2]))
    is_positive = np.array([True, True, False, False])
    value = llpauc_pairwise_loss(logits, is_positive, alpha=0.75, beta=0.5)  # 1.5 positives, 1 negative
    np.testing.assert_allclose(value, (1 * (1 - 0.3) ** 2 + 0.5 * (1 + 0.1) ** 2) / 1.5, rtol=1e-12)
    assert llpauc_pairwise_loss(logits, is_positive, alpha=1.0, beta=1.0, where=~is_positive) == 0


def test_llpauc_saddle_is_a_minimum_here_and_a_maximum_there(x64):
    scores, is_positive, minimised, maximised, pairwise = llpauc_problem()

    @jax.jit
    def loss(minimised, maximised):
        return llpauc_loss(scores, is_positive, minimised, maximised, alpha=ALPHA, beta=BETA, sharpness=SHARP)

    for sign in (-1, 1):  # the loss is flat between the scores next to a threshold, so those move further
        for name, step in (("a", 0.05), ("b", 0.05), ("negative_threshold", 0.6)):
            moved = minimised._replace(**{name: getattr(minimised, name) + sign * step})
            assert loss(moved, maximised) > pairwise + 1e-4, name
        for name, step in (("gamma", 0.05), ("positive_threshold", 0.6)):
            moved = maximised._replace(**{name: getattr(maximised, name) + sign * step})
            assert loss(minimised, moved) < pairwise - 1e-4, name
    for name in ("multiplier_a", "multiplier_b"):  # neither constraint binds, so a positive multiplier costs
        assert loss(minimised._replace(**{name: 0.1}), maximised) > pairwise + 1e-4


def test_llpauc_projection_and_masks(x64):
    outside = LlpaucMin(a=-0.2, b=1.4, negative_threshold=-3.0, multiplier_a=-1.0, multiplier_b=2.0)
    np.testing.assert_allclose(outside.project(), (0, 1, -3, 0, 2))
    np.testing.assert_allclose(LlpaucMax(gamma=-1.5, positive_threshold=4.0).project(), (-1, 4))
    scores, is_positive, minimised, maximised, _ = llpauc_problem()
    rates = {"alpha": ALPHA, "beta": BETA}
    padded = np.append(scores, np.nan), np.append(is_positive, True)
    where = np.arange(15) < 14
    masked = llpauc_loss(*padded, minimised, maximised, where=where, **rates)
    np.testing.assert_allclose(masked, llpauc_loss(scores, is_positive, minimised, maximised, **rates), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: opauc_top_loss(np.zeros((2, 1)), np.zeros((2, 3)), beta=0), "beta=0"),
        (lambda: opauc_top_loss(np.zeros((2, 1)), np.zeros((2, 3)), beta=0.5, surrogate="hinge"), "surrogate='hinge'"),
        (lambda: opauc_top_loss(np.zeros((1, 1)), np.zeros((2, 3)), beta=0.5), "leading axis"),
        (lambda: opauc_cvar_loss(np.zeros((2, 1)), np.zeros((2, 3)), np.zeros(2), beta=0.5), "thresholds has shape"),
        (lambda: opauc_kl_loss(np.zeros((2, 1)), np.zeros((2, 3)), temperature=0), "temperature=0"),
        (lambda: catalog_cross_entropy(np.zeros((2, 3)), np.zeros(3, int)), "targets has shape"),
        (lambda: llpauc_loss(np.zeros(3), np.zeros(3), LlpaucMin(), LlpaucMax(), alpha=1.5, beta=1), "alpha=1.5"),
        (lambda: llpauc_pairwise_loss(np.zeros(3), np.zeros(3), alpha=0.5, beta=0), "beta=0"),
        (
            lambda: softmax_dpo_loss(
                np.zeros(2), np.zeros((2, 3)), ref_positive_logps=np.zeros(3), ref_negative_logps=np.zeros((2, 3))
            ),
            "ref_positive_logps has shape",
        ),
    ],
)
def test_static_mistakes_raise(call, message):
    with pytest.raises(ValueError, match=message):
        call()
