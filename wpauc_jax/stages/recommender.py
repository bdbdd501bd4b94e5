"""The recommender: a trained run's model, items and prompts, which turn histories into lists of items.

It knows no interactions: a history is its input. It opens from a work directory, and holds the best parameters of the
last stage that was trained.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from wpauc_jax.batches.pipeline import history_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.config import Config
from wpauc_jax.decode import Ranker
from wpauc_jax.evaluation.evaluate import Search, make_search
from wpauc_jax.models import Params
from wpauc_jax.runtime.sharding import batch_rows
from wpauc_jax.stages.run import Run, Say, best_folder, open_run
from wpauc_jax.stages.train import STAGES
from wpauc_jax.training.checkpoint import load_params


class Recommendation(NamedTuple):
    """One item of a list."""

    id: str  # the raw id
    title: str  # "" where unknown
    score: float  # log-probability


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """Histories in, lists out. Only items of the catalog can come out, each once in a list."""

    catalog: Catalog
    builder: PromptBuilder
    ranker: Ranker
    params: Params  # all of them
    item_ids: Sequence[str]  # I raw ids
    titles: Sequence[str]  # I, "" where unknown
    num_beams: int  # the width of the search, where the list asked for is not longer
    batch_size: int

    def recommend(self, histories: Sequence[np.ndarray], k: int) -> list[list[Recommendation]]:
        """The `k` best items of each history by descending score, fewer only where the catalog has fewer.

        A history is item numbers in time order, the latest last.
        """
        return [answer for answers in self.batches(histories, k) for answer in answers]

    def batches(self, histories: Sequence[np.ndarray], k: int) -> Iterator[list[list[Recommendation]]]:
        """`recommend`, one batch's answers at a time.

        A batch has one of few shapes (`prompt.widths`), so that few programs serve all. Every process of a run must
        ask, and gets all answers.
        """
        search = self._search(max(self.num_beams, k))
        rows = batch_rows(self.batch_size)
        for number, batch in enumerate(history_batches(self.builder, histories, self.batch_size, rows=rows)):
            found = search(self.params, batch)
            items, scores = np.asarray(found.items)[:, :k], np.asarray(found.scores)[:, :k]
            asked = len(histories[number * self.batch_size : (number + 1) * self.batch_size])
            yield [self._listed(*row) for row in zip(items[:asked], scores[:asked], strict=True)]

    @functools.cache  # noqa: B019 - one recommender a process
    def _search(self, num_beams: int) -> Search:
        return make_search(self.ranker, num_beams=num_beams)

    def _listed(self, items: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        return [
            Recommendation(self.item_ids[item], self.titles[item], float(score))
            for item, score in zip(items, scores, strict=True)
            if item >= 0
        ]


def open_recommender(config: Config, folder: pathlib.Path, say: Say) -> Recommender:
    """The recommender of a work directory. Raises FileNotFoundError where nothing is trained."""
    run = open_run(config, folder, say)
    return Recommender(
        catalog=run.catalog,
        builder=run.builder,
        ranker=run.ranker(config.scoring),
        params=latest_params(run),
        item_ids=run.items.item_ids,
        titles=run.items.titles,
        num_beams=config.eval.num_beams,
        batch_size=config.eval.batch_size,
    )


def latest_params(run: Run) -> Params:
    """All parameters as the last stage that was trained left them at its best."""
    stage = next((stage for stage in reversed(STAGES) if best_folder(run, stage).is_dir()), next(iter(STAGES)))
    return run.frozen.join(load_params(best_folder(run, stage), run.first_params))
