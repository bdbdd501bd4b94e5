"""The paired bootstrap against a slow plain version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_ranks import make_ranks
from wpauc_jax.evaluation.bootstrap import bootstrap_means, paired_bootstrap
from wpauc_jax.evaluation.ranks import Ranks, RanksError


def test_bootstrap_draws_equal_drawing_users_one_by_one():
    rng = np.random.default_rng(1)
    count = rng.integers(1, 4, 40)
    total = rng.integers(-2, 3, 40).astype(float)
    draws = bootstrap_means(total, count, 40_000, seed=0)
    picked = rng.integers(0, 40, (40_000, 40))
    plain = total[picked].sum(1) / count[picked].sum(1)
    spread = plain.std()
    # Means of 40,000 draws are known to 1/200 of the spread, the spread and the quantiles to about 1/100 of it.
    assert abs(draws.mean() - plain.mean()) < 0.03 * spread
    assert draws.std() == pytest.approx(spread, rel=0.03)
    np.testing.assert_allclose(np.quantile(draws, [0.1, 0.9]), np.quantile(plain, [0.1, 0.9]), atol=0.05 * spread)


def test_a_clear_gain_a_draw_and_the_sign():
    rng = np.random.default_rng(2)
    a = make_ranks(rng.integers(0, 20, 400))
    better = make_ranks(np.maximum(a.rank - 5, 0))
    gain = paired_bootstrap(a, better, "recall@10", samples=2000)
    assert gain.difference == pytest.approx(gain.mean_b - gain.mean_a, abs=1e-12)
    assert 0 < gain.low < gain.difference < gain.high and gain.p_value < 0.002
    loss = paired_bootstrap(better, a, "recall@10", samples=2000)
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low), abs=1e-12)
    same = paired_bootstrap(a, a, "ndcg@10", samples=100)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(300):
        a = make_ranks(np.where(rng.random(150) < 0.3, 0, -1))
        b = make_ranks(np.where(rng.random(150) < 0.4, 0, -1))
        found = paired_bootstrap(a, b, "recall@1", samples=400, seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert 0.91 <= covered / 300 <= 0.985  # 95% +- 3 standard errors of 300 trials


def test_seeds_are_averaged_per_sample_and_order_does_not_matter():
    rng = np.random.default_rng(4)
    runs = [make_ranks(rng.integers(-1, 20, 60)) for _ in range(3)]
    shuffled = []
    for run in runs:
        order = rng.permutation(60)
        shuffled.append(make_ranks(run.rank[order], user=run.user[order], sample=run.sample[order]))
    base = make_ranks(rng.integers(-1, 20, 60))
    found = paired_bootstrap(base, runs, "ndcg@5", samples=200)
    assert found == paired_bootstrap([base], shuffled, "ndcg@5", samples=200)
    assert found.mean_b == pytest.approx(np.mean([run.mean("ndcg@5") for run in runs]), rel=1e-12)
    # The same run three times is one run.
    assert paired_bootstrap(base, [runs[0]] * 3, "recall@5", samples=200).high == pytest.approx(
        paired_bootstrap(base, runs[0], "recall@5", samples=200).high, abs=1e-12
    )


def test_other_samples_targets_or_users_are_refused():
    a = make_ranks([0, 1, 2])
    with pytest.raises(RanksError, match="A holds 3 samples and B 2, of which 1 are in both"):
        paired_bootstrap(a, make_ranks([0, 1], sample=[2, 9]), "recall@3")
    with pytest.raises(RanksError, match="A holds 3 samples and run 2 of B 2"):
        paired_bootstrap(a, [a, make_ranks([0, 1])], "recall@3")
    other = Ranks(a.sample, a.user, np.array([100, 150, 102]), a.rank, 20)
    with pytest.raises(RanksError, match="A and B disagree on the target of 1 samples, the first is 1"):
        paired_bootstrap(a, other, "recall@3")
    with pytest.raises(RanksError, match="disagree on the user of 2 samples"):
        paired_bootstrap(a, make_ranks([0, 1, 2], user=[0, 5, 6]), "recall@3")
    with pytest.raises(RanksError, match="side B"):
        paired_bootstrap(a, [], "recall@3")


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_bootstrap_is_a_function_of_the_seed(seed):
    rng = np.random.default_rng(seed)
    a, b = make_ranks(rng.integers(-1, 5, 12)), make_ranks(rng.integers(-1, 5, 12))
    assert paired_bootstrap(a, b, "recall@3", samples=50, seed=seed) == paired_bootstrap(
        a, b, "recall@3", samples=50, seed=seed
    )
