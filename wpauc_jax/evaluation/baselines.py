"""Rankings that need no training. A trained model is compared with them.

They rank by popularity, by the last items of the history, by what follows the last item, and by the true law of a
synthetic world. Each ranks the whole catalog, or all of it but the user's history.

What counts as one item can differ. Some papers judge a list by semantic ids or by titles; then all items with the same
one count as one. `labels` int[I] says which items count as one. A list then names each label once, at the place of its
first item, and the rank is that of the target's label. Without labels every item counts for itself.
"""

from collections.abc import Callable, Iterator

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset, distinct_counts
from wpauc_jax.data.world import World
from wpauc_jax.evaluation.ranks import Ranks

_TRAIN = SPLITS.index("train")
_CHUNK = 10_000_000  # numbers held at a time

# (samples int64[n], items int32[n, k]) -> int64[n, k], the place of each item in its sample's list of all items.
Places = Callable[[np.ndarray, np.ndarray], np.ndarray]


def ranks_by_place(dataset: Dataset, positions: np.ndarray, places: Places, *, exclude_history: bool = False) -> Ranks:
    """Ranks of the targets where `places` orders all items; items of the history leave the list where that is asked.

    A target that is left out itself has a rank behind all that stay.
    """
    if not exclude_history:
        return _ranks(dataset, positions, places(positions, dataset.item[positions][:, None])[:, 0])
    rank, left_out = np.empty(len(positions), np.int64), np.empty(len(positions), np.int32)
    for rows, history in _histories(dataset, positions):
        samples, target = positions[rows], dataset.item[positions[rows]]
        own = places(samples, target[:, None])
        taken = np.where(history >= 0, places(samples, np.maximum(history, 0)), dataset.num_items)
        taken.sort(axis=1)  # an item has one place: where a place stands twice, so does an item
        is_first = np.diff(taken, axis=1, prepend=-1) != 0
        left_out[rows] = distinct_counts(history)
        ahead = own[:, 0] - (is_first & (taken < own)).sum(1)
        rank[rows] = np.where((history == target[:, None]).any(1), dataset.num_items - left_out[rows], ahead)
    return _ranks(dataset, positions, rank, left_out=left_out)


def popularity_ranks(
    dataset: Dataset, positions: np.ndarray, labels: np.ndarray | None = None, *, exclude_history: bool = False
) -> Ranks:
    """Items by their training count, the same list for everybody; ties by item number."""
    place = popularity_places(dataset)
    if labels is None:
        return ranks_by_place(dataset, positions, lambda _, items: place[items], exclude_history=exclude_history)
    _refuse_labels(exclude_history)
    return _ranks(dataset, positions, _label_places(place, labels)[dataset.item[positions]], labels)


def last_item_ranks(
    dataset: Dataset,
    positions: np.ndarray,
    limit: int,
    labels: np.ndarray | None = None,
    *,
    exclude_history: bool = False,
) -> Ranks:
    """The last `limit` items of the history again, the latest first, each once; then all others by popularity.

    Its Recall@1 is the share of targets that equal the last item. Without the history, popularity is what is left.
    """
    if exclude_history:
        return popularity_ranks(dataset, positions, labels, exclude_history=True)
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


def markov_ranks(dataset: Dataset, positions: np.ndarray, *, exclude_history: bool = False) -> Ranks:
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

    def places(samples: np.ndarray, items: np.ndarray) -> np.ndarray:
        last = dataset.item[samples - 1][:, None]
        wanted = last.astype(np.int64) * num_items + place[items]
        found = np.searchsorted(pair, wanted)
        # An item that never followed comes after all that did, and after the more popular ones of the rest.
        behind = first[last + 1] - first[last] + place[items] - (found - first[last])
        if not pair.size:
            return behind
        inside = np.minimum(found, pair.size - 1)
        return np.where(pair[inside] == wanted, place_in_block[inside], behind)

    return ranks_by_place(dataset, positions, places, exclude_history=exclude_history)


def optimal_ranks(
    world: World, dataset: Dataset, positions: np.ndarray, limit: int, *, exclude_history: bool = False
) -> Ranks:
    """Items by their true probability after the last `limit` items of the history: no ranking is better on average.

    `dataset` must be drawn from `world`, with every interaction kept; ties by item number.
    """

    def places(samples: np.ndarray, items: np.ndarray) -> np.ndarray:
        place = np.empty(items.shape, np.int64)
        for rows in _chunks(len(samples), dataset.num_items):
            order = np.argsort(-optimal_law(world, dataset, samples[rows], limit), axis=1, kind="stable")
            place[rows] = np.take_along_axis(np.argsort(order, axis=1), items[rows], axis=1)
        return place

    return ranks_by_place(dataset, positions, places, exclude_history=exclude_history)


def optimal_law(world: World, dataset: Dataset, positions: np.ndarray, limit: int) -> np.ndarray:
    """float64[N, I]: the true law of each sample's target given the last `limit` items, over the catalog's items."""
    number = np.array([int(raw) for raw in dataset.item_ids])  # a world's raw ids are its item numbers
    histories = dataset.histories(positions, limit)
    return world.next_item(np.where(histories >= 0, number[histories], -1))[:, number]


def popularity(dataset: Dataset) -> np.ndarray:
    """int64[I]: how often each item occurs in training."""
    return np.bincount(dataset.item[dataset.split == _TRAIN], minlength=dataset.num_items)


def popularity_places(dataset: Dataset) -> np.ndarray:
    """int64[I]: each item's place in the order of training counts."""
    count = popularity(dataset)
    place = np.empty(count.size, np.int64)
    place[np.argsort(-count, kind="stable")] = np.arange(count.size)
    return place


def _chunks(count: int, width: int) -> list[np.ndarray]:
    """Rows 0 .. count - 1 in parts of so few that `width` numbers for each fit."""
    return np.array_split(np.arange(count), max(-(-count * width // _CHUNK), 1))


def _histories(dataset: Dataset, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, their whole histories int32[n, L], -1 behind the last item), some rows at a time."""
    lengths = positions - dataset.offsets[dataset.user_of(positions)]
    for rows in _chunks(len(positions), int(lengths.max(initial=1))):
        yield rows, dataset.histories(positions[rows], int(lengths[rows].max(initial=1)))


def _refuse_labels(exclude_history: bool) -> None:
    if exclude_history:
        raise ValueError("a list of labels ranks every item: exclude_history goes with lists of items alone")


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


def _ranks(
    dataset: Dataset,
    positions: np.ndarray,
    rank: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    left_out: np.ndarray | None = None,
) -> Ranks:
    length = dataset.num_items if labels is None else np.unique(labels).size
    user, target = dataset.user_of(positions), dataset.item[positions]
    return Ranks(positions, user, target, rank, length, left_out=left_out)
