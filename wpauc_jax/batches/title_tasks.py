"""Alignment tasks with a row for each item: they teach a language model which title belongs to which semantic id."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wpauc_jax.batches.prompts import text_format
from wpauc_jax.batches.types import TitleTaskBatch
from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import PromptConfig

# By the name of the task, which is also its weight's in `sft.`, what the prompt says. The last three are those of
# `batches.history_tasks`.
INSTRUCTIONS = {
    "title_to_id": "An item's title, then its id:",
    "id_to_title": "An item's id, then its title:",
    "ids_to_title": "Ids of items that one user chose, the latest last, then the title of the next one:",
    "titles_to_id": "Titles of items that one user chose, the latest last, then the id of the next one:",
    "titles_to_title": "Titles of items that one user chose, the latest last, then the title of the next one:",
}


@dataclasses.dataclass(frozen=True)
class Alignment:
    """One task's rows, one an item: a prompt with one side of the pair, then the other side."""

    tokens: np.ndarray  # int32[I, T], padded with 0
    starts: np.ndarray  # int32[I], the place of the token just before the answer
    answers: np.ndarray  # int32[I, A], -1 behind the end

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, items: np.ndarray) -> TitleTaskBatch:
        """The rows of some items."""
        return TitleTaskBatch(self.tokens[items], self.starts[items], self.answers[items])


def alignment_of(
    task: str, config: PromptConfig, tokenizer: Tokenizer, catalog: Catalog, titles: Sequence[Sequence[int]]
) -> Alignment:
    """The rows of title_to_id or id_to_title; `titles` are tokens, one list an item.

    The prompt is the one of recommendation with another instruction: one item of a list is given, and the answer goes
    on as the list's next one.
    """
    form = text_format(dataclasses.replace(config, instruction=INSTRUCTIONS[task]), tokenizer)
    ids = [row[:-1] for row in catalog.sequences()]
    given, wanted = (titles, ids) if task == "title_to_id" else (ids, titles)
    prompts = [[*form.head, *form.lead, *one, form.line_end, *form.tail, *form.lead] for one in given]
    answers = [[*other, form.end] for other in wanted]
    rows = padded([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)])
    return Alignment(
        tokens=np.maximum(rows, 0),
        starts=np.asarray([len(prompt) - 1 for prompt in prompts], np.int32),
        answers=padded(answers),
    )
