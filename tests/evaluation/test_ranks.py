"""Ranks, against a slow plain version."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpauc_jax.evaluation.ranks import Ranks, RanksError, area_names, parse_metric
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


def test_what_is_left_out_is_kept_and_is_no_negative(tmp_path):
    """With three items left out of 20, a rank of 4 has 12 of 16 others below it."""
    ranks = Ranks(np.arange(3), np.arange(3), np.zeros(3), np.array([4, 0, 17]), 20, np.array([3, 0, 3]))
    ranks.save(tmp_path / "ranks.npz")
    back = Ranks.load(tmp_path / "ranks.npz")
    assert back.left_out.tolist() == [3, 0, 3] and back.rule == "items of a user's history are left out"
    np.testing.assert_allclose(back.values("auc"), [12 / 16, 1.0, 0.0])  # the last target is left out itself
    whole = Ranks(np.arange(1), np.arange(1), np.zeros(1), np.array([4]), 20)
    whole.save(tmp_path / "ranks.npz")
    assert Ranks.load(tmp_path / "ranks.npz").left_out is None and whole.rule == "every item is ranked"
    with pytest.raises(RanksError, match=r"arrays of one length, got .*'left_out': 2"):
        Ranks(np.arange(1), np.arange(1), np.zeros(1), np.array([4]), 20, np.zeros(2))
