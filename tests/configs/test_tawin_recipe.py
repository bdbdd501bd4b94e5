"""configs/recipes/tawin.py without weights: every size's steps are traced, one is compiled among the slow tests."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs.test_configs import parse
from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.decode import Ranker
from wpauc_jax.models import make_policy, split_params
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import SFT_SCORING, make_sft_step
from wpauc_jax.training.state import init_state

PARAMETERS = {"0.5B": 0.494e9, "1.5B": 1.544e9, "3B": 3.086e9, "7B": 7.616e9}  # as the models' own pages say
PROMPT = 192
CASES = [("0.5B", "sid"), ("1.5B", "title"), ("3B", "sid"), ("7B", "title")]


@functools.cache
def catalogue(items):
    """A trie of items as long as a title or a semantic id, over ids that such a catalogue has."""
    rng = np.random.default_rng(0)
    if items == "title":
        sequences = [[*rng.integers(0, 151_000, rng.integers(3, 12)), 198] for _ in range(200)]
    else:
        sequences = np.unique(151_665 + np.arange(3) * 256 + rng.integers(0, 256, (200, 3)), axis=0).tolist()
    return build_trie(sequences)


def shape(*sizes, dtype=jnp.int32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def lowered(size, items, stage, **changes):
    """(the step of `stage` for abstract arrays, the parameters' shapes)."""
    config = parse(f"recipes/tawin.py:{size}-{items}", *(f"--config.{name}={value}" for name, value in changes.items()))
    tokens = max(config.model.vocab_size, max(int(rows.max()) for rows in catalogue(items).rows) + 1)
    policy, params = make_policy(dataclasses.replace(config.model, vocab_size=tokens))
    trained, frozen = split_params(policy, params)
    settings = config.sft if stage == "sft" else config.rl
    optimizer = make_optimizer(settings.optim, 100)
    state = jax.eval_shape(functools.partial(init_state, optimizer=optimizer, reference=stage == "rl"), trained)
    B, trie = settings.batch_size, catalogue(items)
    if stage == "sft":
        step = make_sft_step(Ranker(policy, trie, SFT_SCORING[settings.loss]), optimizer, frozen=frozen)
        batch = SftBatch(shape(B, PROMPT), shape(B, PROMPT), shape(B, 11), shape(B, 11))
    else:
        step = make_rl_step(Ranker(policy, trie, config.scoring), optimizer, settings, seed=0, frozen=frozen)
        batch = RlBatch(PromptBatch(shape(B, PROMPT), shape(B)), shape(B))
    return step.lower(state, batch), params


@pytest.mark.parametrize(("size", "items"), CASES)
def test_every_size_is_traced_with_its_number_of_parameters(size, items):
    program, params = lowered(size, items, "rl")
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == pytest.approx(PARAMETERS[size], rel=2e-3)
    state = jax.tree.leaves(program.out_info[0])
    assert sum(leaf.size for leaf in state) == pytest.approx(4 * count, rel=1e-6)  # two moments and the reference


@pytest.mark.parametrize("items", ["title", "sid"])
def test_sft_is_traced(items):
    program, _ = lowered("0.5B", items, "sft")
    assert program.out_info[1]["loss"].shape == ()


def test_an_adapter_needs_neither_moments_nor_a_reference_of_the_model():
    program, params = lowered("7B", "title", "rl", **{"model.lora.rank": 16})
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(leaf.size for leaf in jax.tree.leaves(program.out_info[0])) < 0.03 * count


@pytest.mark.slow
def test_the_smallest_is_compiled():
    program, _ = lowered("0.5B", "sid", "rl", **{"rl.batch_size": 2})
    analysis = program.compile().memory_analysis()
    assert analysis.argument_size_in_bytes > 4 * 4 * 0.49e9  # parameters, two moments, the reference, in float32
    assert analysis.temp_size_in_bytes < 12 * 2**30
