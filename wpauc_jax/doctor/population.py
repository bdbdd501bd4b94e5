"""Facts about users and items that decide what a metric can mean: cold ones, repeats, histories that say nothing."""

import numpy as np

from wpauc_jax.data.dataset import SPLITS, Dataset, positions
from wpauc_jax.doctor.findings import Finding, items, note, rows, share

_TRAIN = SPLITS.index("train")


def cold_items(dataset: Dataset) -> list[Finding]:
    """Items that training never shows: a model can name them only by their tokens."""
    trained = np.bincount(dataset.item[dataset.split == _TRAIN], minlength=dataset.num_items) > 0
    if trained.all():
        return []
    found = [note(f"{share(int((~trained).sum()), dataset.num_items)} items never occur in training")]
    for name in SPLITS[1:]:
        samples = positions(dataset, name)
        cold = samples[~trained[dataset.item[samples]]]
        if len(cold):
            found.append(note(f"{share(len(cold), len(samples))} {name} targets are such items", rows(dataset, cold)))
    return found


def cold_users(dataset: Dataset) -> list[Finding]:
    """Samples of users of whom training has nothing: their history is all validation or test."""
    lengths = dataset.train_lengths()
    found = []
    for name in SPLITS[1:]:
        samples = positions(dataset, name)
        cold = samples[lengths[dataset.user_of(samples)] == 0]
        if len(cold):
            text = f"{share(len(cold), len(samples))} {name} samples are of users without a training row"
            found.append(note(text, rows(dataset, cold)))
    return found


def repeated_targets(dataset: Dataset, max_history: int) -> list[Finding]:
    """Targets that stand in their own history: legitimate repeats, which a list of the history's items finds."""
    found = []
    for name in SPLITS:
        samples = positions(dataset, name)
        history = dataset.histories(samples, max_history)
        again = samples[(history == dataset.item[samples][:, None]).any(1)]
        if len(again):
            last = int((dataset.item[samples - 1] == dataset.item[samples]).sum())
            text = f"{share(len(again), len(samples))} {name} targets stand in their history, {last:,} as its last item"
            found.append(note(text, rows(dataset, again)))
    return found


def shared_histories(dataset: Dataset, max_history: int) -> list[Finding]:
    """Training samples whose history another sample has too, with another target.

    Here every target is bound to its sample, so nothing is wrong with them. A reward that looks the target up by the
    text of the prompt would give them another's, and where the other is a validation sample, leak it.
    """
    samples = np.concatenate([positions(dataset, name) for name in SPLITS[:2]])
    split, target = dataset.split[samples], dataset.item[samples]
    _, group = np.unique(dataset.histories(samples, max_history), axis=0, return_inverse=True)
    group = group.ravel()
    found = []
    for other, what in ((0, "training"), (1, "validation")):
        low, high = np.full(group.max() + 1, dataset.num_items), np.full(group.max() + 1, -1)
        chosen = split == other
        np.minimum.at(low, group[chosen], target[chosen])
        np.maximum.at(high, group[chosen], target[chosen])
        differs = (split == 0) & (high[group] >= 0) & ((low[group] != target) | (high[group] != target))
        if differs.any():
            text = (
                f"{share(int(differs.sum()), int((split == 0).sum()))} training samples have the history of a "
                f"{what} sample with another target: a reward by text would mistake them"
            )
            found.append(note(text, rows(dataset, samples[differs])))
    return found


def items_without_title(dataset: Dataset) -> list[Finding]:
    """Items without a title where others have one."""
    untitled = [number for number, title in enumerate(dataset.titles) if not title]
    if not untitled or len(untitled) == dataset.num_items:
        return []
    return [note(f"{share(len(untitled), dataset.num_items)} items have no title", items(dataset, untitled))]
