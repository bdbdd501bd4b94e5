"""Prompts in text: what stands in them, what is dropped, and that SFT's rows are prompt and answer, token for token."""

import itertools

import numpy as np
import pytest

from tests.data_worlds import dataset_of, shared
from tests.text_worlds import TITLES, made_titles, small_tokenizer, text_builder
from wpauc_jax.batches.pieces import sft_pieces
from wpauc_jax.batches.pipeline import eval_batches, prompt_batches, sft_batches
from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.batches.rows import sft_rows, unpacked
from wpauc_jax.batches.types import Fed
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.config import ConfigError, DataConfig, PromptConfig
from wpauc_jax.data.dataset import gather_ranges, positions, train_rows
from wpauc_jax.data.prepare import prepare

STYLES = ["list", "chat"]
LENGTHS = [1, 2, 3, 5, 8, 11, 12, 13, 30]
MANY = made_titles(40)


def text_of(tokens) -> str:
    return small_tokenizer().decode(tokens)


def test_a_list_goes_on_where_the_answer_begins():
    builder = text_builder()
    expected = "Items that one user chose, the latest last:\n- Garden\n- Blue Pump\n-"
    assert text_of(builder.build([1, 5])) == expected
    assert text_of(builder.build([])) == "Items that one user chose, the latest last:\n-"
    (tokens,), (length,), ((_, _, start),) = builder.rows(np.array([[1, 5, 0]]))
    assert text_of(tokens[:length]) == expected + " Red Garden Hose\n"
    assert text_of(tokens[: start + 1]) == expected


def test_a_chat_closes_the_users_turn():
    builder = text_builder("chat")
    expected = (
        "<|start|>user\nItems that one user chose, the latest last:\n- Garden\n- Blue Pump\n<|end|>\n"
        "<|start|>assistant\n-"
    )
    assert text_of(builder.build([1, 5])) == expected
    tokens, lengths, _ = builder.rows(np.array([[1, 5, 0, -1]]))
    assert text_of(tokens[0, : lengths[0]]) == expected + " Red Garden Hose<|end|>"


def test_only_the_templates_own_special_tokens_are_special():
    tokens = text_builder("chat").build([9, 10]).tolist()
    start, end = 1, small_tokenizer().eos
    assert (tokens.count(start), tokens.count(end)) == (2, 1)


@pytest.mark.parametrize("style", STYLES)
def test_what_does_not_fit_is_dropped_from_the_oldest_on_and_whole(style):
    whole = text_builder(style)
    fixed = len(whole.build([]))
    room = int(whole.item_lengths[[5, 10, 0]].sum())
    history = [2, 5, 10, 0]
    for spare, kept in ((0, 3), (whole.item_lengths[2] - 1, 3), (whole.item_lengths[2], 4), (-1, 2)):
        builder = text_builder(style, limit=fixed + room + int(spare))
        assert builder.build(history).tolist() == whole.build(history[-kept:]).tolist()
    tight = text_builder(style, max_history=2, limit=fixed + room)
    assert tight.build(history).tolist() == whole.build([10, 0]).tolist()


def test_no_room_for_an_item_is_an_error():
    with pytest.raises(ConfigError, match=r"prompt\.max_tokens=30 is too small: the instruction takes \d+ tokens"):
        text_builder(limit=30)
    longest = text_builder(max_history=1).max_tokens
    assert text_builder(limit=longest).max_tokens == longest
    with pytest.raises(ConfigError, match="is too small"):
        text_builder(limit=longest - 1)


def test_the_catalogue_and_the_prompt_must_end_items_alike():
    catalog = text_builder("chat").catalog
    with pytest.raises(ValueError, match="the catalog's items end in token 0, the prompts' answers in"):
        PromptBuilder(catalog, 3, text_format(PromptConfig(), small_tokenizer()))


def take(pipeline, count):
    return list(itertools.islice(iter(pipeline), count))


def epoch_of_pieces(dataset, builder, limits):
    packed = sft_rows(dataset, builder, limits)
    return [piece for batch in take(sft_batches(packed, 1, seed=0), len(packed)) for piece in unpacked(batch)]


@pytest.mark.parametrize("limit", [0, 90])
@pytest.mark.parametrize("style", STYLES)
def test_every_row_of_sft_is_prompt_and_answer_over_the_whole_data_set(style, limit):
    dataset = dataset_of(LENGTHS)
    builder = text_builder(style, max_history=4, limit=limit, titles=MANY)
    catalog = builder.catalog
    limits, _ = train_rows(dataset, 0.0)
    targets = 0
    for piece in epoch_of_pieces(dataset, builder, limits):
        ends = []
        for item, start in zip(piece.items, piece.starts, strict=True):
            targets += 1
            answer = catalog.tokens[item, : catalog.lengths[item]].tolist()
            assert piece.tokens[start + 1 : start + 1 + len(answer)].tolist() == answer
            ends.append(start + 1 + len(answer))
        assert ends[-1] == len(piece.tokens)
        assert start + 1 <= builder.max_tokens
    assert targets == (limits - 1).sum()


@pytest.mark.parametrize("limit", [0, 90])
@pytest.mark.parametrize("style", STYLES)
def test_rl_and_evaluation_give_the_prompts_of_sft(style, limit):
    """Where a user's whole sequence fits one piece, each sample's prompt and answer are how its SFT row begins."""
    dataset = dataset_of([2, 3, 4, 5, 4, 3] * 3)
    builder = text_builder(style, max_history=4, limit=limit, titles=MANY)
    catalog = builder.catalog
    everything = np.diff(dataset.offsets)  # SFT's rows of all splits, to hold against theirs
    rows: dict[int, list[list[int]]] = {}
    for piece in epoch_of_pieces(dataset, builder, everything):
        rows.setdefault(piece.user, []).append(piece.tokens.tolist())
    same = seen = 0
    for split in ("train", "valid", "test"):
        samples = positions(dataset, split)
        batches = take(prompt_batches(dataset, builder, samples, 1, seed=0), len(samples))
        batches += list(eval_batches(dataset, builder, samples, 1))
        for batch in batches:
            asked = batch.batch if isinstance(batch, Fed) else batch
            target = int(asked.target[0])
            sample = asked.prompts.tokens[0, : asked.prompts.lengths[0]].tolist()
            sample += catalog.tokens[target, : catalog.lengths[target]].tolist()
            found = [row[: len(sample)] == sample for row in rows[int(batch.ids.user[0])]]
            seen += 1
            same += any(found)
            if limit == 0 or style == "chat":
                assert any(found)
    assert same > seen / 2


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limit", [75, 90, 130])
def test_pieces_within_a_limit_of_tokens_show_every_target_once(style, limit):
    dataset = dataset_of(LENGTHS, seed=3)
    builder = text_builder(style, max_history=6, limit=limit, titles=MANY)
    limits = np.diff(dataset.offsets)
    pieces = sft_pieces(dataset, limits, builder)
    targets, shortest = [], 10**9
    for first, count, context in zip(pieces.first, pieces.count, pieces.context, strict=True):
        begin = dataset.offsets[dataset.user_of(np.array([first]))[0]]
        assert begin <= first and 1 <= context < count <= 7
        assert builder.continues or count == context + 1
        if builder.continues:
            history = dataset.item[first : first + count - 1]
            assert builder.item_lengths[history].sum() <= builder.history_tokens
            if first > begin:  # it could not have begun earlier
                longer = dataset.item[first - 1 : first + count - 1]
                assert count == 7 or builder.item_lengths[longer].sum() > builder.history_tokens
        targets += range(first + context, first + count)
        shortest = min(shortest, context)
    assert sorted(targets) == [b + p for b, n in zip(dataset.offsets, limits, strict=False) for p in range(1, n)]
    assert targets == sorted(targets)


def test_titles_in_the_world_are_of_many_lengths():
    assert len({int(n) for n in text_builder(titles=MANY).item_lengths}) > 5
    assert len(TITLES) == len(text_builder().item_lengths)


@pytest.mark.parametrize("style", STYLES)
def test_prompt_and_answer_are_sfts_tokens_over_all_of_office(style, tmp_path):
    dataset = prepare(DataConfig(source="recbole", path=shared("office"), k_core=0), tmp_path / "data")
    form = text_format(PromptConfig(style=style), small_tokenizer())
    titles = (dataset.titles, dataset.item_ids, small_tokenizer())
    catalog = catalog_from_titles(*titles, max_tokens=16, end=form.end)
    builder = PromptBuilder(catalog, 10, form, limit=200)
    limits = dataset.train_lengths()
    pieces = sft_pieces(dataset, limits, builder)
    targets = 0
    for first in range(0, len(pieces), 1024):
        part = slice(first, first + 1024)
        items = gather_ranges(dataset.item, pieces.first[part], pieces.count[part], 11)
        tokens, lengths, starts = builder.rows(items)
        assert lengths.max() <= tokens.shape[1] <= 200 + catalog.tokens.shape[1]
        place = np.arange(11)
        is_target = (place >= pieces.context[part, None]) & (place < pieces.count[part, None])
        for slot in place[is_target.any(0)]:
            rows = np.flatnonzero(is_target[:, slot])
            prompts, ends = builder.prompts(np.where(place < slot, items[rows], -1))
            answers, own = catalog.tokens[items[rows, slot]], catalog.lengths[items[rows, slot]]
            assert (ends == starts[rows, slot] + 1).all()
            for row, prompt, end, answer, length in zip(rows, prompts, ends, answers, own, strict=True):
                assert np.array_equal(tokens[row, : end + length], np.concatenate([prompt[:end], answer[:length]]))
            targets += len(rows)
    assert targets == (limits - 1).sum() > 30_000
