"""Each check of prompts and of SFT's rows finds the fault planted for it and names its row."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.doctor_worlds import (
    BUILDER,
    CATALOG,
    LENGTH,
    LIMIT,
    STYLES,
    changed,
    clean_dataset,
    fed,
    only,
)
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.data.dataset import train_rows
from wpauc_jax.doctor import prompts


def altered(stage: str, change) -> list:
    """The batches, those of one stage changed by `change(batch)`."""
    out = []
    for name, batch in fed(clean_dataset()):
        copied = jax.tree.map(np.copy, batch)
        if name == stage:
            change(copied)
        out.append((name, copied))
    return out


def test_a_target_of_another_sample():
    def swap(batch):
        batch.target[:2] = batch.target[1::-1]

    found = prompts.targets_are_bound_by_id(clean_dataset(), altered("test", swap))
    assert only(found, is_problem=True).text.endswith("not their stage's: 2")

    def train_row(batch):
        batch.ids.sample[0], batch.target[0] = 1, clean_dataset().item[1]

    finding = only(prompts.targets_are_bound_by_id(clean_dataset(), altered("test", train_row)), is_problem=True)
    assert finding.references[0].startswith("row 1 (user 'u0'") and finding.references[0].endswith("train)")


@pytest.mark.parametrize("stage", ["valid", "test", "rl"])
def test_a_prompt_with_its_answer(stage):
    def leak(batch):
        answer = CATALOG.tokens[batch.target[0]]
        end = batch.prompts.lengths[0]
        batch.prompts.tokens[0, end - len(answer) : end] = answer

    batches = altered(stage, leak)
    finding = only(prompts.prompts_hold_no_answer(clean_dataset(), CATALOG, BUILDER, batches), is_problem=True)
    assert finding.text.endswith("does: 1") and f", {'train' if stage == 'rl' else stage})" in finding.references[0]
    # And it is not what the builder makes of that history.
    finding = only(prompts.prompts_are_the_builders(clean_dataset(), BUILDER, batches), is_problem=True)
    assert finding.text.startswith(f"prompts of {stage} that differ")


@pytest.mark.parametrize("style", STYLES)
def test_a_title_in_the_instruction_of_its_own_prompt(style):
    builder = STYLES[style]
    batches = fed(clean_dataset(), builder)
    batch = next(batch for name, batch in batches if name == "test")
    answer = builder.catalog.tokens[batch.target[0]]
    title = answer[: (answer >= 0).sum() - 1]  # its end is not among what leaks
    batch.prompts.tokens[0, 2 : 2 + len(title)] = title
    found = prompts.prompts_hold_no_answer(clean_dataset(), builder.catalog, builder, batches)
    assert only(found, is_problem=True).text.endswith("does: 1")


def test_an_answer_that_the_history_holds_is_no_leak():
    dataset = clean_dataset()
    repeat = changed("item", LENGTH - 1, dataset.item[LENGTH - 2])
    assert prompts.prompts_hold_no_answer(repeat, CATALOG, BUILDER, fed(repeat)) == []


def test_occurrences_against_a_loop():
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, 3, (200, 9)), rng.integers(1, 10, 200)
    wanted = rng.integers(0, 3, (200, 3))
    sizes = rng.integers(0, 4, 200)
    wanted[np.arange(3) >= sizes[:, None]] = -1
    for row, want, length, size, count in zip(
        tokens, wanted, lengths, sizes, prompts.occurrences(tokens, lengths, wanted), strict=True
    ):
        text, sought = row[:length].tolist(), want[:size].tolist()
        expected = sum(text[i : i + size] == sought for i in range(length - size + 1)) if size else 0
        assert count == expected


class Preamble(PromptBuilder):
    """Asks RL and evaluation with one token more than SFT teaches."""

    def build(self, history):
        prompt = super().build(history)
        return np.concatenate([prompt[:1], prompt[:1], prompt[1:]])


def test_sft_with_another_prompt():
    dataset, limits = clean_dataset(), train_rows(clean_dataset(), 0)[0]
    builder = Preamble(CATALOG, LIMIT)
    finding = only(prompts.sft_teaches_what_is_asked(dataset, CATALOG, builder, limits), is_problem=True)
    assert finding.text.startswith("targets that SFT teaches behind another prompt")
    assert finding.references[0].startswith("user 'u")
    assert prompts.prompts_are_the_builders(dataset, builder, fed(dataset, builder))


def test_sft_with_other_tokens():
    dataset, limits = clean_dataset(), train_rows(clean_dataset(), 0)[0]
    other = dataclasses.replace(CATALOG, tokens=CATALOG.tokens[::-1])
    finding = only(prompts.sft_teaches_what_is_asked(dataset, other, BUILDER, limits), is_problem=True)
    assert finding.text.startswith("targets that SFT teaches by other tokens")


def test_sft_on_test_rows_or_on_those_of_rl():
    dataset = clean_dataset()
    limits, held_out = train_rows(dataset, 0.3)
    found = prompts.sft_teaches_what_is_asked(dataset, CATALOG, BUILDER, dataset.train_lengths() + 2)
    assert "behind another prompt than that of the training items" in only(found, is_problem=True).text
    found = prompts.rl_rows_are_kept_from_sft(dataset, dataset.train_lengths(), held_out)
    assert only(found, is_problem=True).text == f"samples of RL that SFT sees too: {len(held_out)}"
    assert len(held_out) and prompts.rl_rows_are_kept_from_sft(dataset, limits, held_out) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda batch: batch.prompts.tokens.__setitem__((0, 0), 5), "do not begin with the beginning token: 1"),
        (lambda batch: batch.prompts.tokens.__setitem__((0, 1), 1), "begin with the beginning token twice: 1"),
        (lambda batch: batch.prompts.lengths.__setitem__(0, 10), "are longer than the limit of 9 tokens: 1"),
    ],
)
def test_a_prompt_that_begins_wrong_or_is_too_long(change, text):
    finding = only(prompts.prompts_begin_and_fit(BUILDER, altered("valid", change)), is_problem=True)
    assert finding.text == f"prompts of valid that {text}"
