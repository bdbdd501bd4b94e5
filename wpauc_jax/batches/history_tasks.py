"""Alignment tasks with a row for each training sample: a history told in one way asks for the next item in the other.

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

HISTORY_TASKS = ("history_to_title", "titles_to_id")


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
) -> HistoryTask:
    """The rows of a task of `HISTORY_TASKS`: every item but the first of each user's `limits[user]` leading ones.

    `titles` are tokens, one list an item.
    """
    form = text_format(dataclasses.replace(config, instruction=INSTRUCTIONS[task]), tokenizer)
    asks_for_title = task == "history_to_title"
    shown = None if asks_for_title else titles
    builder = PromptBuilder(catalog, dataset.max_history, form, config.max_tokens, shown)
    wanted = titles if asks_for_title else [row[:-1] for row in catalog.sequences()]
    every = np.arange(len(dataset.item))
    user = dataset.user_of(every)
    place = every - dataset.offsets[user]
    samples = every[(place > 0) & (place < limits[user])]
    return HistoryTask(dataset, builder, samples, padded([[*one, form.end] for one in wanted]))
