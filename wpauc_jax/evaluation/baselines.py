"""Rankings that need no training. A trained model is compared with them.

They rank by popularity, by the last items of the history, by what follows the last item, and by the true law of a
synthetic world. Each ranks the whole catalog.

What counts as one item can differ. Some papers judge a list by semantic ids or by titles; then all items with the same
one count as one. `labels` int[I] says which items count as one. A list then names each label once, at the place of its
first item, and the rank is that of the target's label. Without labels every item counts for itself.
"""

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset
from wpauc_jax.data.world import World
from wpauc_jax.evaluation.ranks import Ranks

_TRAIN = SPLITS.index("train")
_CHUNK = 10_000_000  # probabilities computed at a time


def popularity_ranks(dataset: Dataset, positions: np.ndarray, labels: np.ndarray | None = None) -> Ranks:
    """Items by their training count, the same list for everybody; ties by item number, nothing left out."""
    place = _label_places(popularity_places(dataset), labels)
    return _ranks(dataset, positions, place[dataset.item[positions]], labels)


def last_item_ranks(dataset: Dataset, positions: np.ndarray, limit: int, labels: np.ndarray | None = None) -> Ranks:
    """The last `limit` items of the history again, the latest first, each once; then all others by popularity.

    Its Recall@1 is the share of targets that equal the last item.
    """
    place = _label_places(popularity_places(dataset), labels)
    label = np.arange(dataset.num_items) if labels is None else np.asarray(labels)
    recent = dataset.histories(positions, limit)
    recent = _latest_first(recent)
    exists = recent >= 0
    recent_label = np.where(exists, label[recent], -1)
    is_new = exists & ~_seen_before(recent_label)
    target = dataset.item[positions]
    matches = is_new & (recent_label == label[target][:, None])
    before = np.cumsum(is_new, axis=1) - is_new  # distinct labels named before each column
    moved_ahead = (is_new & (place[recent] > place[target][:, None])).sum(1)
    again = np.take_along_axis(before, matches.argmax(1)[:, None], axis=1)[:, 0]
    return _ranks(dataset, positions, np.where(matches.any(1), again, place[target] + moved_ahead), labels)


def transition_ranks(dataset: Dataset, positions: np.ndarray) -> Ranks:
    """Items by how often they followed the history's last item in training; ties by popularity, then number.

    A first-order Markov chain, the simplest model that learns from the history. Each position needs a history.
    """
    num_items = dataset.num_items
    place = popularity_places(dataset)
    is_start = np.zeros(dataset.item.size, bool)
    is_start[dataset.offsets[:-1][np.diff(dataset.offsets) > 0]] = True
    after = np.flatnonzero((dataset.split == _TRAIN) & ~is_start)
    # One key for each pair (last item, next item), the next item named by its popularity place.
    pair, count = np.unique(
        dataset.item[after - 1].astype(np.int64) * num_items + place[dataset.item[after]], return_counts=True
    )
    first = np.searchsorted(pair, np.arange(num_items + 1) * num_items)  # where each last item's pairs begin
    order = np.lexsort((pair, -count, pair // num_items))
    place_in_block = np.empty(pair.size, np.int64)
    place_in_block[order] = np.arange(pair.size) - first[pair[order] // num_items]

    last, target_place = dataset.item[positions - 1], place[dataset.item[positions]]
    wanted = last.astype(np.int64) * num_items + target_place
    found = np.searchsorted(pair, wanted)
    # An item that never followed comes after all that did, and after the more popular ones of the rest.
    rank = first[last + 1] - first[last] + target_place - (found - first[last])
    inside = np.minimum(found, max(pair.size - 1, 0))
    if pair.size:
        rank = np.where(pair[inside] == wanted, place_in_block[inside], rank)
    return _ranks(dataset, positions, rank)


def optimal_ranks(world: World, dataset: Dataset, positions: np.ndarray, limit: int) -> Ranks:
    """Items by their true probability after the last `limit` items of the history: no ranking is better on average.

    `dataset` must be drawn from `world`, with every interaction kept; ties by item number.
    """
    rank = np.empty(len(positions), np.int64)
    for rows in np.array_split(np.arange(len(positions)), -(-len(positions) * dataset.num_items // _CHUNK)):
        law = optimal_law(world, dataset, positions[rows], limit)
        target = dataset.item[positions[rows]]
        p = np.take_along_axis(law, target[:, None], axis=1)
        ahead = (law > p) | ((law == p) & (np.arange(dataset.num_items) < target[:, None]))
        rank[rows] = ahead.sum(1)
    return _ranks(dataset, positions, rank)


def optimal_law(world: World, dataset: Dataset, positions: np.ndarray, limit: int) -> np.ndarray:
    """float64[N, I]: the true law of each sample's target given the last `limit` items, over the catalog's items."""
    number = np.array([int(raw) for raw in dataset.item_ids])  # a world's raw ids are its item numbers
    histories = dataset.histories(positions, limit)
    return world.next_item(np.where(histories >= 0, number[histories], -1))[:, number]


def popularity_places(dataset: Dataset) -> np.ndarray:
    """int64[I]: each item's place in the order of training counts."""
    count = np.bincount(dataset.item[dataset.split == _TRAIN], minlength=dataset.num_items)
    place = np.empty(count.size, np.int64)
    place[np.argsort(-count, kind="stable")] = np.arange(count.size)
    return place


def _label_places(place: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """int64[I]: the place of each item's label in the list of labels, each named where its first item stands."""
    if labels is None:
        return place
    label, item_label = np.unique(labels, return_inverse=True)
    first = np.full(label.size, place.size)
    np.minimum.at(first, item_label, place)
    label_place = np.empty(label.size, np.int64)
    label_place[np.argsort(first)] = np.arange(label.size)
    return label_place[item_label]


def _latest_first(histories: np.ndarray) -> np.ndarray:
    """Rows of `Dataset.histories` reversed, -1 still behind the last item."""
    lengths = (histories >= 0).sum(1)
    column = lengths[:, None] - 1 - np.arange(histories.shape[1])
    reversed_rows = np.take_along_axis(histories, np.maximum(column, 0), axis=1)
    return np.where(column >= 0, reversed_rows, -1)


def _seen_before(rows: np.ndarray) -> np.ndarray:
    """bool[N, L]: whether an entry stands in its row to the left already."""
    equal = rows[:, :, None] == rows[:, None, :]
    return np.tril(equal, k=-1).any(axis=2)


def _ranks(dataset: Dataset, positions: np.ndarray, rank: np.ndarray, labels: np.ndarray | None = None) -> Ranks:
    length = dataset.num_items if labels is None else np.unique(labels).size
    return Ranks(positions, dataset.user_of(positions), dataset.item[positions], rank, length)
