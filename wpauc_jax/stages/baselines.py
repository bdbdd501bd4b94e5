"""Baselines by name: rankings of a workspace's samples without training. An evaluation shows some beside the model."""

import dataclasses
from collections.abc import Callable

import numpy as np

from wpauc_jax.config import Config
from wpauc_jax.data.world import make_world
from wpauc_jax.evaluation.baselines import last_item_ranks, optimal_ranks, popularity_ranks, transition_ranks
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.stages.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A ranking of the whole catalog for every sample."""

    ranks: Callable[[Workspace, np.ndarray], Ranks]  # (workspace, flat positions) -> ranks
    shown: Callable[[Config], bool]  # whether the evaluation of a work directory has a row for it


def _popularity(work: Workspace, rows: np.ndarray) -> Ranks:
    return popularity_ranks(work.dataset, rows)


def _optimum(work: Workspace, rows: np.ndarray) -> Ranks:
    """The law that the data were drawn from, which a synthetic world alone has."""
    return optimal_ranks(make_world(work.config.data.synthetic), work.dataset, rows, work.config.data.max_history)


def _last_items(work: Workspace, rows: np.ndarray) -> Ranks:
    return last_item_ranks(work.dataset, rows, work.config.data.max_history)


def _transitions(work: Workspace, rows: np.ndarray) -> Ranks:
    return transition_ranks(work.dataset, rows)


def _always(config: Config) -> bool:
    return True


def _where_drawn(config: Config) -> bool:
    return config.data.source == "synthetic"


def _never(config: Config) -> bool:
    return False


# In the order of the table.
BASELINES: dict[str, Baseline] = {
    "popularity": Baseline(_popularity, shown=_always),
    "optimum": Baseline(_optimum, shown=_where_drawn),
    "last items again": Baseline(_last_items, shown=_never),
    "after the last item": Baseline(_transitions, shown=_never),
}
