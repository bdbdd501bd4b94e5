"""The paired bootstrap against a slow plain version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.test_ranks import make_ranks
from wpauc_jax.evaluation.bootstrap import (
    bootstrap_means,
    paired_bootstrap,
    seeded_bootstrap,
    seeded_error,
    users_and_seeds_draws,
)
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


def test_draws_of_users_and_seeds_equal_drawing_them_one_by_one():
    """S - 1 seeds and U users of a plain table, drawn by index."""
    rng = np.random.default_rng(5)
    count = rng.integers(1, 3, 30)
    totals = rng.normal(0.3, 1.0, (30, 4)) + rng.normal(0, 1.0, 4)
    draws = users_and_seeds_draws(totals, count, 40_000, seed=0)
    users, seeds = rng.integers(0, 30, (40_000, 30)), rng.integers(0, 4, (40_000, 3))
    plain = np.array([totals[u][:, s].mean(axis=1).sum() / count[u].sum() for u, s in zip(users, seeds, strict=True)])
    spread = plain.std()
    assert abs(draws.mean() - plain.mean()) < 0.03 * spread
    assert draws.std() == pytest.approx(spread, rel=0.03)
    np.testing.assert_allclose(np.quantile(draws, [0.1, 0.9]), np.quantile(plain, [0.1, 0.9]), atol=0.05 * spread)


def test_where_users_are_alike_the_error_is_that_of_the_mean_over_the_seeds():
    """The reason for S - 1 draws: S draws would give the standard error times sqrt((S - 1) / S)."""
    by_seed = np.array([0.0, 1.0, 5.0])
    draws = users_and_seeds_draws(np.tile(by_seed, (50, 1)), np.ones(50), 100_000, seed=1)
    assert draws.std() == pytest.approx(by_seed.std(ddof=1) / np.sqrt(3), rel=0.01)


def test_seeds_that_differ_widen_the_interval_and_one_seed_leaves_it():
    rng = np.random.default_rng(6)
    base = [make_ranks(np.where(rng.random(400) < 0.3, 0, -1)) for _ in range(3)]
    other = [
        make_ranks(np.where(rng.random(400) < share, 0, run.rank))
        for share, run in zip((0.0, 0.1, 0.3), base, strict=True)
    ]
    found = seeded_bootstrap(base, other, "recall@1", samples=2000)
    by_seed = [b.mean("recall@1") - a.mean("recall@1") for a, b in zip(base, other, strict=True)]
    assert found.spread == pytest.approx(np.std(by_seed, ddof=1)) and found.seeds == 3
    assert found.users == paired_bootstrap(base, other, "recall@1", samples=2000)
    assert found.high - found.low > 1.5 * (found.users.high - found.users.low)
    assert found.p_value > found.users.p_value
    assert seeded_error(base, other, "recall@1", samples=2000) == found.error
    one = seeded_bootstrap(base[:1], other[1:2], "recall@1", samples=2000)
    assert np.isnan(one.spread) and one.low == pytest.approx(one.users.low, abs=0.004)
    assert one.error == pytest.approx(np.std(other[1].values("recall@1") - base[0].values("recall@1")) / 20, rel=0.06)


def test_the_interval_over_users_and_seeds_covers_the_truth():
    """New users and new seeds each time; the interval over users alone covers far less."""
    rng = np.random.default_rng(7)
    covered, by_users = 0, 0
    for trial in range(150):
        gains = np.clip(rng.normal(0.1, 0.05, 5), 0, 1)
        base = [make_ranks(np.where(rng.random(200) < 0.3, 0, -1)) for _ in gains]
        other = [make_ranks(np.where(rng.random(200) < 0.3 + gain, 0, -1)) for gain in gains]
        found = seeded_bootstrap(base, other, "recall@1", samples=300, seed=trial)
        covered += found.low <= 0.1 <= found.high
        by_users += found.users.low <= 0.1 <= found.users.high
    assert covered / 150 >= 0.90 and by_users < covered


def test_runs_that_have_no_partner_are_refused():
    run = make_ranks([0, 1, 2])
    with pytest.raises(RanksError, match="A has 2 runs and B 1; runs are compared seed by seed"):
        seeded_bootstrap([run, run], [run], "recall@1")
    with pytest.raises(RanksError, match="A holds 3 samples and B 2"):
        seeded_error([run], [make_ranks([0, 1])], "recall@1", samples=10)
