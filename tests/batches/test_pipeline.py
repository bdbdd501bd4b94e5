"""Prompts and batches against plain loops; epochs, processes, resumption."""

import dataclasses
import itertools

import grain
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_worlds import dataset_of, ragged_catalog
from wpauc_jax.batches.pieces import sft_pieces
from wpauc_jax.batches.pipeline import eval_batches, history_batches, prompt_batches, sft_batches, steps_per_epoch
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import sft_rows, unpacked
from wpauc_jax.batches.types import EvalBatch, PromptBatch, RowIds
from wpauc_jax.catalog.items import Catalog
from wpauc_jax.data.dataset import positions, train_rows
from wpauc_jax.data.sources import DataError

LENGTHS = [1, 2, 3, 5, 8, 11, 12, 13, 30]
CATALOG = ragged_catalog()


def codes_of(items) -> list[int]:
    return [int(token) for item in items for token in CATALOG.tokens[item] if token >= 0]


def take(pipeline, count: int) -> list:
    return list(itertools.islice(iter(pipeline), count))


def assert_equal_batches(left, right):
    for a, b in zip(left, right, strict=True):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        jax.tree.map(np.testing.assert_array_equal, a, b)


@given(st.lists(st.integers(0, 39), max_size=12), st.integers(1, 6))
def test_a_prompt_is_bos_and_the_codes_of_the_latest_items(history, max_history):
    builder = PromptBuilder(CATALOG, max_history)
    prompt = builder.build(history)
    assert prompt.dtype == np.int32
    assert prompt.tolist() == [Catalog.bos, *codes_of(history[-max_history:])]
    assert len(prompt) <= builder.max_tokens


def test_the_longest_prompt_fits_exactly():
    longest = int(np.argmax(CATALOG.lengths))
    builder = PromptBuilder(CATALOG, 4)
    assert len(builder.build([longest] * 9)) == builder.max_tokens == 1 + 4 * CATALOG.tokens.shape[1]


def test_items_outside_the_catalogue_are_refused():
    builder = PromptBuilder(CATALOG, 3)
    with pytest.raises(ValueError, match="item 40 is not in the catalog of 40 items"):
        builder.build([1, 40])
    with pytest.raises(ValueError, match="item -1 is not"):
        builder.build([1, -1])
    with pytest.raises(ValueError, match="max_history=0"):
        PromptBuilder(CATALOG, 0)


@pytest.mark.parametrize("max_history", [1, 4, 10])
def test_eval_batches_against_a_loop(max_history):
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, max_history)
    samples = positions(dataset, "test")[::-1]
    batches = eval_batches(dataset, builder, samples, 4)
    assert len(batches) == 2
    seen = []
    for batch in batches:
        assert jax.tree.map(lambda column: (column.shape, column.dtype.name), batch) == EvalBatch(
            prompts=PromptBatch(tokens=((4, builder.max_tokens), "int32"), lengths=((4,), "int32")),
            target=((4,), "int32"),
            valid=((4,), "bool"),
            left_out=((4,), "int32"),
            ids=RowIds(user=((4,), "int32"), sample=((4,), "int64")),
        )
        for row in range(4):
            p, user = batch.ids.sample[row], batch.ids.user[row]
            begin = dataset.offsets[user]
            assert begin < p < dataset.offsets[user + 1]
            expected = builder.build(dataset.item[max(begin, p - max_history) : p])
            assert batch.prompts.lengths[row] == len(expected)
            assert batch.prompts.tokens[row].tolist() == [*expected, *[0] * (builder.max_tokens - len(expected))]
            assert batch.target[row] == dataset.item[p]
            if batch.valid[row]:
                seen.append(p)
    assert seen == samples.tolist()
    assert_equal_batches(batches, batches)


def test_a_prompt_does_not_depend_on_its_target():
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, 5)
    samples = positions(dataset, "test")
    before = next(iter(eval_batches(dataset, builder, samples, len(samples))))
    dataset.item[samples] = (dataset.item[samples] + 1) % dataset.num_items
    after = next(iter(eval_batches(dataset, builder, samples, len(samples))))
    assert (before.target != after.target).all()
    np.testing.assert_array_equal(before.prompts.tokens, after.prompts.tokens)


def test_each_epoch_shows_every_sample_once_in_another_order():
    dataset = dataset_of(LENGTHS)
    samples = positions(dataset, "train")
    epochs = 3
    pipeline = prompt_batches(dataset, PromptBuilder(CATALOG, 5), samples, 7, seed=3)
    stream = np.concatenate([b.ids.sample for b in take(pipeline, steps_per_epoch(epochs * len(samples), 7))])
    orders = [stream[e * len(samples) : (e + 1) * len(samples)] for e in range(epochs)]
    for order in orders:
        assert np.sort(order).tolist() == samples.tolist()
    assert len({tuple(order) for order in [samples, *orders]}) == 1 + epochs


def test_batches_depend_on_the_seed_alone():
    dataset = dataset_of(LENGTHS)

    def first(seed):
        return take(prompt_batches(dataset, PromptBuilder(CATALOG, 5), positions(dataset, "train"), 4, seed=seed), 5)

    assert_equal_batches(first(1), first(1))
    assert any((a.ids.sample != b.ids.sample).any() for a, b in zip(first(1), first(2), strict=True))


@pytest.mark.parametrize("rows", [[0, 1], [1, 5, 2]])
def test_a_process_makes_its_rows_of_the_one_global_batch(rows):
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 5)
    samples, limits = positions(dataset, "train"), train_rows(dataset, 0.0)[0]

    def prompts(rows):
        return take(prompt_batches(dataset, builder, samples, 6, seed=0, rows=rows), 11)

    def pieces(rows):
        return take(sft_batches(sft_rows(dataset, builder, limits), 6, seed=0, rows=rows), 11)

    for batches in (prompts, pieces):
        whole = [jax.tree.map(lambda column: column[rows], batch) for batch in batches(None)]
        assert_equal_batches(batches(np.array(rows)), whole)
    with pytest.raises(ValueError, match=r"rows \[6\] are not all in a batch of 6"):
        prompts(np.array([6]))


def test_an_evaluation_knows_all_samples_but_makes_its_own_prompts():
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 5)
    samples, rows = positions(dataset, "test"), np.array([3, 1])
    for mine, whole in zip(
        eval_batches(dataset, builder, samples, 4, rows=rows), eval_batches(dataset, builder, samples, 4), strict=True
    ):
        own = jax.tree.map(lambda column: column[rows], whole.prompts)
        assert_equal_batches([mine], [dataclasses.replace(whole, prompts=own)])


@pytest.mark.parametrize("rows", [None, np.array([3, 1])])
def test_a_history_that_is_given_is_asked_for_as_a_samples_own(rows):
    """Histories of the test samples, longer than the window; the last batch is filled up with empty ones."""
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 3)
    samples = positions(dataset, "test")
    histories = [dataset.item[dataset.offsets[dataset.user_of(np.array([p]))[0]] : p] for p in samples]
    given = list(history_batches(builder, histories, 4, rows=rows))
    wanted = eval_batches(dataset, builder, samples, 4, rows=rows)
    assert len(given) == len(wanted) == 2 and len(samples) % 4
    real = wanted[1].valid if rows is None else wanted[1].valid[rows]
    assert_equal_batches(given[:1], [wanted[0].prompts])
    for name in ("tokens", "lengths"):
        found, same = getattr(given[1], name), getattr(wanted[1].prompts, name)
        np.testing.assert_array_equal(found[real], same[real])
    assert (given[1].lengths[~real] == len(builder.build([]))).all()


def pipelines():
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, 4)
    limits, held_out = train_rows(dataset, 0.3)
    return {
        "prompts": prompt_batches(dataset, builder, held_out, 5, seed=0),
        "sft": sft_batches(sft_rows(dataset, builder, limits), 5, seed=0),
    }


@pytest.mark.parametrize("name", ["prompts", "sft"])
@pytest.mark.parametrize("steps", [0, 1, 9])
def test_a_restored_iterator_goes_on_with_the_same_batches(name, steps):
    iterator = iter(pipelines()[name])
    for _ in range(steps):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(6)]
    restored = iter(pipelines()[name])
    restored.set_state(state)
    assert_equal_batches(expected, [next(restored) for _ in range(6)])
    assert isinstance(iterator, grain.DatasetIterator)  # what Grain's checkpoint handler saves


piece_cases = st.tuples(
    st.lists(st.integers(3, 40), min_size=1, max_size=6), st.integers(1, 12), st.randoms(use_true_random=False)
)


@given(piece_cases)
def test_pieces_show_every_target_once_with_enough_history(case):
    lengths, max_history, random = case
    dataset = dataset_of(lengths)
    limits = np.array([random.randint(0, n) for n in lengths])
    pieces = sft_pieces(dataset, limits, PromptBuilder(CATALOG, max_history))
    targets = []
    for first, count, context in zip(pieces.first, pieces.count, pieces.context, strict=True):
        user = dataset.user_of(np.array([first]))[0]
        begin = dataset.offsets[user]
        assert begin <= first < first + count <= begin + limits[user]
        assert 1 <= context < count <= max_history + 1
        for target in range(first + context, first + count):
            targets.append(target)
            seen, available = target - first, target - begin
            assert min(available, max(1, max_history // 2)) <= seen <= max_history
    wanted = [dataset.offsets[u] + p for u, limit in enumerate(limits) for p in range(1, limit)]
    assert sorted(targets) == wanted


def test_a_short_user_is_one_piece_with_the_sliding_windows_histories():
    dataset = dataset_of([11, 12])
    pieces = sft_pieces(dataset, np.array([11, 12]), PromptBuilder(CATALOG, 10))
    assert list(zip(pieces.first, pieces.count, pieces.context, strict=True)) == [(0, 11, 1), (11, 11, 1), (12, 11, 10)]


@pytest.mark.parametrize("max_history", [1, 4, 10])
def test_sft_batches_against_a_loop(max_history):
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, max_history)
    limits, _ = train_rows(dataset, 0.2)
    pieces = sft_pieces(dataset, limits, builder)
    expected = []
    for first, count, context in zip(pieces.first, pieces.count, pieces.context, strict=True):
        items = dataset.item[first : first + count].tolist()
        starts = [0, *np.cumsum(CATALOG.lengths[items]).tolist()][context:-1]
        user = int(dataset.user_of(np.array([first]))[0])
        expected.append((user, [Catalog.bos, *codes_of(items)], items[context:], starts))
    packed = sft_rows(dataset, builder, limits)
    batches = take(sft_batches(packed, 1, seed=0), len(packed))
    found = [
        (piece.user, piece.tokens.tolist(), piece.items.tolist(), piece.starts.tolist())
        for batch in batches
        for piece in unpacked(batch)
    ]
    assert sorted(found) == sorted(expected)
    assert len(packed) < len(pieces)
    assert {column.dtype.name for column in jax.tree.leaves(batches)} == {"int32"}


def test_rows_that_no_piece_fills_are_padding():
    dataset, builder = dataset_of(LENGTHS), PromptBuilder(CATALOG, 4)
    packed = sft_rows(dataset, builder, np.diff(dataset.offsets), row_tokens=40)
    (fed,) = take(sft_batches(packed, len(packed), seed=0), 1)
    batch = fed.batch
    assert batch.tokens.shape == batch.segments.shape == (len(packed), 40)
    assert (batch.tokens[batch.segments == 0] == Catalog.pad).all()
    assert (batch.segments > 0).sum() == packed.pieces.tokens.sum()
    assert packed.packing.waste == pytest.approx((batch.segments == 0).mean())


def test_the_token_at_a_start_is_followed_by_the_items_own_tokens():
    batch = take(pipelines()["sft"], 1)[0].batch
    rows, slots = np.nonzero(batch.items >= 0)
    assert len(rows)
    for row, slot in zip(rows, slots, strict=True):
        start = batch.starts[row, slot] + 1
        own = codes_of([batch.items[row, slot]])
        assert batch.tokens[row, start : start + len(own)].tolist() == own


def test_nothing_to_batch_is_an_error():
    dataset = dataset_of(LENGTHS)
    builder = PromptBuilder(CATALOG, 4)
    none = np.array([], np.int64)
    with pytest.raises(DataError, match="split or the hold-out is empty"):
        prompt_batches(dataset, builder, none, 4, seed=0)
    with pytest.raises(DataError, match="split or the hold-out is empty"):
        eval_batches(dataset, builder, none, 4)
    with pytest.raises(DataError, match="position 3 is a user's first interaction"):
        eval_batches(dataset, builder, np.array([2, 3]), 4)
    with pytest.raises(DataError, match="no user has two training items"):
        sft_rows(dataset, builder, np.ones(len(LENGTHS), int))
    with pytest.raises(DataError, match=r"sft\.row_tokens=5 is less than the longest piece of a sequence"):
        sft_rows(dataset, builder, np.diff(dataset.offsets), row_tokens=5)


@pytest.mark.parametrize(("rows", "batch", "steps"), [(8, 4, 2), (9, 4, 3), (1, 4, 1)])
def test_steps_per_epoch(rows, batch, steps):
    assert steps_per_epoch(rows, batch) == steps
