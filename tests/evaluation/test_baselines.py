"""Rankings without training, each against a slow plain version."""

import dataclasses

import numpy as np
import pytest

from wpauc_jax.data.dataset import Dataset
from wpauc_jax.evaluation.baselines import last_item_ranks, markov_ranks, popularity_ranks


def make_dataset(seed, num_users=12, num_items=9):
    """Random sequences; each user's last item is test, the one before it is validation; one user has no row."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 8, num_users)
    lengths[3] = 0
    split = np.concatenate([np.array([0] * (n - 2) + [1, 2], np.int8) for n in lengths if n])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    item = rng.integers(0, num_items - 2, split.size).astype(np.int32)  # two items never occur in training
    item[offsets[1] - 1] = num_items - 1
    names = [str(i) for i in range(num_items)]
    users = [str(u) for u in range(num_users)]
    return Dataset(users, names, names, names, item, np.arange(item.size), split, offsets, fingerprint="")


@pytest.mark.parametrize("seed", range(5))
def test_popularity_equals_sorting_by_count_and_id(seed):
    data = make_dataset(seed)
    positions = np.flatnonzero(data.split == 2)
    ranks = popularity_ranks(data, positions)
    train = list(data.item[data.split == 0])
    order = sorted(range(9), key=lambda i: (-train.count(i), i))
    assert ranks.rank.tolist() == [order.index(t) for t in data.item[positions]]
    assert ranks.num_candidates == 9 and (ranks.sample == positions).all()
    for p, user in zip(positions, ranks.user, strict=True):
        assert data.offsets[user] <= p < data.offsets[user + 1]


@pytest.mark.parametrize("seed", range(5))
def test_transitions_equal_sorting_by_transitions(seed):
    data = make_dataset(seed)
    positions = np.flatnonzero(data.split == 2)
    starts = set(data.offsets[:-1])
    train = list(data.item[data.split == 0])
    follows = [(data.item[p - 1], data.item[p]) for p in np.flatnonzero(data.split == 0) if p not in starts]
    expected = []
    for p in positions:
        last = data.item[p - 1]
        order = sorted(range(9), key=lambda i: (-follows.count((last, i)), -train.count(i), i))
        expected.append(order.index(data.item[p]))
    assert markov_ranks(data, positions).rank.tolist() == expected


def test_without_any_transition_it_is_popularity():
    data = make_dataset(0)
    is_start = np.isin(np.arange(data.item.size), data.offsets)
    data = dataclasses.replace(data, split=np.where(is_start, data.split, 1))
    positions = np.flatnonzero(~is_start)
    np.testing.assert_array_equal(markov_ranks(data, positions).rank, popularity_ranks(data, positions).rank)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("by_label", [False, True])
def test_last_items_come_first_and_each_once(seed, by_label):
    data = make_dataset(seed)
    positions = np.flatnonzero(data.split == 2)
    labels = np.arange(9) % 4 if by_label else np.arange(9)
    train = list(data.item[data.split == 0])
    popular = sorted(range(9), key=lambda i: (-train.count(i), i))
    expected = []
    for p in positions:
        first = data.offsets[:-1][data.offsets[:-1] <= p].max()
        recent = list(data.item[max(first, p - 3) : p])[::-1]
        named = list(dict.fromkeys(labels[i] for i in recent + popular))
        expected.append(named.index(labels[data.item[p]]))
    ranks = last_item_ranks(data, positions, 3, labels if by_label else None)
    assert ranks.rank.tolist() == expected
    assert ranks.num_candidates == (4 if by_label else 9)


@pytest.mark.parametrize("seed", range(5))
def test_popularity_by_label_names_each_label_once(seed):
    data = make_dataset(seed)
    positions = np.flatnonzero(data.split == 2)
    labels = np.array([0, 1, 0, 2, 2, 1, 3, 4, 4])
    train = list(data.item[data.split == 0])
    named = list(dict.fromkeys(labels[i] for i in sorted(range(9), key=lambda i: (-train.count(i), i))))
    ranks = popularity_ranks(data, positions, labels)
    assert ranks.rank.tolist() == [named.index(labels[target]) for target in data.item[positions]]
    assert ranks.num_candidates == 5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ranking", [popularity_ranks, markov_ranks])
def test_without_the_history_the_rest_keep_their_order(seed, ranking):
    """Brute force: the place of every item in the whole list, and the history struck out of it."""
    data = make_dataset(seed)
    positions = np.flatnonzero(data.split > 0)
    found = ranking(data, positions, exclude_history=True)
    place = np.empty((9, len(positions)), int)
    for item in range(9):  # the list of a sample does not depend on its target
        asked = dataclasses.replace(data, item=data.item.copy())
        for row, p in enumerate(positions):
            asked.item[:] = data.item
            asked.item[p] = item
            # Training counts stay those of the data: a target of validation or test is not in them.
            place[item, row] = ranking(asked, np.array([p])).rank[0]
    some_excluded_target = False
    for row, p in enumerate(positions):
        history = {*data.item[data.offsets[found.user[row]] : p].tolist()}
        left = [item for item in np.argsort(place[:, row]).tolist() if item not in history]
        target = int(data.item[p])
        some_excluded_target |= target in history
        assert found.rank[row] == (len(left) if target in history else left.index(target))
        assert found.left_out[row] == len(history)
    assert some_excluded_target and (found.rank < 9).all()


def test_without_the_history_the_last_items_are_popularity():
    data = make_dataset(1)
    positions = np.flatnonzero(data.split == 2)
    found, popular = (
        last_item_ranks(data, positions, 3, exclude_history=True),
        popularity_ranks(data, positions, exclude_history=True),
    )
    np.testing.assert_array_equal(found.rank, popular.rank)
    with pytest.raises(ValueError, match="a list of labels ranks every item"):
        popularity_ranks(data, positions, np.arange(9), exclude_history=True)
