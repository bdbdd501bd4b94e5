"""The check of title tasks finds each fault planted in their rows and names the item."""

import dataclasses

import numpy as np
import pytest

from tests.doctor_worlds import CODES, ITEMS, clean_dataset, only
from tests.text_worlds import small_tokenizer
from wpauc_jax.batches.prompts import text_format
from wpauc_jax.batches.title_tasks import alignment_of
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.titles import title_tokens
from wpauc_jax.config import PromptConfig
from wpauc_jax.doctor import prompts

TASKS = ("title_to_id", "id_to_title")
TITLES = [f"Pump number {item}" for item in range(ITEMS)]
SWAPPED = [*range(2, ITEMS), 0, 1]  # another item for each


def tokens_of(titles):
    return title_tokens(titles, titles, small_tokenizer(), max_tokens=12)


def world(style, titles=TITLES):
    """The catalog, and the rows of both tasks."""
    tokenizer, config = small_tokenizer(), PromptConfig(style=style)
    catalog = catalog_from_codes(CODES, [4, 4], first_code=tokenizer.size, end=text_format(config, tokenizer).end)
    return catalog, {task: alignment_of(task, config, tokenizer, catalog, tokens_of(titles)) for task in TASKS}


def findings(catalog, rows, titles=TITLES):
    dataset = dataclasses.replace(clean_dataset(), titles=titles)
    return prompts.title_tasks_ask_for_what_they_show(dataset, catalog, tokens_of(titles), rows)


@pytest.mark.parametrize("style", ["list", "chat"])
def test_sound_rows_give_no_finding(style):
    assert findings(*world(style)) == []


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_other_items(task):
    catalog, rows = world("list")
    shifted = {name: getattr(rows[task], name)[SWAPPED] for name in ("tokens", "starts", "answers")}
    found = findings(catalog, {task: dataclasses.replace(rows[task], **shifted)})
    texts = [finding.text for finding in found if finding.is_problem]
    assert texts == [
        f"rows of {task} that {what}: {ITEMS}"
        for what in (
            "do not show their item",
            "teach another answer than their item's",
            "are scored on another answer than their item's",
        )
    ]
    assert found[0].references[0] == "item 'i0' 'Pump number 0'"


@pytest.mark.parametrize("task", TASKS)
def test_one_row_that_shows_its_answer(task):
    catalog, rows = world("list")
    asked = rows[task]
    tokens, answer = asked.tokens.copy(), asked.answers[5]
    answer = answer[answer >= 0][:-1]
    tokens[5, : len(answer)] = answer
    found = findings(catalog, {task: dataclasses.replace(asked, tokens=tokens)})
    assert found[0].text == f"rows of {task} that show their answer: 1"
    assert found[0].is_problem and found[0].references == ("item 'i5' 'Pump number 5'",)


@pytest.mark.parametrize("task", TASKS)
def test_answers_without_their_end(task):
    """What is scored stops before the token that ends an answer; the row itself is whole."""
    catalog, rows = world("list")
    answers = rows[task].answers.copy()
    answers[np.arange(ITEMS), (answers >= 0).sum(1) - 1] = -1
    found = findings(catalog, {task: dataclasses.replace(rows[task], answers=answers)})
    assert only(found, is_problem=True).text.endswith(f"are scored on another answer than their item's: {ITEMS}")


def test_rows_that_drop_the_disambiguating_code():
    """The tasks know shorter ids than the catalog, as where a data set joins three codes and the trie has four."""
    catalog, rows = world("list")
    longer = np.concatenate([CODES, np.zeros((ITEMS, 1), np.int64)], axis=1)
    whole = catalog_from_codes(longer, [4, 4, 1], first_code=catalog.first_code, end=catalog.end)
    texts = [finding.text for finding in findings(whole, rows) if finding.is_problem]
    assert f"rows of title_to_id that teach another answer than their item's: {ITEMS}" in texts
    assert f"rows of id_to_title that do not show their item: {ITEMS}" in texts


def test_items_that_one_title_asks_for():
    titles = [*TITLES[:3], TITLES[1], *TITLES[4:]]
    found = findings(*world("list", titles), titles)
    assert only(found, is_problem=False).text == "items whose prompt of title_to_id asks for another item too: 2"
    assert found[0].references == ("item 'i1' 'Pump number 1'", "item 'i3' 'Pump number 1'")
