"""Batches of prompts of like length, padded to few widths: the same samples, the same results, less padding."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.batches.test_pipeline import LENGTHS, assert_equal_batches, take
from tests.data_worlds import dataset_of, ragged_catalog, shared
from tests.text_worlds import small_tokenizer
from tests.worlds import TINY
from wpauc_jax.batches.pipeline import eval_batches, prompt_batches
from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.batches.types import Fed, PromptBatch
from wpauc_jax.catalog import build_trie
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.config import ConfigError, DataConfig, PromptConfig
from wpauc_jax.data.dataset import positions
from wpauc_jax.data.prepare import prepare
from wpauc_jax.decode import Ranker
from wpauc_jax.evaluation.evaluate import evaluate, search_program
from wpauc_jax.models import init

CATALOG = ragged_catalog()
DATASET = dataset_of(LENGTHS * 6)
ONE, FEW = PromptBuilder(CATALOG, 6), PromptBuilder(CATALOG, 6, widths=(8, 16))


def prompts_of(batch) -> PromptBatch:
    """Of a batch of RL or of evaluation."""
    return batch.batch.prompts if isinstance(batch, Fed) else batch.prompts


def padding(batches) -> float:
    batches = list(batches)
    asked = [prompts_of(batch) for batch in batches]
    return 1 - sum(int(prompts.lengths.sum()) for prompts in asked) / sum(prompts.tokens.size for prompts in asked)


def rl_batches(builder, count, rows=None):
    return take(prompt_batches(DATASET, builder, positions(DATASET, "train"), 8, seed=0, rows=rows), count)


def test_a_batch_is_as_wide_as_its_longest_prompt_needs():
    assert FEW.widths == (8, 16, FEW.max_tokens) and ONE.widths == (ONE.max_tokens,)
    batches = rl_batches(FEW, 40) + list(eval_batches(DATASET, FEW, positions(DATASET, "test"), 8))
    for batch in batches:
        prompts = prompts_of(batch)
        width, longest = prompts.tokens.shape[1], prompts.lengths.max()
        assert width == min(width for width in FEW.widths if width >= longest)
        for sample, tokens, length in zip(batch.ids.sample, prompts.tokens, prompts.lengths, strict=True):
            history = DATASET.histories(np.array([sample]), 6)[0]
            np.testing.assert_array_equal(tokens[:length], ONE.build(history[history >= 0]))
            assert not tokens[length:].any()
    assert {prompts_of(batch).tokens.shape[1] for batch in batches} == set(FEW.widths)


def test_training_shows_every_sample_of_a_window_once_in_batches_of_like_length():
    assert len(positions(DATASET, "train")) > 16 * 8
    batches, plain = rl_batches(FEW, 32), rl_batches(ONE, 32)
    for window in (slice(16), slice(16, 32)):
        shown, drawn = (np.concatenate([batch.ids.sample for batch in some[window]]) for some in (batches, plain))
        assert sorted(shown.tolist()) == sorted(drawn.tolist())
        assert np.mean([np.ptp(prompts_of(batch).lengths) for batch in batches[window]]) < 3
        longest = [int(prompts_of(batch).lengths.max()) for batch in batches[window]]
        assert longest != sorted(longest)  # no order of lengths from batch to batch
    assert padding(batches) < 0.7 * padding(plain)


def test_a_small_set_never_has_a_sample_twice_in_a_batch():
    few = positions(DATASET, "train")[:9]
    for batch in take(prompt_batches(DATASET, FEW, few, 8, seed=0), 1):
        assert len(set(batch.ids.sample.tolist())) == 8


def test_a_process_makes_its_rows_of_the_same_batch():
    """Their width is the whole batch's."""
    rows = np.array([1, 6, 2])
    whole = [jax.tree.map(lambda column: column[rows], batch) for batch in rl_batches(FEW, 20)]
    assert_equal_batches(rl_batches(FEW, 20, rows), whole)


def test_a_restored_iterator_goes_on_with_the_same_batches():
    def iterator():
        return iter(prompt_batches(DATASET, FEW, positions(DATASET, "train"), 8, seed=0))

    first = iterator()
    for _ in range(21):  # into the second window
        next(first)
    again = iterator()
    again.set_state(first.get_state())
    assert_equal_batches(take(again, 14), take(first, 14))


def test_an_evaluation_finds_the_same_with_a_program_a_width():
    policy, params = init(dataclasses.replace(TINY, vocab_size=CATALOG.vocab_size), 0)
    ranker = Ranker(policy, build_trie(CATALOG.sequences()))
    program = search_program(num_beams=10)

    def ranks(builder):
        batches = eval_batches(DATASET, builder, positions(DATASET, "test"), 8)
        return evaluate(lambda params, batch: program(ranker, params, batch), params, batches)

    one = ranks(ONE)
    assert program._cache_size() == 1
    few = ranks(FEW)
    for field in ("sample", "user", "target", "rank"):
        np.testing.assert_array_equal(getattr(few, field), getattr(one, field))
    assert (one.rank >= 0).sum() > 5
    assert 1 < program._cache_size() <= len(FEW.widths)


def test_padding_falls_on_real_titles(tmp_path):
    dataset = prepare(DataConfig(source="recbole", path=shared("office"), k_core=0), tmp_path / "office")
    tokenizer = small_tokenizer()
    form = text_format(PromptConfig(), tokenizer)
    catalog = catalog_from_titles(dataset.titles, dataset.item_ids, tokenizer, max_tokens=32, end=form.end)
    found = []
    for widths in ((), (128, 192, 256, 320)):
        builder = PromptBuilder(catalog, 10, form, widths=widths)
        training = take(prompt_batches(dataset, builder, positions(dataset, "train"), 32, seed=0), 64)
        found.append((padding(eval_batches(dataset, builder, positions(dataset, "test"), 64)), padding(training)))
    (evaluation, training), (less_evaluation, less_training) = found
    assert evaluation > 0.25 and training > 0.35
    assert less_evaluation < 0.10 and less_training < 0.15


@pytest.mark.parametrize(
    ("widths", "message"), [((0, 5), "at least 1"), ((8, 4), "in ascending order"), ((4, 4), "in ascending order")]
)
def test_widths_that_are_none_are_refused(widths, message):
    with pytest.raises(ConfigError, match=rf"prompt.widths=.* must be {message}"):
        PromptConfig(widths=widths)
