"""A run with its interactions: what all stages that train or measure share."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import grain
import numpy as np

from wpauc_jax.batches.history_tasks import HISTORY_TASKS, HistoryTask, history_task
from wpauc_jax.batches.pipeline import eval_batches
from wpauc_jax.batches.title_tasks import Alignment, alignment_of
from wpauc_jax.batches.types import EvalBatch
from wpauc_jax.config import Config, RlConfig
from wpauc_jax.data.dataset import Dataset, positions, repeats, train_rows
from wpauc_jax.data.prepare import prepare
from wpauc_jax.evaluation.evaluate import ExactSearch, make_exact_search
from wpauc_jax.runtime.sharding import batch_rows
from wpauc_jax.stages.run import Prepared, Run, Say, open_prepared, with_model

_VALID_DRAW = 0  # seed of the fixed draw of validation rows


@dataclasses.dataclass(frozen=True)
class RlRows:
    """Which of the training samples are RL's."""

    holdout: Callable[[RlConfig], float]  # the share of them that is kept out of SFT
    positions: Callable[[Dataset, float], np.ndarray]  # (data, that share) -> flat positions


def _nothing(config: RlConfig) -> float:
    return 0.0


def _the_share(config: RlConfig) -> float:
    return config.holdout


def _all_of_training(dataset: Dataset, holdout: float) -> np.ndarray:
    return positions(dataset, "train")


def _held_out(dataset: Dataset, holdout: float) -> np.ndarray:
    return train_rows(dataset, holdout)[1]


# By `rl.rows`.
RL_ROWS = {"same": RlRows(_nothing, _all_of_training), "latest": RlRows(_the_share, _held_out)}


@dataclasses.dataclass(frozen=True, eq=False)
class Workspace(Run):
    """What a work directory and a configuration determine. Nothing here changes while a stage runs."""

    dataset: Dataset

    @functools.cached_property
    def sft_limits(self) -> np.ndarray:
        """How many leading items of each user SFT may see: int64[U]."""
        return train_rows(self.dataset, self.holdout)[0]

    @functools.cached_property
    def rl_positions(self) -> np.ndarray:
        """The samples of RL, by `rl.rows`; not those whose target cannot be found, as it stands in the history."""
        found = RL_ROWS[self.config.rl.rows].positions(self.dataset, self.holdout)
        return found[~repeats(self.dataset)[found]] if self.builder.exclude_history else found

    @functools.cached_property
    def valid_positions(self) -> np.ndarray:
        """The validation samples of training: all, or a fixed draw of `eval.valid_users`."""
        rows, wanted = positions(self.dataset, "valid"), self.config.eval.valid_users
        if len(rows) <= wanted:
            return rows
        return np.sort(np.random.default_rng(_VALID_DRAW).choice(rows, wanted, replace=False))

    def alignment(self, task: str) -> Alignment | HistoryTask:
        """The rows of an alignment task, where items are semantic ids inside a language model."""
        assert self.tokenizer is not None and self.titles is not None  # `open_prepared` has seen to it
        told = task, self.config.prompt, self.tokenizer, self.catalog, self.titles
        if task in HISTORY_TASKS:
            return history_task(*told, self.dataset, self.sft_limits, self.config.data.max_history)
        return alignment_of(*told)

    @functools.cache  # noqa: B019 - as `search`
    def exact_search(self) -> ExactSearch:
        """Exact ranks and the error of `eval.num_beams` beams, with this run's model, catalog and scoring rule."""
        config = self.config.eval
        return make_exact_search(self.asked_ranker, num_beams=config.num_beams, ks=config.recall_at)

    def eval_batches(self, rows: np.ndarray, *, shown: np.ndarray | None = None) -> grain.MapDataset[EvalBatch]:
        """The samples at flat positions `rows`, once, in order, in this process's share of the batches.

        `shown` are the positions before which their prompts stand; None: their own.
        """
        size = self.config.eval.batch_size
        return eval_batches(self.dataset, self.builder, rows, size, rows=batch_rows(size), shown=shown)

    @property
    def holdout(self) -> float:
        """The share of the training samples that RL has for itself."""
        return RL_ROWS[self.config.rl.rows].holdout(self.config.rl)

    def identity(self) -> dict[str, Any]:
        """What every checkpoint of this workspace depends on."""
        config = self.config
        return {
            **self.answers(),
            "rl": {"rows": config.rl.rows, "holdout": self.holdout},
            "eval": dataclasses.asdict(config.eval),
        }


def open_workspace(config: Config, folder: pathlib.Path, say: Say) -> Workspace:
    """A run, with the interactions."""
    return workspace_of(open_prepared(config, folder, say, read=prepare), say)


def workspace_of(prepared: Prepared, say: Say) -> Workspace:
    """What is prepared, with the model and the interactions."""
    return Workspace(**with_model(prepared, say), dataset=prepared.items.whole())
