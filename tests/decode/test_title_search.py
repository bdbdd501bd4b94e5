"""Constrained search over titles of any length against brute force: every item scored by itself, without a trie."""

import collections
import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data_worlds import shared
from tests.text_worlds import made_titles, small_tokenizer
from tests.worlds import TINY, beam_search
from wpauc_jax.batches.prompts import PromptBuilder, text_format
from wpauc_jax.catalog import Catalog, build_trie
from wpauc_jax.catalog.titles import catalog_from_titles
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import DataConfig, PromptConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.models import Prompts, init


def world(titles: list[str], tokenizer: Tokenizer, *, style: str, users: int, seed: int = 0):
    """A catalogue of the titles, a random model of the tokenizer's vocabulary, and users with random histories."""
    form = text_format(PromptConfig(style=style), tokenizer)
    ids = [f"i{number}" for number in range(len(titles))]
    catalog = catalog_from_titles(titles, ids, tokenizer, max_tokens=24, end=form.end)
    policy, params = init(dataclasses.replace(TINY, vocab_size=tokenizer.size), seed)
    histories = np.random.default_rng(seed).integers(0, len(titles), (users, 4))
    histories[0, 2:] = -1
    tokens, lengths = PromptBuilder(catalog, 4, form).prompts(histories)
    return catalog, policy, params, Prompts(jnp.asarray(tokens), jnp.asarray(lengths))


def brute_force(catalog: Catalog, policy, params, prompts: Prompts, scoring: str, block: int = 25) -> np.ndarray:
    """Log-probabilities float64[B, I], each by a plain forward pass over prompt and title."""
    sequences = [tuple(row) for row in catalog.sequences()]
    legal = collections.defaultdict(set)
    for row in sequences:
        for j, token in enumerate(row):
            legal[row[:j]].add(token)
    hidden = jax.jit(type(policy).hidden, static_argnums=0)
    logits = jax.jit(type(policy).logits, static_argnums=0)
    longest = catalog.tokens.shape[1]
    out = np.zeros((prompts.tokens.shape[0], len(sequences)))
    for b, length in enumerate(np.asarray(prompts.lengths)):
        for start in range(0, len(sequences), block):
            part = sequences[start : start + block]
            rows = np.zeros((block, prompts.tokens.shape[1] + longest), np.int32)
            rows[:, :length] = np.asarray(prompts.tokens)[b, :length]
            for row, sequence in zip(rows, part, strict=False):
                row[length : length + len(sequence)] = sequence
            states = hidden(policy, params, jnp.asarray(rows))
            states = jax.lax.dynamic_slice_in_dim(states, int(length) - 1, longest, axis=1)
            steps = np.asarray(logits(policy, params, states), np.float64)
            for i, sequence in enumerate(part):
                for j, token in enumerate(sequence):
                    among = steps[i, j] if scoring == "vocab" else steps[i, j, sorted(legal[sequence[:j]])]
                    out[b, start + i] += steps[i, j, token] - np.logaddexp.reduce(among)
    return out


def assert_exact(catalog: Catalog, policy, params, prompts: Prompts, scoring: str) -> None:
    """A beam as wide as the catalogue lists every item once, in the order of brute force, with its scores."""
    trie = build_trie(catalog.sequences(), trim=scoring == "constrained")
    found = beam_search(policy, params, prompts, trie, num_beams=catalog.num_items, scoring=scoring)
    truth = brute_force(catalog, policy, params, prompts, scoring)
    assert found.valid.all()
    np.testing.assert_array_equal(np.sort(found.items, axis=1), np.tile(np.arange(catalog.num_items), (len(truth), 1)))
    np.testing.assert_allclose(found.scores, np.take_along_axis(truth, np.asarray(found.items), axis=1), atol=2e-5)
    ordered = np.take_along_axis(truth, np.asarray(found.items), axis=1)
    assert (np.diff(ordered, axis=1) <= 2e-5).all()
    if scoring == "constrained":
        np.testing.assert_allclose(np.exp(truth).sum(1), 1.0, atol=1e-5)


@pytest.mark.parametrize(("style", "scoring"), [("list", "constrained"), ("chat", "vocab")])
def test_beams_over_titles_equal_brute_force(style, scoring):
    titles = [title[:4] for title in made_titles(30)]  # short, as the programs grow with the trie's depth
    catalog, *rest = world(titles, small_tokenizer(), style=style, users=2)
    assert catalog.duplicates > 5
    assert len(set(catalog.lengths.tolist())) > 3
    assert_exact(catalog, *rest, scoring)


def test_beams_over_real_titles_with_a_real_tokenizer_equal_brute_force(tmp_path):
    folder = os.environ.get("WPAUC_JAX_TOKENIZER")
    if not folder:
        pytest.skip("needs a real tokenizer: set WPAUC_JAX_TOKENIZER to a folder with tokenizer.json")
    rows = prepare(DataConfig(source="recbole", path=shared("yelp"), k_core=0), tmp_path / "yelp").titles
    counts = collections.Counter(rows)
    chains = [title for title, count in counts.most_common(5) for _ in range(min(count, 20))]
    titles = chains + [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[: 500 - len(chains)]]
    catalog, *rest = world(titles, Tokenizer(folder), style="list", users=2)
    assert catalog.num_items == 500 and catalog.duplicates >= 95 and len(set(catalog.lengths.tolist())) > 8
    assert_exact(catalog, *rest, "constrained")
