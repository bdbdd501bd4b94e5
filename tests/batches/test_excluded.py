"""Histories that are left out of the answers: what batches say of them, against loops."""

import numpy as np
import pytest

from tests.batches.test_pipeline import CATALOG, LENGTHS, dataset_of, take
from wpauc_jax.batches.pipeline import eval_batches, history_batches, prompt_batches, sft_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import sft_rows, unpacked
from wpauc_jax.data.dataset import distinct_counts, positions, repeats, train_rows


def earlier(dataset, p):
    """All that the user of a position has before it."""
    return dataset.item[dataset.offsets[dataset.user_of(np.array([p]))[0]] : p].tolist()


def listed(row):
    return [item for item in row.tolist() if item >= 0]


@pytest.mark.parametrize("max_history", [1, 4])
def test_prompts_say_the_whole_history_and_not_only_what_they_show(max_history):
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, max_history, exclude_history=True)
    for batch in eval_batches(dataset, builder, positions(dataset, "test"), 4):
        for p, row, count in zip(batch.ids.sample, batch.prompts.excluded, batch.left_out, strict=True):
            assert listed(row) == earlier(dataset, p)
            assert count == len({*earlier(dataset, p)})
    for fed in take(prompt_batches(dataset, builder, positions(dataset, "train"), 3, seed=0), 9):
        for p, row in zip(fed.ids.sample, fed.batch.prompts.excluded, strict=True):
            assert listed(row) == earlier(dataset, p)


def test_a_process_says_it_of_its_own_rows():
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 3, exclude_history=True)
    samples, mine = positions(dataset, "test"), np.array([2, 0])
    whole = next(iter(eval_batches(dataset, builder, samples, 4)))
    part = next(iter(eval_batches(dataset, builder, samples, 4, rows=mine)))
    np.testing.assert_array_equal(part.prompts.excluded, whole.prompts.excluded[mine])
    np.testing.assert_array_equal(part.left_out, whole.left_out)


def test_without_the_rule_nothing_is_said():
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 3)
    batch = next(iter(eval_batches(dataset, builder, positions(dataset, "test"), 4)))
    assert batch.prompts.excluded is None and not batch.left_out.any()
    assert next(iter(history_batches(builder, [np.array([1, 2])], 2))).excluded is None
    assert (
        next(iter(sft_batches(sft_rows(dataset, builder, train_rows(dataset, 0.0)[0]), 2, seed=0))).batch.excluded
        is None
    )


def test_histories_that_are_asked_for():
    """They have one width for all batches of a call, a power of two."""
    builder = PromptBuilder(CATALOG, 3, exclude_history=True)
    histories = [np.arange(5), np.array([7]), np.arange(11)[::-1]]
    found = list(history_batches(builder, histories, 2))
    assert [batch.excluded.shape for batch in found] == [(2, 16), (2, 16)]
    rows = [listed(row) for batch in found for row in batch.excluded]
    assert rows == [*(history.tolist() for history in histories), []]


@pytest.mark.parametrize(("max_history", "row_tokens"), [(2, 0), (5, 60)])
def test_sft_leaves_out_what_the_prompt_can_hold(max_history, row_tokens):
    """Each target comes with the items before it; one that the user has already is no target."""
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, max_history)
    limits = train_rows(dataset, 0.0)[0]
    plain = sft_rows(dataset, builder, limits, row_tokens)
    rows = sft_rows(dataset, builder, limits, row_tokens, exclude_history=True)
    again = repeats(dataset)
    dropped, order = 0, rows.epoch(0, 0)
    for chosen in np.array_split(order, 3):
        for one, two in zip(unpacked(plain.batch(chosen)), unpacked(rows.batch(chosen)), strict=True):
            assert one.user == two.user and one.tokens.tolist() == two.tokens.tolist()
            kept = dict(zip(two.starts.tolist(), two.items.tolist(), strict=True))
            assert kept.items() <= dict(zip(one.starts.tolist(), one.items.tolist(), strict=True)).items()
            dropped += len(one.items) - len(two.items)
        batch = rows.batch(chosen).batch
        assert batch.excluded.shape == (*batch.items.shape, max_history)
        for items, excluded in zip(batch.items, batch.excluded, strict=True):
            for item, gone in zip(items.tolist(), excluded, strict=True):
                assert item < 0 or item not in listed(gone)
                assert item >= 0 or not listed(gone)
                if item >= 0:
                    runs = [
                        p
                        for p in np.flatnonzero(dataset.item == item)
                        if earlier(dataset, p)[-max_history:] == listed(gone)
                    ]
                    assert runs, (item, gone)
    train = np.flatnonzero(dataset.split == 0)
    assert dropped == again[train].sum() > 0


def test_repeats_and_counts_against_loops():
    dataset = dataset_of(LENGTHS)
    assert repeats(dataset).tolist() == [item in earlier(dataset, p) for p, item in enumerate(dataset.item.tolist())]
    rows = np.random.default_rng(0).integers(-1, 5, (40, 6))
    assert distinct_counts(rows).tolist() == [len({*row.tolist()} - {-1}) for row in rows]
