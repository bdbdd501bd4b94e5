"""Semantic ids inside a language model: the tasks that bind them to titles, and histories of titles."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.data_worlds import dataset_of
from tests.text_worlds import made_titles, small_tokenizer
from tests.worlds import TINY
from wpauc_jax.batches.history_tasks import HISTORY_TASKS, HistoryTask, history_task
from wpauc_jax.batches.pipeline import sft_batches
from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.batches.rows import sft_rows
from wpauc_jax.batches.title_tasks import INSTRUCTIONS, Alignment, alignment_of
from wpauc_jax.catalog import Catalog, build_trie, catalog_from_codes
from wpauc_jax.catalog.titles import title_tokens
from wpauc_jax.config import PromptConfig, SftConfig
from wpauc_jax.data.dataset import Dataset
from wpauc_jax.decode import Ranker
from wpauc_jax.models import Policy, init
from wpauc_jax.training.answers import answer_loss
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

ITEM_TASKS = ("title_to_id", "id_to_title")
TITLES = made_titles(12)
CODES = np.array([[i // 4, i % 4] for i in range(12)])


def world(style: str) -> tuple[Catalog, list[list[int]], PromptConfig]:
    tokenizer, config = small_tokenizer(), PromptConfig(style=style, instruction="Items:")
    catalog = catalog_from_codes(CODES, [3, 4], first_code=tokenizer.size, end=text_format(config, tokenizer).end)
    return catalog, title_tokens(TITLES, TITLES, tokenizer, max_tokens=8), config


def rows_of(task: str, style: str) -> Alignment:
    catalog, titles, config = world(style)
    return alignment_of(task, config, small_tokenizer(), catalog, titles)


def length_of(rows: Alignment, item: int) -> int:
    """Tokens of an item's prompt and answer."""
    return rows.starts[item] + 1 + (rows.answers[item] >= 0).sum()


@pytest.mark.parametrize("task", ITEM_TASKS)
@pytest.mark.parametrize("style", ["list", "chat"])
def test_a_row_gives_one_side_and_asks_for_the_other(task, style):
    tokenizer, rows = small_tokenizer(), rows_of(task, style)
    catalog, titles, config = world(style)
    for item in range(12):
        start, length = rows.starts[item], length_of(rows, item)
        answer = rows.tokens[item, start + 1 : length].tolist()
        assert answer == rows.answers[item, : len(answer)].tolist()
        assert (rows.answers[item, len(answer) :] == -1).all() and not rows.tokens[item, length:].any()
        code = catalog.tokens[item, :2].tolist()
        given, wanted = (titles[item], code) if task == "title_to_id" else (code, titles[item])
        assert answer == [*wanted, catalog.end]
        instruction = dataclasses.replace(config, instruction=INSTRUCTIONS[task])
        form = text_format(instruction, tokenizer)
        prompt = rows.tokens[item, : start + 1].tolist()
        assert prompt == [*form.head, *form.lead, *given, form.line_end, *form.tail, *form.lead]
        assert INSTRUCTIONS[task] in tokenizer.decode(prompt)
    assert "<|end|>" not in tokenizer.decode(rows.tokens[0, : rows.starts[0] + 1]) or style == "chat"


def tiny_model(catalog: Catalog):
    return init(dataclasses.replace(TINY, vocab_size=catalog.vocab_size), 0)


def test_the_loss_of_answers_against_a_plain_loop():
    catalog, _, _ = world("list")
    policy, params = tiny_model(catalog)
    rows = rows_of("id_to_title", "list")
    items = np.arange(11)  # not a multiple of the block
    batch = rows.batch(items)
    total, count = jax.jit(answer_loss, static_argnums=0)(policy, params, batch)
    logits = np.asarray(Policy.forward(policy, params, jnp.asarray(batch.tokens)), np.float64)
    expected, tokens = 0.0, 0
    for item in items:
        for place in range(rows.starts[item], length_of(rows, item) - 1):
            step = logits[item, place]
            expected -= step[rows.tokens[item, place + 1]] - np.logaddexp.reduce(step)
            tokens += 1
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == tokens == (rows.answers[:11] >= 0).sum()


def test_tasks_are_mixed_into_sft_with_their_weights():
    catalog, _, config = world("list")
    dataset = dataset_of([4, 5, 6, 7], num_items=12)
    builder = PromptBuilder(catalog, 4, text_format(config, small_tokenizer()))
    policy, params = tiny_model(catalog)
    tasks = {task: rows_of(task, "list") for task in ITEM_TASKS}
    both = SftConfig(title_to_id=0.5, id_to_title=2.0)
    limits = np.array([4, 5, 6, 7])
    batch = next(iter(sft_batches(sft_rows(dataset, builder, limits), 4, seed=0, tasks=tasks))).batch
    assert batch.tasks["title_to_id"].tokens.shape[0] == batch.tasks["id_to_title"].answers.shape[0] == 4
    optimizer, ranker = optax.sgd(1.0), Ranker(policy, build_trie(catalog.sequences()))

    def losses(settings):
        step = make_sft_step(ranker, optimizer, settings)
        state, metrics = step(init_state(params, optimizer), jax.device_put(batch))
        return state.params, {name: float(value) for name, value in metrics.items()}

    alone, mixed = losses(SftConfig()), losses(both)
    assert mixed[1]["loss"] == pytest.approx(
        alone[1]["loss"] + 0.5 * mixed[1]["title_to_id"] + 2.0 * mixed[1]["id_to_title"], rel=1e-5
    )
    assert mixed[1]["id_to_title"] == pytest.approx(np.log(catalog.vocab_size), rel=0.5)  # an untrained model
    assert "title_to_id" not in alone[1]
    moved = np.abs(np.asarray(mixed[0]["embed"] - alone[0]["embed"])).max(axis=1)
    assert (moved[small_tokenizer().size : catalog.vocab_size] > 0).all()
    assert SftConfig(title_to_id=0.5).tasks == {"title_to_id": 0.5}


def history_rows(task: str, style: str, dataset: Dataset, limits: list[int]) -> HistoryTask:
    catalog, titles, config = world(style)
    return history_task(task, config, small_tokenizer(), catalog, titles, dataset, np.array(limits), 3)


@pytest.mark.parametrize("task", HISTORY_TASKS)
@pytest.mark.parametrize("style", ["list", "chat"])
def test_a_history_told_in_one_way_asks_for_the_next_item_in_the_other(task, style):
    """Each training sample once, at most three items of history; what lies behind a user's limit is never read."""
    dataset, tokenizer = dataset_of([4, 5, 6], num_items=12), small_tokenizer()
    catalog, titles, config = world(style)
    rows = history_rows(task, style, dataset, [3, 5, 1])
    assert rows.positions.tolist() == [1, 2, 5, 6, 7, 8]
    batch = rows.batch(np.arange(6))
    codes = [catalog.tokens[item, :2].tolist() for item in range(12)]
    told, wanted = (titles if task.startswith("titles") else codes), (titles if task.endswith("title") else codes)
    form = text_format(dataclasses.replace(config, instruction=INSTRUCTIONS[task]), tokenizer)
    for row, at in enumerate(rows.positions):
        first = max(dataset.offsets[dataset.user_of(np.array([at]))[0]], at - 3)
        lines = [[*form.lead, *told[item], form.line_end] for item in dataset.item[first:at]]
        prompt = [*form.head, *itertools.chain(*lines), *form.tail, *form.lead]
        answer = [*wanted[dataset.item[at]], form.end]
        start = batch.starts[row]
        assert batch.tokens[row, : start + 1].tolist() == prompt
        assert batch.tokens[row, start + 1 :][: len(answer)].tolist() == answer
        assert not batch.tokens[row, start + 1 + len(answer) :].any()
        assert batch.answers[row][batch.answers[row] >= 0].tolist() == answer


def test_history_tasks_join_the_loss_with_their_weights():
    catalog, _, config = world("list")
    dataset, limits = dataset_of([4, 5, 6, 7], num_items=12), [4, 5, 6, 7]
    builder = PromptBuilder(catalog, 3, text_format(config, small_tokenizer()))
    tasks = {task: history_rows(task, "list", dataset, limits) for task in HISTORY_TASKS}
    packed = sft_rows(dataset, builder, np.array(limits))
    batch = next(iter(sft_batches(packed, 4, seed=0, tasks=tasks))).batch
    policy, params = tiny_model(catalog)
    optimizer, ranker = optax.sgd(1.0), Ranker(policy, build_trie(catalog.sequences()))

    def losses(settings):
        step = make_sft_step(ranker, optimizer, settings)
        return {name: float(x) for name, x in step(init_state(params, optimizer), jax.device_put(batch))[1].items()}

    alone, mixed = losses(SftConfig()), losses(SftConfig(ids_to_title=0.5, titles_to_id=2.0))
    assert mixed["loss"] == pytest.approx(
        alone["loss"] + 0.5 * mixed["ids_to_title"] + 2.0 * mixed["titles_to_id"], rel=1e-5
    )


def test_every_item_is_aligned_once_an_epoch():
    catalog, _, config = world("list")
    dataset = dataset_of([4, 5, 6, 7], num_items=12)
    builder = PromptBuilder(catalog, 4, text_format(config, small_tokenizer()))
    rows = rows_of("title_to_id", "list")
    packed = sft_rows(dataset, builder, np.array([4, 5, 6, 7]))
    feed = iter(sft_batches(packed, 4, seed=0, tasks={"title_to_id": rows}))
    answers = np.concatenate([next(feed).batch.tasks["title_to_id"].answers for _ in range(3)])
    assert sorted(answers.tolist()) == sorted(rows.answers.tolist())


@pytest.mark.parametrize("style", ["list", "chat"])
def test_a_history_of_titles_asks_for_an_id(style):
    tokenizer = small_tokenizer()
    catalog, titles, config = world(style)
    builder = PromptBuilder(catalog, 4, text_format(config, tokenizer), shown=titles)
    assert not builder.continues
    shown = [tokenizer.decode(titles[item]) for item in (3, 7)]
    prompt = tokenizer.decode(builder.build([3, 7]))
    assert f"Items:\n-{shown[0]}\n-{shown[1]}\n" in prompt and prompt.endswith("\n-")
    tokens, lengths, starts = builder.rows(np.array([[3, 7, 5]]))
    answer = tokens[0, starts[0, 2] + 1 : lengths[0]].tolist()
    assert answer == catalog.tokens[5, : catalog.lengths[5]].tolist()
    assert tokens[0, : starts[0, 2] + 1].tolist() == builder.build([3, 7]).tolist()
