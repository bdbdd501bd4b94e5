"""Rewards against loops, and against the numbers that their papers give."""

import numpy as np
import pytest

from wpauc_jax.objectives import cosine_reward, group_advantages, ranking_reward

SIXTEEN = np.linspace(1, 0, 16, dtype=np.float32)


def test_a_group_of_sixteen_has_the_published_numbers():
    """-.164 for a miss at the top and -.040 for one at the bottom."""
    hit = np.arange(16) == 7
    reward = np.asarray(ranking_reward(SIXTEEN, hit))
    discount = 1 / np.log2(np.arange(16) + 2)
    np.testing.assert_allclose(reward, np.where(hit, 1, -discount / discount.sum()), rtol=1e-5)
    assert reward[0] == pytest.approx(-0.164, abs=5e-4) and reward[15] == pytest.approx(-0.040, abs=5e-4)


def test_the_gate_and_the_mask():
    hit = np.zeros((2, 16), bool)
    hit[1, 15] = True
    where = np.ones((2, 16), bool)
    where[1, 15] = False  # the only hit does not count
    assert not np.asarray(ranking_reward(np.stack([SIXTEEN] * 2), hit, where=where)).any()
    short = np.arange(16) < 4
    reward = np.asarray(ranking_reward(SIXTEEN, np.arange(16) == 2, where=short))
    discount = 1 / np.log2(np.arange(4) + 2)
    np.testing.assert_allclose(reward[:4], np.where(np.arange(4) == 2, 1, -discount / discount.sum()), rtol=1e-5)
    assert not reward[4:].any()


def test_the_order_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    order, hit = rng.permutation(16), np.arange(16) == 3
    straight, mixed = (np.asarray(ranking_reward(SIXTEEN[o], hit[o])) for o in (np.arange(16), order))
    np.testing.assert_allclose(mixed, straight[order], rtol=1e-6)


def test_cosines_and_a_shift_that_means_nothing():
    rng = np.random.default_rng(1)
    items, target = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 3))
    items[0, 0], items[1, 2] = 2 * target[0], 0
    reward = np.asarray(cosine_reward(items, target))
    assert reward[0, 0] == pytest.approx(1, abs=1e-6) and reward[1, 2] == 0
    expected = items[1, 1] @ target[1] / np.linalg.norm(items[1, 1]) / np.linalg.norm(target[1])
    assert reward[1, 1] == pytest.approx(expected, rel=1e-5)
    # A recommender's log-probabilities and its logits differ by a number for each user, which advantages take out.
    np.testing.assert_allclose(
        group_advantages(reward), group_advantages(reward + np.array([[3.0], [-1.0]], np.float32)), atol=1e-4
    )
    with pytest.raises(ValueError, match="target has shape"):
        cosine_reward(items, target[0])
