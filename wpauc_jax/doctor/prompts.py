"""Checks of what the model is shown.

Is a target bound by its id? Is no answer in its own prompt? Do all stages have the same prompt?
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from wpauc_jax.batches.pipeline import eval_batches, prompt_batches, sft_batches
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.batches.rows import sft_rows, unpacked
from wpauc_jax.batches.title_tasks import Alignment
from wpauc_jax.batches.types import EvalBatch
from wpauc_jax.catalog.items import Catalog, padded
from wpauc_jax.data.dataset import Dataset, positions
from wpauc_jax.doctor.findings import Finding, items, note, problem, rows

_BATCH = 256
_LOOKED_AT = 2048  # samples of a split; a large split is looked at evenly
_BATCHES_OF_RL = 4


def looked_at(samples: np.ndarray) -> np.ndarray:
    """All of a split's samples, or some thousands of them, evenly spread."""
    if len(samples) <= _LOOKED_AT:
        return samples
    return samples[np.linspace(0, len(samples) - 1, _LOOKED_AT).astype(np.int64)]


def batches_of(dataset: Dataset, builder: PromptBuilder, rl_positions: np.ndarray) -> Iterator[tuple[str, EvalBatch]]:
    """What evaluation and RL are fed, by stage: up to some thousands of a split's samples, a few batches of RL."""
    for name in ("valid", "test"):
        for batch in eval_batches(dataset, builder, looked_at(positions(dataset, name)), _BATCH):
            yield name, jax.tree.map(lambda column, valid=batch.valid: column[valid], batch)
    feed = iter(prompt_batches(dataset, builder, rl_positions, _BATCH, seed=0))
    for _ in range(min(_BATCHES_OF_RL, -(-len(rl_positions) // _BATCH))):
        fed = next(feed)
        valid = np.ones(len(fed.batch.target), bool)
        left_out = np.zeros(len(valid), np.int32)
        yield "rl", EvalBatch(fed.batch.prompts, fed.batch.target, valid, left_out, fed.ids)


def rl_rows_are_kept_from_sft(dataset: Dataset, limits: np.ndarray, rl_positions: np.ndarray) -> list[Finding]:
    """With rl.rows=latest no sample of RL is among the leading items of its user that SFT sees."""
    user = dataset.user_of(rl_positions)
    shown = rl_positions[rl_positions < dataset.offsets[user] + limits[user]]
    return [problem(f"samples of RL that SFT sees too: {len(shown):,}", rows(dataset, shown))] if len(shown) else []


def targets_are_bound_by_id(dataset: Dataset, batches: Iterable[tuple[str, EvalBatch]]) -> list[Finding]:
    """A batch's target and user are those of its sample, and the sample is of the split that the stage is for."""
    wrong: list[np.ndarray] = []
    for stage, batch in batches:
        sample = batch.ids.sample
        bad = batch.target != dataset.item[sample]
        bad |= batch.ids.user != dataset.user_of(sample)
        bad |= dataset.split[sample] != {"rl": 0, "valid": 1, "test": 2}[stage]
        wrong.append(sample[bad])
    where = np.concatenate(wrong)
    if not len(where):
        return []
    text = f"samples with another's target or user, or of a split that is not their stage's: {len(where):,}"
    return [problem(text, rows(dataset, where))]


def prompts_hold_no_answer(
    dataset: Dataset, catalog: Catalog, builder: PromptBuilder, batches: Iterable[tuple[str, EvalBatch]]
) -> list[Finding]:
    """The target's tokens stand in a prompt only where the prompt's wording or an item of the history has them."""
    leaks: list[np.ndarray] = []
    empty = builder.build(np.zeros(0, np.int64))
    for _, batch in batches:
        target = batch.target
        answer = _without_end(catalog)[target]
        held = occurrences(batch.prompts.tokens, batch.prompts.lengths, answer)
        history = dataset.histories(batch.ids.sample, builder.max_history)
        allowed = occurrences(np.tile(empty, (len(target), 1)), np.full(len(target), len(empty)), answer)
        for item in history.T:
            own = np.where((item >= 0)[:, None], catalog.tokens[item], -1)
            allowed += occurrences(own, (own >= 0).sum(1), answer)
        leaks.append(batch.ids.sample[held > allowed])
    where = np.concatenate(leaks)
    if not len(where):
        return []
    text = f"prompts that hold their target's tokens, though no item of the history does: {len(where):,}"
    return [problem(text, rows(dataset, where))]


def _without_end(catalog: Catalog) -> np.ndarray:
    """Items' tokens without the one that ends an answer: in a history another may stand there."""
    tokens = catalog.tokens.copy()
    if catalog.end >= 0:
        tokens[np.arange(len(tokens)), catalog.lengths - 1] = -1
    return tokens


def occurrences(tokens: np.ndarray, lengths: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How often `wanted` int[B, C] (-1 behind its end) stands in `tokens` int[B, T], row by row: int64[B]."""
    inside = np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, -2)
    padded = np.pad(inside, ((0, 0), (0, wanted.shape[1])), constant_values=-2)
    matches = np.ones(inside.shape, bool)
    for step, column in enumerate(wanted.T):
        matches &= (padded[:, step : step + inside.shape[1]] == column[:, None]) | (column < 0)[:, None]
    return (matches & (wanted[:, :1] >= 0)).sum(1)


def prompts_are_the_builders(
    dataset: Dataset, builder: PromptBuilder, batches: Iterable[tuple[str, EvalBatch]]
) -> list[Finding]:
    """In RL, validation and test a sample's prompt is what the builder makes of its history, token for token."""
    found = []
    wrong: dict[str, list[int]] = {}
    for stage, batch in batches:
        histories = dataset.histories(batch.ids.sample, builder.max_history)
        for tokens, length, history, sample in zip(
            batch.prompts.tokens, batch.prompts.lengths, histories, batch.ids.sample, strict=True
        ):
            if not np.array_equal(tokens[:length], builder.build(history[history >= 0])):
                wrong.setdefault(stage, []).append(int(sample))
    for stage, samples in wrong.items():
        text = f"prompts of {stage} that differ from what recommendation would ask for that history: {len(samples):,}"
        found.append(problem(text, rows(dataset, np.array(samples))))
    return found


def sft_teaches_what_is_asked(
    dataset: Dataset, catalog: Catalog, builder: PromptBuilder, limits: np.ndarray
) -> list[Finding]:
    """Before each target of SFT stands the prompt of the items before it, behind it the catalog's tokens of it.

    The items are the last one to `max_history` before a training interaction of the batch's user, one of the
    `limits[user]` that SFT may see. So SFT sees the prompts of RL and evaluation, the tokens of the trie, and no row of
    validation, test or the hold-out of RL.
    """
    batch = next(iter(sft_batches(sft_rows(dataset, builder, limits), _BATCH, seed=0)))
    other_prompt, other_tokens = [], []
    seen = np.minimum(limits, dataset.train_lengths())
    for piece in unpacked(batch):
        for item, start in zip(piece.items.tolist(), (piece.starts + 1).tolist(), strict=True):
            own = catalog.tokens[item, : catalog.lengths[item]]
            if not np.array_equal(piece.tokens[start : start + len(own)], own):
                other_tokens.append((piece.user, item))
            if not _is_a_prompt(dataset, builder, piece.tokens[:start], piece.user, item, int(seen[piece.user])):
                other_prompt.append((piece.user, item))
    found = []
    for pairs, text in (
        (other_tokens, "targets that SFT teaches by other tokens than the catalog's"),
        (other_prompt, "targets that SFT teaches behind another prompt than that of the training items before them"),
    ):
        if pairs:
            names = [f"user {dataset.users[user]!r}, item {dataset.item_ids[item]!r}" for user, item in pairs[:3]]
            found.append(problem(f"{text}: {len(pairs):,}", names))
    return found


def _is_a_prompt(
    dataset: Dataset, builder: PromptBuilder, prompt: np.ndarray, user: int, item: int, limit: int
) -> bool:
    """Whether `prompt` is the builder's for the items before one of the user's training meetings with `item`."""
    first = dataset.offsets[user]
    own = dataset.item[first : first + limit]
    return any(
        np.array_equal(prompt, builder.build(own[place - size : place]))
        for place in np.flatnonzero(own == item)
        for size in range(min(int(place), builder.max_history), 0, -1)
    )


def prompts_begin_and_fit(builder: PromptBuilder, batches: Iterable[tuple[str, EvalBatch]]) -> list[Finding]:
    """Every prompt begins with the builder's own beginning, which stands there once, and is within the limit."""
    beginning = builder.build(np.zeros(0, np.int64))[0]
    found: dict[str, int] = {}
    for stage, batch in batches:
        tokens, lengths = batch.prompts.tokens, batch.prompts.lengths
        for text, wrong in (
            ("do not begin with the beginning token", tokens[:, 0] != beginning),
            ("begin with the beginning token twice", (tokens[:, :2] == beginning).all(1) & (lengths > 1)),
            (f"are longer than the limit of {builder.max_tokens} tokens", lengths > builder.max_tokens),
        ):
            if wrong.any():
                key = f"prompts of {stage} that {text}"
                found[key] = found.get(key, 0) + int(wrong.sum())
    return [problem(f"{text}: {number:,}") for text, number in found.items()]


def title_tasks_ask_for_what_they_show(
    dataset: Dataset, catalog: Catalog, titles: Sequence[Sequence[int]], tasks: Mapping[str, Alignment]
) -> list[Finding]:
    """A title task asks for each item by its own title or id, and answers with that item's other side.

    `titles` are the items' title tokens, `tasks` the rows by the name of their task. Items whose titles have the same
    tokens are asked for by one prompt; title_to_id then has several right answers, which is a note.
    """
    found = []
    ids = [row[:-1] for row in catalog.sequences()]  # without the end of an answer
    for task, asked in tasks.items():
        given, wanted = (titles, ids) if task == "title_to_id" else (ids, titles)
        answers = padded([[*tokens, catalog.end] for tokens in wanted])
        for text, wrong in (
            ("do not show their item", occurrences(asked.tokens, asked.starts + 1, padded(given)) == 0),
            ("show their answer", _shows_its_answer(asked, padded(wanted))),
            ("teach another answer than their item's", ~_continues_with(asked, answers)),
            ("are scored on another answer than their item's", _rows_differ(asked.answers, answers)),
        ):
            if wrong.any():
                text = f"rows of {task} that {text}: {int(wrong.sum()):,}"
                found.append(problem(text, items(dataset, np.flatnonzero(wrong))))
    if "title_to_id" in tasks:
        _, group, sizes = np.unique(padded(titles), axis=0, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[group.ravel()] > 1)
        if len(shared):
            text = f"items whose prompt of title_to_id asks for another item too: {len(shared):,}"
            found.append(note(text, items(dataset, shared)))
    return found


def _shows_its_answer(asked: Alignment, wanted: np.ndarray) -> np.ndarray:
    """bool[I]: whether a prompt holds its own answer more often than the next item's prompt does, as wording."""
    here = occurrences(asked.tokens, asked.starts + 1, wanted)
    return here > occurrences(np.roll(asked.tokens, -1, 0), np.roll(asked.starts, -1) + 1, wanted)


def _continues_with(asked: Alignment, answers: np.ndarray) -> np.ndarray:
    """bool[I]: whether a row's tokens behind its prompt are its answer, int[I, A] with -1 behind the end."""
    places = asked.starts[:, None] + 1 + np.arange(answers.shape[1])
    tokens = np.take_along_axis(asked.tokens, np.minimum(places, asked.tokens.shape[1] - 1), axis=1)
    return ((tokens == answers) & (places < asked.tokens.shape[1]) | (answers < 0)).all(1)


def _rows_differ(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool[n]: which rows differ; -1 behind a row's end is no difference."""
    width = max(left.shape[1], right.shape[1])
    wide = (np.pad(side, ((0, 0), (0, width - side.shape[1])), constant_values=-1) for side in (left, right))
    return np.not_equal(*wide).any(1)
