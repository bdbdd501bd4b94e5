"""Ranks and the paired bootstrap, each against a slow plain version."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.evaluation.ranks import (
    Ranks,
    RanksError,
    _bootstrap_means,
    area_names,
    paired_bootstrap,
    parse_metric,
)
from wpauc_jax.objectives import auc, opauc, wpauc, wpauc_window


def make_ranks(rank, user=None, sample=None, num_candidates=20):
    n = len(rank)
    sample = np.arange(n) if sample is None else sample
    return Ranks(sample, np.arange(n) if user is None else user, np.asarray(sample) + 100, rank, num_candidates)


def test_metrics_by_hand():
    metrics = make_ranks([0, 2, -1, 9, 1, 3, 10, 19]).metrics((1, 3, 10), (3, 10))
    assert list(metrics) == ["recall@1", "recall@3", "recall@10", "ndcg@3", "ndcg@10"]
    assert metrics["recall@1"] == 1 / 8 and metrics["recall@3"] == 3 / 8 and metrics["recall@10"] == 5 / 8
    top_3 = 1 + 1 / np.log2(3) + 1 / 2
    assert metrics["ndcg@3"] == pytest.approx(top_3 / 8, rel=1e-12)
    assert metrics["ndcg@10"] == pytest.approx((top_3 + 1 / np.log2(5) + 1 / np.log2(11)) / 8, rel=1e-12)


def test_areas_of_exact_ranks_are_those_of_the_objectives():
    items, k = 30, 7
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(items, dtype=np.float32), (12, 1)), axis=1)
    target = np.arange(12)
    rank = (scores > scores[target, target][:, None]).sum(1)
    is_target = target[:, None] == np.arange(items)
    ranks = make_ranks(rank, num_candidates=items)
    alpha, d = wpauc_window(k, 1, items - 1)
    expected = {
        "auc": auc(scores, is_target),
        "opauc@7": opauc(scores, is_target, beta=k / (items - 1), normalize=True),
        "wpauc@7": wpauc(scores, is_target, alpha=alpha, d=d),
    }
    assert list(expected) == area_names([k])
    for name, values in expected.items():
        np.testing.assert_allclose(ranks.values(name), values, atol=1e-6, err_msg=name)
    assert 0 < ranks.mean("wpauc@7") < 1
    with pytest.raises(RanksError, match="auc needs the rank of every target among all items"):
        make_ranks([0, -1]).mean("auc")


@given(st.lists(st.integers(-1, 19), min_size=1, max_size=30))
def test_metrics_grow_with_k_and_ndcg_never_passes_recall(rank):
    ranks = make_ranks(rank)
    for k in range(1, 20):
        assert ranks.mean(f"recall@{k}") <= ranks.mean(f"recall@{k + 1}")
        assert ranks.mean(f"ndcg@{k}") <= ranks.mean(f"recall@{k}")


def test_a_cutoff_beyond_the_list_is_refused_only_where_a_rank_is_unknown():
    assert make_ranks([0, 4], num_candidates=5).mean("recall@10") == 1.0
    with pytest.raises(RanksError, match=r"recall@10 needs lists of at least 10, these hold 5"):
        make_ranks([0, -1], num_candidates=5).mean("recall@10")


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@-1", "hit@3", "ndcg@x", "auc@3", "opauc"])
def test_an_unknown_metric_is_named(name):
    with pytest.raises(RanksError, match=f"unknown metric '{name}'"):
        parse_metric(name)


def test_unusable_ranks_are_refused():
    with pytest.raises(RanksError, match="one length"):
        Ranks(np.arange(3), np.arange(3), np.arange(3), np.arange(2), 5)
    with pytest.raises(RanksError, match="sample 7 has rank 20, outside a list of 20"):
        make_ranks([0, 20], sample=[3, 7])
    with pytest.raises(RanksError, match="sample 7 has rank -2"):
        make_ranks([0, -2], sample=[3, 7])
    with pytest.raises(RanksError, match="twice"):
        make_ranks([0, 1], sample=[3, 3])
    with pytest.raises(RanksError, match="no sample"):
        make_ranks([]).metrics((1,), ())


def test_standard_error_is_the_usual_one_and_clusters_users():
    rank = np.random.default_rng(0).integers(-1, 20, 50)
    values = make_ranks(rank).values("ndcg@10")
    assert make_ranks(rank).standard_error("ndcg@10") == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-12)
    # Two copies of each user's sample say nothing new: the standard error stays that of 50 users.
    twice = make_ranks(np.repeat(rank, 2), user=np.repeat(np.arange(50), 2))
    assert twice.standard_error("ndcg@10") == pytest.approx(values.std(ddof=1) / np.sqrt(50), rel=1e-12)


def test_save_and_load(tmp_path):
    ranks = make_ranks([0, -1, 19])
    path = tmp_path / "made" / "test.npz"
    ranks.save(path)
    back = Ranks.load(path)
    for name in ("sample", "user", "target", "rank"):
        np.testing.assert_array_equal(getattr(back, name), getattr(ranks, name))
        assert getattr(back, name).dtype == getattr(ranks, name).dtype
    assert back.num_candidates == 20
    assert [p.name for p in path.parent.iterdir()] == ["test.npz"]


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut"])
def test_a_file_that_holds_no_ranks_is_named(tmp_path, content):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(RanksError, match=r"bad\.npz: not a file of ranks"):
        Ranks.load(path)


def test_files_without_an_array_or_with_objects_are_refused(tmp_path):
    np.savez(tmp_path / "half.npz", sample=np.arange(2))
    np.savez(tmp_path / "object.npz", sample=np.array([{}], dtype=object))
    np.save(tmp_path / "one.npy", np.arange(2))
    for name in ("half.npz", "object.npz", "one.npy"):
        with pytest.raises(RanksError, match=name):
            Ranks.load(tmp_path / name)
    with pytest.raises(RanksError, match=r"absent\.npz: there is no such file"):
        Ranks.load(tmp_path / "absent.npz")


def test_bootstrap_draws_equal_drawing_users_one_by_one():
    rng = np.random.default_rng(1)
    count = rng.integers(1, 4, 40)
    total = rng.integers(-2, 3, 40).astype(float)
    draws = _bootstrap_means(total, count, 40_000, seed=0)
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
