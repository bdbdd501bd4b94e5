"""Measures of sets from ranks, against the definitions on whole score vectors."""

import numpy as np
import pytest

from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.evaluation.sets import set_metrics
from wpauc_jax.objectives import ndcg_at_k, recall_at_k, wpauc, wpauc_window

USERS, ITEMS, KS = 12, 20, (3, 5)
RNG = np.random.default_rng(0)
SCORES = RNG.permuted(np.tile(np.arange(ITEMS, dtype=np.float32), (USERS, 1)), axis=1)
COUNTS = 1 + np.arange(USERS) % 4  # of positives
POSITIVE = RNG.permuted(np.arange(ITEMS)[None] < COUNTS[:, None], axis=1)


def ranks_of(scores=SCORES, positive=POSITIVE, **options):
    user, item = np.nonzero(positive)
    place = (scores[user] > scores[user, item][:, None]).sum(1)
    order = RNG.permutation(len(user))
    return Ranks(np.arange(len(user)), user[order], item[order], place[order], ITEMS, **options)


def test_sets_are_measured_as_the_definitions_say():
    found = set_metrics(ranks_of(), KS)
    for k in KS:
        assert found[f"recall@{k}"] == pytest.approx(float(recall_at_k(SCORES, POSITIVE, k=k).mean()), abs=1e-6)
        assert found[f"ndcg@{k}"] == pytest.approx(float(ndcg_at_k(SCORES, POSITIVE, k=k).mean()), abs=1e-6)
        values = {}
        for count in range(1, k + 1):
            users = count == COUNTS
            if users.any():
                alpha, d = wpauc_window(k, count, ITEMS - count)
                areas = np.asarray(wpauc(SCORES[users], POSITIVE[users], alpha=alpha, d=d))
                values |= dict(zip(np.flatnonzero(users), areas, strict=True))
        assert found[f"wpauc@{k}"] == pytest.approx(np.mean(list(values.values())), abs=1e-5)
        assert found[f"wpauc_users@{k}"] == pytest.approx((k >= COUNTS).mean())
    assert 0 < found["wpauc@5"] < 1 and found["wpauc_users@3"] < 1


def test_one_positive_is_recall():
    found = set_metrics(ranks_of(positive=np.eye(USERS, ITEMS, dtype=bool)), KS)
    assert found["wpauc@3"] == found["recall@3"] and found["wpauc@5"] == found["recall@5"]


def test_items_that_cannot_be_ranked_are_no_negatives():
    """Where all but six items are left out, a user with two positives has four negatives: too few for K = 5."""
    positive = np.arange(ITEMS)[None].repeat(USERS, 0) < 2
    left_out = np.full(2 * USERS, ITEMS - 6)
    scores = np.where(np.arange(ITEMS) < 6, SCORES + 100, SCORES)
    found = set_metrics(ranks_of(scores, positive, left_out=left_out), KS)
    assert found["wpauc_users@3"] == 1 and found["wpauc_users@5"] == 0 and "wpauc@5" not in found


def test_lists_must_hold_every_item():
    with pytest.raises(RanksError, match="lists of all items"):
        set_metrics(Ranks(np.arange(2), [0, 1], [3, 4], [0, -1], 5), KS)
