"""Users of a run's test set: what they had, and what they took next. The page shows it beside the list."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wpauc_jax.config.recorded import remembered_config
from wpauc_jax.data.dataset import load_dataset, positions
from wpauc_jax.data.errors import DataError
from wpauc_jax.stages.exported import is_export


class Sample(NamedTuple):
    """A sample of the test set, in raw ids."""

    user: str
    history: list[str]  # as much as a prompt holds, the latest last
    taken: str  # the target


def sample_users(folder: pathlib.Path, *, count: int = 50, say: Callable[[str], None] = print) -> list[Sample]:
    """A fixed draw of a run's test samples, in the order of the users; none of an export, which has no interactions.

    None either, and a line that says so, where the prepared data cannot be read: a server must not depend on them.
    """
    if is_export(folder):
        return []
    config = remembered_config(folder)
    try:
        dataset = load_dataset(pathlib.Path(config.data.dir or folder / "data"))
    except (OSError, DataError) as error:
        say(f"the page offers no users of the test set: {error}")
        return []
    rows = positions(dataset, "test")
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(count, len(rows)), replace=False))
    found = []
    for place, user in zip(chosen.tolist(), dataset.user_of(chosen).tolist(), strict=True):
        first = max(int(dataset.offsets[user]), place - config.data.max_history)
        items = [dataset.item_ids[item] for item in dataset.item[first : place + 1]]
        found.append(Sample(dataset.users[user], items[:-1], items[-1]))
    return found
