"""Baselines by name: rankings of a workspace's samples without training. The evaluation has a row for each."""

import dataclasses
from collections.abc import Callable

import numpy as np

from wpauc_jax.config import Config
from wpauc_jax.data.world import make_world
from wpauc_jax.evaluation.baselines import last_item_ranks, markov_ranks, optimal_ranks, popularity_ranks
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.stages.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A ranking of the whole catalog for every sample, without the history where the run leaves it out."""

    ranks: Callable[[Workspace, np.ndarray], Ranks]  # (workspace, flat positions) -> ranks
    shown: Callable[[Config], bool]  # whether the evaluation of a work directory has a row for it
    is_bound: bool = False  # no ranking can be better: trained stages are not expected to beat it


def _popularity(work: Workspace, rows: np.ndarray) -> Ranks:
    return popularity_ranks(work.dataset, rows, exclude_history=work.builder.exclude_history)


def _last_item(work: Workspace, rows: np.ndarray) -> Ranks:
    limit = work.builder.max_history
    return last_item_ranks(work.dataset, rows, limit, exclude_history=work.builder.exclude_history)


def _markov(work: Workspace, rows: np.ndarray) -> Ranks:
    return markov_ranks(work.dataset, rows, exclude_history=work.builder.exclude_history)


def _optimum(work: Workspace, rows: np.ndarray) -> Ranks:
    """The law that the data were drawn from, which a synthetic world alone has."""
    world, limit = make_world(work.config.data.synthetic), work.config.data.max_history
    return optimal_ranks(world, work.dataset, rows, limit, exclude_history=work.builder.exclude_history)


def _always(config: Config) -> bool:
    return True


def _where_drawn(config: Config) -> bool:
    return config.data.source == "synthetic"


# In the order of the table.
BASELINES: dict[str, Baseline] = {
    "popularity": Baseline(_popularity, shown=_always),
    "last_item": Baseline(_last_item, shown=_always),
    "markov": Baseline(_markov, shown=_always),
    "optimum": Baseline(_optimum, shown=_where_drawn, is_bound=True),
}


def untrained_ranks(work: Workspace, rows: np.ndarray) -> dict[str, Ranks]:
    """The ranks of every baseline that this run shows, by name."""
    return {name: baseline.ranks(work, rows) for name, baseline in BASELINES.items() if baseline.shown(work.config)}


def rivals(ranks: dict[str, Ranks]) -> dict[str, Ranks]:
    """Those of `untrained_ranks` that a trained stage should beat."""
    return {name: found for name, found in ranks.items() if not BASELINES[name].is_bound}
