"""Alignment tasks with a row for each training sample: by ids or titles of a history to the next title or id.

LC-Rec (arXiv 2311.09049) calls them asymmetric item prediction; MiniOneRec has them, too.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.batches.title_tasks import INSTRUCTIONS
from wpauc_jax.batches.types import TitleTaskBatch
from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import PromptConfig
from wpauc_jax.data.dataset import Dataset

# By name: whether the history is told by titles, and whether the answer is a title.
HISTORY_TASKS = {"ids_to_title": (False, True), "titles_to_id": (True, False), "titles_to_title": (True, True)}


@dataclasses.dataclass(frozen=True)
class HistoryTask:
    """One task's rows, one a sample: the prompt of its history, then the target."""

    dataset: Dataset
    builder: PromptBuilder
    positions: np.ndarray  # int64[n], the samples
    answers: np.ndarray  # int32[I, A], how each item is answered, -1 behind the end

    def __len__(self) -> int:
        return len(self.positions)

    def batch(self, rows: np.ndarray) -> TitleTaskBatch:
        """The rows of some samples."""
        samples = self.positions[rows]
        histories = self.dataset.histories(samples, self.builder.max_history)
        tokens, lengths = self.builder.prompts(histories, self.builder.max_tokens)
        answers = self.answers[self.dataset.item[samples]]
        tokens = np.pad(tokens, ((0, 0), (0, answers.shape[1])))
        row, place = np.nonzero(answers >= 0)
        tokens[row, lengths[row] + place] = answers[row, place]
        return TitleTaskBatch(tokens, lengths - 1, answers)


def history_task(
    task: str,
    config: PromptConfig,
    tokenizer: Tokenizer,
    catalog: Catalog,
    titles: Sequence[Sequence[int]],
    dataset: Dataset,
    limits: np.ndarray,
    max_history: int,
) -> HistoryTask:
    """The rows of a task of `HISTORY_TASKS`: every item but the first of each user's `limits[user]` leading ones.

    `titles` are tokens, one list an item. A prompt holds at most `max_history` items.
    """
    form = text_format(dataclasses.replace(config, instruction=INSTRUCTIONS[task]), tokenizer)
    told_by_titles, asks_for_title = HISTORY_TASKS[task]
    builder = PromptBuilder(catalog, max_history, form, config.max_tokens, titles if told_by_titles else None)
    wanted = titles if asks_for_title else [row[:-1] for row in catalog.sequences()]
    every = np.arange(len(dataset.item))
    user = dataset.user_of(every)
    place = every - dataset.offsets[user]
    samples = every[(place > 0) & (place < limits[user])]
    return HistoryTask(dataset, builder, samples, padded([[*one, form.end] for one in wanted]))
