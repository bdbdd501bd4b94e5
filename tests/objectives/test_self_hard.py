"""`self_hard_loss` (ILRec) against a plain loop, its limits, and its gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import self_hard_loss

DRAW = np.random.default_rng(0)
Z = DRAW.normal(size=(4, 7))
MIDDLE = DRAW.normal(size=(2, 4, 7)) + 0.5
Z[1, [2, 5]] = MIDDLE[:, 1, [2, 5]] = -np.inf
TARGETS = np.array([3, 0, 6, 1])


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def softmax(values):
    top = max(values)
    exps = [math.exp(v - top) for v in values]
    return [e / sum(exps) for e in exps]


def plain(row: int, weight: float, ratio: float, distillation: float) -> float:
    options = [v for v in range(7) if Z[row, v] > -np.inf]
    z = {v: Z[row, v] for v in options}
    mean = {v: (MIDDLE[0, row, v] + MIDDLE[1, row, v]) / 2 for v in options}
    target = TARGETS[row]
    hard = [v for v in options if v != target and mean[v] >= ratio * z[target]]
    pushed = dict(z)
    for v, share in zip(hard, softmax([mean[v] for v in hard]) if hard else [], strict=True):
        pushed[v] += weight * share
    loss = math.log(sum(math.exp(s) for s in pushed.values())) - z[target]
    last = softmax(list(z.values()))
    for middle in MIDDLE[:, row]:
        below = softmax([middle[v] for v in options])
        loss += distillation / 2 * sum(p * math.log(p / q) for p, q in zip(last, below, strict=True))
    return loss


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_it_is_its_plain_loop(x64, ratio):
    where = np.array([True, True, True, False])
    found = self_hard_loss(Z, MIDDLE, TARGETS, weight=0.7, ratio=ratio, distillation=0.3, where=where)
    assert found.count == 3
    np.testing.assert_allclose(found.sum, sum(plain(row, 0.7, ratio, 0.3) for row in range(3)), rtol=1e-10)


def test_without_weight_or_hard_negatives_it_is_cross_entropy(x64):
    entropy = -jnp.take_along_axis(jax.nn.log_softmax(jnp.asarray(Z)), TARGETS[:, None], axis=1).sum()
    for weight, middle in ((0.0, MIDDLE), (5.0, MIDDLE - 100)):
        found = self_hard_loss(Z, middle, TARGETS, weight=weight, distillation=0.0)
        np.testing.assert_allclose(found.sum, entropy, rtol=1e-12)


def test_a_harder_negative_is_pushed_harder_and_middle_layers_learn_by_distillation_alone(x64):
    z, middle = jnp.zeros((1, 4)), jnp.asarray([[[0.0, 0.1, 1.0, 3.0]]])

    def loss(z, middle, distillation):
        return self_hard_loss(z, middle, np.array([0]), weight=2.0, ratio=0.0, distillation=distillation).mean()

    of_last, of_middle = jax.grad(loss, argnums=(0, 1))(z, middle, 0.0)
    assert of_last[0, 0] < 0 < of_last[0, 1] < of_last[0, 2] < of_last[0, 3]
    assert not of_middle.any()
    again, of_middle = jax.grad(loss, argnums=(0, 1))(z, middle, 1.0)
    np.testing.assert_array_equal(of_last, again)
    wanted = jax.nn.softmax(middle[0, 0]) - 0.25  # of a divergence from evenly spread options
    np.testing.assert_allclose(of_middle[0, 0], wanted, atol=1e-12)


def test_gradients_are_finite_where_options_are_missing(x64):
    grads = jax.grad(lambda z, m: self_hard_loss(z, m, TARGETS).mean(), argnums=(0, 1))(
        jnp.asarray(Z), jnp.asarray(MIDDLE)
    )
    for found, options in ((grads[0], Z), (grads[1], MIDDLE)):
        assert np.isfinite(found).all() and not np.asarray(found)[np.isneginf(options)].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"weight": -1.0}, "weight=-1.0"), ({"ratio": -1.0}, "ratio=-1.0"), ({"distillation": -0.1}, "distillation=-0.1")],
)
def test_what_is_out_of_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        self_hard_loss(Z, MIDDLE, TARGETS, **settings)
    with pytest.raises(ValueError, match="middle has shape"):
        self_hard_loss(Z, MIDDLE[:, :2], TARGETS)
