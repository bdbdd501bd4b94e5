"""Which trained stage beats the best ranking without training, and how that is said."""

import numpy as np
import pytest

from wpauc_jax.evaluation.bootstrap import paired_bootstrap
from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.evaluation.verdict import verdicts

USERS = 200


def ranks(hits, left_out=None):
    """The first `hits` users have their target in the first place, the others in the last."""
    rank = np.where(np.arange(USERS) < hits, 0, 49)
    return Ranks(np.arange(USERS), np.arange(USERS), np.zeros(USERS), rank, 50, left_out)


UNTRAINED = {"popularity": ranks(10), "markov": ranks(60), "last_item": ranks(30)}


@pytest.mark.parametrize(
    ("hits", "said"), [(120, "beats markov"), (61, "is not told apart from markov"), (20, "is beaten by markov")]
)
def test_a_stage_is_held_against_the_best(hits, said):
    (found,) = verdicts({"sft": ranks(hits)}, UNTRAINED, ["recall@3"])
    assert found.line().startswith(f"Recall@3: sft {said}, the best without training ({(hits - 60) / USERS:+.4f}, ")
    expected = paired_bootstrap(ranks(60), ranks(hits), "recall@3")
    assert f"p = {expected.p_value:.4f})" in found.line()
    assert found.facts() == {
        **{"metric": "recall@3", "stage": "sft", "best_untrained": "markov", "difference": (hits - 60) / USERS},
        **{"low": expected.low, "high": expected.high, "p_value": expected.p_value},
    }


def test_the_best_is_chosen_by_each_metric():
    early = Ranks(np.arange(USERS), np.arange(USERS), np.zeros(USERS), np.where(np.arange(USERS) < 40, 0, 49), 50)
    late = Ranks(np.arange(USERS), np.arange(USERS), np.zeros(USERS), np.where(np.arange(USERS) < 90, 9, 49), 50)
    found = verdicts({"sft": ranks(50), "rl": ranks(55)}, {"a": early, "b": late}, ["recall@1", "recall@10"])
    assert [(one.stage, one.rival) for one in found] == [("sft", "a"), ("rl", "a"), ("sft", "b"), ("rl", "b")]


def test_two_rules_are_not_compared():
    with pytest.raises(RanksError, match=r"differ in what they rank: in A every item is ranked, in B items of a user"):
        verdicts({"sft": ranks(50, np.ones(USERS))}, UNTRAINED, ["recall@1"])
