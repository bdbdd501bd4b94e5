"""The recommender: a trained run's model, items and prompts, which turn histories into lists of items.

It knows no interactions: a history is its input. It opens from a work directory, and holds the best parameters of the
last stage that was trained; it says which stage that is.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from wpauc_jax.batches.pipeline import history_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.config import Config
from wpauc_jax.evaluation.evaluate import Search
from wpauc_jax.models import Params
from wpauc_jax.runtime.sharding import batch_rows
from wpauc_jax.stages.homes import is_trained
from wpauc_jax.stages.run import Run, Say, best_folder, open_run
from wpauc_jax.stages.train import STAGES
from wpauc_jax.stages.trained import refuse_changes
from wpauc_jax.training.checkpoint import load_best


class Recommendation(NamedTuple):
    """One item of a list."""

    id: str  # the raw id
    title: str  # "" where unknown
    score: float  # log-probability, or what eval.search and eval.guide make of it


@dataclasses.dataclass(frozen=True)
class Answering:
    """The parameters that answer, and whose they are."""

    stage: str
    step: int  # updates done in that stage
    params: Params  # all of them
    changes: tuple[str, ...]  # how settings differ from those of training, which `allow_changes` has let pass

    def facts(self) -> dict[str, Any]:
        """What stands in the output, as JSON values."""
        return {"stage": self.stage, **({"changes": list(self.changes)} if self.changes else {})}


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """Histories in, lists out. Only items of the catalog can come out, each once in a list."""

    catalog: Catalog
    builder: PromptBuilder
    search_of: Callable[..., Search]  # (num_beams=the length of lists) -> what makes them
    answering: Answering
    item_ids: Sequence[str]  # I raw ids
    titles: Sequence[str]  # I, "" where unknown
    num_beams: int  # the width of the search, where the list asked for is not longer
    batch_size: int

    @property
    def params(self) -> Params:
        """All parameters."""
        return self.answering.params

    def recommend(self, histories: Sequence[np.ndarray], k: int) -> list[list[Recommendation]]:
        """The `k` best items of each history by descending score, fewer only where the catalog has fewer.

        A history is item numbers in time order, the latest last.
        """
        return [answer for answers in self.batches(histories, k) for answer in answers]

    def batches(
        self,
        histories: Sequence[np.ndarray],
        k: int,
        *,
        left_out: Sequence[np.ndarray] | None = None,
        left_out_width: int = 0,
    ) -> Iterator[list[list[Recommendation]]]:
        """`recommend`, one batch's answers at a time. `left_out` and its width are those of `history_batches`.

        A batch has one of few shapes (`prompt.widths`), so that few programs serve all. Every process of a run must
        ask, and gets all answers.
        """
        search = self._search(min(max(self.num_beams, k), self.catalog.num_items))
        rows = batch_rows(self.batch_size)
        batches = history_batches(
            self.builder, histories, self.batch_size, rows=rows, left_out=left_out, left_out_width=left_out_width
        )
        for number, batch in enumerate(batches):
            found = search(self.params, batch)
            items, scores = np.asarray(found.items)[:, :k], np.asarray(found.scores)[:, :k]
            asked = len(histories[number * self.batch_size : (number + 1) * self.batch_size])
            yield [self._listed(*row) for row in zip(items[:asked], scores[:asked], strict=True)]

    @functools.cache  # noqa: B019 - one recommender a process
    def _search(self, num_beams: int) -> Search:
        return self.search_of(num_beams=num_beams)

    def _listed(self, items: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        return [
            Recommendation(self.item_ids[item], self.titles[item], float(score))
            for item, score in zip(items, scores, strict=True)
            if item >= 0
        ]


def open_recommender(config: Config, folder: pathlib.Path, say: Say) -> Recommender:
    """The recommender of a work directory. Raises FileNotFoundError where nothing is trained."""
    return recommender_of(open_run(config, folder, say), say)


def recommender_of(run: Run, say: Say) -> Recommender:
    """The recommender of a run."""
    config = run.config
    builders = {"the model": run.builder, "the guide": run.builder.guide}
    for name in (name for name, builder in builders.items() if builder and builder.timed):
        say(f"warning: histories come without times here, so {name} answers without its biases by time")
    return Recommender(
        catalog=run.catalog,
        builder=run.builder,
        search_of=run.search,
        answering=answering(run, say),
        item_ids=run.items.item_ids,
        titles=run.items.titles,
        num_beams=config.eval.num_beams,
        batch_size=config.eval.batch_size,
    )


def answering(run: Run, say: Say) -> Answering:
    """The best parameters of the last stage that was trained; says which one that is.

    Raises FileNotFoundError where there is none, and ConfigError where it was trained with other settings.
    """
    trained = [stage for stage in STAGES if is_trained(run.config, run.folder, stage)]
    stage = trained[-1] if trained else next(iter(STAGES))
    folder = best_folder(run, stage)
    changes = refuse_changes(run, stage, say) if trained else ()
    params, best = load_best(folder, run.first_params)
    say(f"{stage} answers, with its best parameters, those of step {best.step}")
    tell_of_lost(run, say)
    return Answering(stage, best.step, run.frozen.join(params), changes)


def tell_of_lost(run: Run, say: Say) -> None:
    """Says which stages were begun and have no best parameters any more, or not yet."""
    for stage in STAGES:
        begun = run.folder / stage
        if begun.is_dir() and not is_trained(run.config, run.folder, stage):
            say(f"warning: {best_folder(run, stage)} holds no parameters, though {begun} is there: {stage} has no say")
