"""gBCE against a plain loop, and at its limits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wpauc_jax.objectives import gbce_loss

DRAW = np.random.default_rng(0)
POSITIVES, NEGATIVES = DRAW.normal(size=3).astype(np.float32), DRAW.normal(size=(3, 4)).astype(np.float32)
VALID = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)


def plain(calibration: float, share: float) -> tuple[float, int]:
    """-log(sigmoid(s)^beta) - sum log(1 - sigmoid(s_j)), over the number of terms, row by row."""
    alpha, rows = share, []
    beta = alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)  # as the paper writes it
    for positive, negatives, valid in zip(POSITIVES, NEGATIVES, VALID, strict=True):
        kept = [float(s) for s, one in zip(negatives, valid, strict=True) if one]
        if kept:
            loss = -beta * math.log(1 / (1 + math.exp(-positive)))
            loss -= sum(math.log(1 - 1 / (1 + math.exp(-s))) for s in kept)
            rows.append(loss / (len(kept) + 1))
    return sum(rows), len(rows)


@pytest.mark.parametrize(("calibration", "share"), [(0.0, 0.1), (0.75, 0.1), (1.0, 0.5), (0.75, 1.0)])
def test_it_is_the_papers_formula(calibration, share):
    found = gbce_loss(POSITIVES, NEGATIVES, sampled_share=share, calibration=calibration, where_negative=VALID)
    wanted, count = plain(calibration, share)
    np.testing.assert_allclose(found.sum, wanted, rtol=1e-6)
    assert found.count == count == 2


def test_what_does_not_count_has_no_gradient_and_may_be_anything():
    negatives = jnp.where(VALID, NEGATIVES, jnp.nan)

    def loss(positives, negatives):
        where = np.array([True, False, True])
        return gbce_loss(positives, negatives, sampled_share=0.1, where=where, where_negative=VALID).mean()

    value, (of_positives, of_negatives) = jax.value_and_grad(loss, argnums=(0, 1))(POSITIVES, negatives)
    assert np.isfinite(value) and of_positives[0] < 0 < of_negatives[0].min()
    assert not of_positives[1:].any() and not of_negatives[1:].any()


def test_bad_arguments():
    with pytest.raises(ValueError, match="sampled_share"):
        gbce_loss(POSITIVES, NEGATIVES, sampled_share=0.0)
    with pytest.raises(ValueError, match="calibration"):
        gbce_loss(POSITIVES, NEGATIVES, sampled_share=0.1, calibration=1.5)
    with pytest.raises(ValueError, match="positives"):
        gbce_loss(POSITIVES[:2], NEGATIVES, sampled_share=0.1)
