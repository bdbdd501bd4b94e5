"""Checks of the prepared interactions: are the tables sound, and are the splits what the protocol says?"""

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset, positions
from wpauc_jax.doctor.findings import Finding, note, problem, rows, users


def tables_fit(dataset: Dataset) -> list[Finding]:
    """Every interaction has a user and an item of the tables; no user and no item stands there twice."""
    found = []
    size = len(dataset.item)
    if dataset.offsets[0] != 0 or dataset.offsets[-1] != size or (np.diff(dataset.offsets) < 0).any():
        found.append(problem("the users' ranges do not cover the interactions in order; prepare the data again"))
    if not len(dataset.time) == len(dataset.split) == size:
        found.append(problem("items, times and splits differ in number; prepare the data again"))
    outside = np.flatnonzero((dataset.item < 0) | (dataset.item >= dataset.num_items))
    if len(outside):
        where = ", ".join(f"row {row}" for row in outside[:3])
        found.append(problem(f"interactions with an item that is not in the table: {len(outside):,}", [where]))
    for name, ids in (("item", dataset.item_ids), ("user", dataset.users)):
        distinct, times = np.unique(np.asarray(ids, str), return_counts=True)
        if (times > 1).any():
            twice = [f"{name} {raw!r}" for raw in distinct[times > 1][:3]]
            found.append(problem(f"{name} ids that stand in their table twice: {int((times > 1).sum()):,}", twice))
    return found


def every_split_has_samples(dataset: Dataset) -> list[Finding]:
    """Training, validation and test each have a sample."""
    empty = [name for name in SPLITS if not len(positions(dataset, name))]
    return [problem(f"the split {name!r} has no sample with a history") for name in empty]


def time_runs_forward(dataset: Dataset) -> list[Finding]:
    """A user's interactions stand in the order of time, so that a history is the past."""
    later = _same_user(dataset) & (dataset.time[1:] < dataset.time[:-1])
    back = np.flatnonzero(later) + 1
    if not len(back):
        return []
    return [problem(f"interactions behind a later one of the same user: {len(back):,}", rows(dataset, back))]


def splits_follow_each_other(dataset: Dataset) -> list[Finding]:
    """Within a user all of training comes before validation, and validation before test."""
    back = np.flatnonzero(_same_user(dataset) & (dataset.split[1:] < dataset.split[:-1])) + 1
    if not len(back):
        return []
    return [
        problem(
            "interactions of an earlier split than the one before of the same user, so that training follows "
            f"what is tested: {len(back):,}",
            rows(dataset, back),
        )
    ]


def splits_are_apart_in_time(dataset: Dataset) -> list[Finding]:
    """Under the protocols with a common time line no row is earlier than a row of the split before."""
    if dataset.protocol == "leave_one_out":
        return []
    found = []
    for early in (0, 1):
        before, after = (np.flatnonzero(dataset.split == split) for split in (early, early + 1))
        if not len(before) or not len(after):
            continue
        first = dataset.time[after].min()
        overlap = before[dataset.time[before] > first]
        if len(overlap):
            name, following = SPLITS[early], SPLITS[early + 1]
            text = f"{name} rows later than the first {following} row: {len(overlap):,}"
            found.append(problem(text, rows(dataset, overlap)))
    return found


def one_test_row_a_user(dataset: Dataset) -> list[Finding]:
    """Under leave-one-out every user of three or more interactions has one validation and one test row, others none."""
    if dataset.protocol != "leave_one_out":
        return []
    lengths = np.diff(dataset.offsets)
    owner = np.repeat(np.arange(dataset.num_users), lengths)
    found = []
    for split in (1, 2):
        held = np.bincount(owner[dataset.split == split], minlength=dataset.num_users)
        wrong = np.flatnonzero(held != (lengths >= 3))
        if len(wrong):
            text = f"users without the one {SPLITS[split]} row that leave-one-out gives them: {len(wrong):,}"
            found.append(problem(text, users(dataset, wrong)))
    return found


def rows_stand_in_one_split(dataset: Dataset) -> list[Finding]:
    """The same interaction (user, item and time) is not recorded twice, least of all in two splits."""
    owner = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    order = np.lexsort((dataset.split, dataset.time, dataset.item, owner))
    columns = [column[order] for column in (owner, dataset.item, dataset.time)]
    again = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    across = again & (dataset.split[order][1:] != dataset.split[order][:-1])
    found = []
    if across.any():
        text = f"interactions in two splits with the same user, item and time: {int(across.sum()):,}"
        found.append(problem(f"{text}; data.repeats=first drops them", rows(dataset, order[1:][across])))
    if (again & ~across).any():
        where = order[1:][again & ~across]
        text = f"interactions that repeat another of the same user, item and time in their split: {len(where):,}"
        found.append(note(text, rows(dataset, where)))
    return found


def _same_user(dataset: Dataset) -> np.ndarray:
    """bool[n - 1]: whether row i + 1 is of row i's user."""
    owner = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    return owner[1:] == owner[:-1]
