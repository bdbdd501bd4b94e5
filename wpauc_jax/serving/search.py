"""The recommender as a server uses it: batches of few sizes, whose programs are compiled before the first question."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from wpauc_jax.serving.questions import MOST_ITEMS, Question
from wpauc_jax.stages.recommender import Recommendation, Recommender

# Users of a batch; the least that holds the questions is taken. Rows that are not used cost as much as others: under a
# steady load a step from 8 to 64 keeps batches of a dozen questions as slow as full ones.
SIZES = (1, 8, 16, 32, 64)


@dataclasses.dataclass(frozen=True, eq=False)
class ServedSearch:
    """Answers questions by one recommender."""

    recommender: Recommender
    most_k: int

    @functools.cached_property
    def _sized(self) -> dict[int, Recommender]:
        return {size: dataclasses.replace(self.recommender, batch_size=size) for size in SIZES}

    def __call__(self, questions: Sequence[Question]) -> list[list[Recommendation]]:
        """The list of each question, at most SIZES[-1] of them."""
        size = next(size for size in SIZES if size >= len(questions))
        batches = self._sized[size].batches(
            [question.history for question in questions],
            self.most_k,
            left_out=[question.left_out for question in questions],
            left_out_width=MOST_ITEMS,
        )
        answers = [answer for batch in batches for answer in batch]
        return [answer[: question.k] for answer, question in zip(answers, questions, strict=True)]

    def compile(self) -> int:
        """Runs every program once; returns how many there are."""
        builder = self.recommender.builder
        by_width: dict[int, np.ndarray] = {}
        for count in range(builder.max_history + 1):
            history = np.arange(count, dtype=np.int64) % self.recommender.catalog.num_items
            padded = np.full((1, max(count, 1)), -1, np.int64)
            padded[0, :count] = history
            by_width[builder.padded_width(int(builder.lengths(padded).max()))] = history
        for size in SIZES:
            for history in by_width.values():
                self([Question(None, history, 1, history)] * size)
        return len(SIZES) * len(by_width)
