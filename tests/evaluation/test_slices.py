"""Items by popularity, against counts made by hand."""

import dataclasses

import numpy as np

from tests.data_worlds import dataset_of
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.slices import part_of, popularity_groups


def world(counts):
    """Items of which training has so many interactions each; every item stands once in the test split, too."""
    item = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.arange(len(counts))]).astype(np.int32)
    split = np.repeat(np.array([0, 2], np.int8), [sum(counts), len(counts)])
    return dataclasses.replace(dataset_of([len(item)], num_items=len(counts)), item=item, split=split)


def members(groups):
    return {group.name: np.flatnonzero(group.inside).tolist() for group in groups}


def test_thirds_of_training_and_cold_items():
    """Of 30 interactions 10 are with items more popular than item 2, and 20 with items more popular than item 0."""
    groups = popularity_groups(world([5, 0, 10, 10, 5]))
    assert members(groups) == {"head": [2, 3], "tail": [0, 4], "cold": [1]}  # equal counts stay together
    assert [group.counts for group in groups] == [(10, 10), (5, 5), (0, 0)]
    groups = popularity_groups(world([12, 6, 5, 4, 3]))
    assert members(groups) == {"head": [0], "middle": [1, 2], "tail": [3, 4]}
    assert [group.counts for group in groups] == [(12, 12), (5, 6), (3, 4)]


def test_a_part_has_the_ranks_of_its_samples():
    ranks = Ranks(np.arange(4), np.arange(4), [0, 1, 2, 1], [0, -1, 3, 1], 5, np.array([1, 2, 3, 4]))
    part = part_of(ranks, np.array([False, True, False, True])[ranks.target])
    assert part.sample.tolist() == [1, 3] and part.rank.tolist() == [-1, 1] and part.left_out.tolist() == [2, 4]
    assert part.mean("recall@2") == 0.5 and part.num_candidates == 5
