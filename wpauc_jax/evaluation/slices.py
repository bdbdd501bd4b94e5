"""Items by how often training shows them: popular ones, rare ones, and cold ones."""

import dataclasses

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset
from wpauc_jax.evaluation.ranks import Ranks

_TRAIN = SPLITS.index("train")


@dataclasses.dataclass(frozen=True)
class ItemGroup:
    """Items that training shows about equally often."""

    name: str
    inside: np.ndarray  # bool[I]
    counts: tuple[int, int]  # the least and the largest number of training interactions of its items


def popularity_groups(dataset: Dataset) -> list[ItemGroup]:
    """Splits the items into head, middle, tail and cold.

    The head is the fewest items that have a third of all training interactions. The middle are the next ones, up to two
    thirds. The tail is the rest that training shows. Cold items are never shown. Items with equal counts stay together.
    A group without items is left out.
    """
    count = np.bincount(dataset.item[dataset.split == _TRAIN], minlength=dataset.num_items)
    distinct, place, number = np.unique(-count, return_inverse=True, return_counts=True)
    mass = -distinct * number
    ahead = ((np.cumsum(mass) - mass) / max(int(count.sum()), 1))[place]  # the share of all that are more popular
    kind = np.where(count == 0, 3, np.minimum(ahead * 3, 2).astype(int))
    groups = []
    for code, name in enumerate(("head", "middle", "tail", "cold")):
        inside = kind == code
        if inside.any():
            groups.append(ItemGroup(name, inside, (int(count[inside].min()), int(count[inside].max()))))
    return groups


def part_of(ranks: Ranks, chosen: np.ndarray) -> Ranks:
    """The samples bool[N] `chosen` of some ranks."""
    left_out = None if ranks.left_out is None else ranks.left_out[chosen]
    arrays = (ranks.sample[chosen], ranks.user[chosen], ranks.target[chosen], ranks.rank[chosen])
    return Ranks(*arrays, ranks.num_candidates, left_out)
