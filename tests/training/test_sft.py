"""The SFT step: what it computes, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.worlds import score_items, tiny_policy, variable_length_items
from tests.worlds import trie_for as tiny_trie
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import ConfigError, OptimConfig, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.models import Prompts
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import SFT_SCORING, make_sft_step, sft_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)


def test_sft_in_one_pass_equals_sliding_windows():
    """One causal pass over (a, b, c, d) and (e, f), packed into a row, predicts b, c, d and f from their histories."""
    policy, params = tiny_policy()
    trie = tiny_trie(ITEMS, "constrained")
    tokens, segments, targets, starts, histories = [], [], [], [], []
    for segment, sequence in enumerate(([3, 17, 8, 25], [5, 11]), start=1):
        row = [1]
        for item in sequence:
            if len(row) > 1:
                targets.append(item)
                starts.append(len(tokens) + len(row) - 1)
                histories.append(list(row))
            row += ITEMS[item]
        tokens += row
        segments += [segment] * len(row)
    batch = SftBatch(
        tokens=jnp.asarray([[*tokens, 0, 0]], jnp.int32),
        segments=jnp.asarray([[*segments, 0, 0]], jnp.int32),
        items=jnp.asarray([[*targets, -1]], jnp.int32),
        starts=jnp.asarray([[*starts, 0]], jnp.int32),
    )
    total, count = jax.jit(sft_loss)(Ranker(policy, trie), params, batch)
    windows = 0.0
    for history, item in zip(histories, targets, strict=True):
        prompts = Prompts(jnp.asarray([history], jnp.int32), jnp.asarray([len(history)], jnp.int32))
        windows -= score_items(policy, params, prompts, trie, jnp.asarray([[item]])).sum()
    assert count == 4
    np.testing.assert_allclose(total, windows, rtol=1e-5)


@pytest.mark.parametrize("loss", SFT_SCORING)
def test_sft_learns_one_batch(loss):
    """Semantic ids need no end token: under `lm` the token behind an item is the next item's first."""
    policy, params = tiny_policy()
    items = [(4, 10), (3, 12), (5, 11), (3, 11)]
    ranker = Ranker(policy, trie_for(items, SFT_SCORING[loss]), SFT_SCORING[loss])
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 60)
    step = make_sft_step(ranker, optimizer)
    batch = SftBatch(
        tokens=jnp.asarray([[1, *items[0], *items[1], *items[2]]], jnp.int32),
        segments=jnp.ones((1, 7), jnp.int32),
        items=jnp.asarray([[-1, 1, 2]], jnp.int32),
        starts=jnp.asarray([[0, 2, 4]], jnp.int32),
    )
    state = init_state(params, optimizer)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.05 * losses[0]


LEARNT = [(4, 10), (3, 12), (5, 11), (3, 11)]
BATCH = SftBatch(
    tokens=jnp.asarray([[1, *LEARNT[0], *LEARNT[1], *LEARNT[2]]], jnp.int32),
    segments=jnp.ones((1, 7), jnp.int32),
    items=jnp.asarray([[-1, 1, 2]], jnp.int32),
    starts=jnp.asarray([[0, 2, 4]], jnp.int32),
)


@pytest.mark.parametrize("excluded", [None, [[[-1, -1], [3, -1], [-1, -1]]]])
def test_label_smoothing_is_cross_entropy_with_smoothed_labels(excluded):
    """Computed anew in NumPy from the logits of a plain forward pass; node by node, over the children left open."""
    policy, params = tiny_policy()
    ranker = Ranker(policy, trie_for(LEARNT, "constrained"))
    batch = BATCH if excluded is None else dataclasses.replace(BATCH, excluded=jnp.asarray(excluded, jnp.int32))
    total, count = jax.jit(functools.partial(sft_loss, smoothing=0.2))(ranker, params, batch)
    logits = np.asarray(jax.jit(policy.forward)(params, BATCH.tokens), np.float64)[0]
    expected = 0.0
    for item, start, out in ((1, 2, set() if excluded is None else {3}), (2, 4, set())):
        left = [row for number, row in enumerate(LEARNT) if number not in out]
        for step, token in enumerate(LEARNT[item]):
            children = sorted({row[step] for row in left if row[:step] == LEARNT[item][:step]})
            logps = logits[start + step][children] - np.logaddexp.reduce(logits[start + step][children])
            labels = 0.8 * (np.array(children) == token) + 0.2 / len(children)
            expected -= (labels * logps).sum()
    assert count == 2
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    plain, _ = jax.jit(sft_loss)(ranker, params, batch)
    assert abs(float(plain) - expected) > 0.01


def test_smoothing_over_the_vocabulary_is_refused():
    with pytest.raises(ConfigError, match=r"sft\.label_smoothing=0\.1 needs sft\.loss='catalog' \(it is 'lm'\)"):
        SftConfig(loss="lm", label_smoothing=0.1)


OPTIMIZER = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 60)


@functools.cache
def step_of(config, seed):
    return make_sft_step(Ranker(tiny_policy()[0], trie_for(LEARNT, "constrained")), OPTIMIZER, config, seed=seed)


def stepped(config, state, seed=0):
    return step_of(config, seed)(jax.tree.map(jnp.copy, state), BATCH)[0]


def trained(config, steps=5, seed=0):
    """The states before and after each step."""
    states = [init_state(tiny_policy()[1], OPTIMIZER, average=config.ema > 0)]
    for _ in range(steps):
        states.append(stepped(config, states[-1], seed))
    return states


def test_the_average_follows_the_parameters():
    states = trained(SftConfig(ema=0.4), steps=8)
    average = jax.tree.map(np.asarray, states[0].params)
    for done, state in enumerate(states[1:]):
        decay = min(0.4, (1 + done) / (10 + done))  # the second is smaller in the first five steps
        average = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * np.asarray(new), average, state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.answering, average)
    plain = trained(SftConfig(), steps=8)[-1]
    assert plain.average is None and plain.answering is plain.params


def test_the_average_changes_no_update():
    """By gradient descent: Adam makes much of the last bits of a gradient near 0, in which two programs may differ."""
    found = []
    for config in (SftConfig(), SftConfig(ema=0.4)):
        optimizer = optax.sgd(0.1)
        step = make_sft_step(Ranker(tiny_policy()[0], trie_for(LEARNT, "constrained")), optimizer, config)
        state = init_state(tiny_policy()[1], optimizer, average=config.ema > 0)
        for _ in range(4):
            state, _ = step(state, BATCH)
        found.append(state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)
    assert np.abs(np.asarray(found[0]["embed"] - tiny_policy()[1]["embed"])).max() > 1e-3


def test_what_dropout_draws_is_a_function_of_seed_and_step():
    config = SftConfig(dropout=0.3)
    states, again, other = (trained(config, seed=seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, states[-1].params, again[-1].params)
    assert np.abs(np.asarray(other[1].params["embed"] - states[1].params["embed"])).max() > 1e-4
    # The same parameters and rows, one step later: another draw, so another update.
    later = dataclasses.replace(states[0], step=states[0].step + 1)
    assert np.abs(np.asarray(stepped(config, later).params["embed"] - states[1].params["embed"])).max() > 1e-4


def test_weight_decay_leaves_norms_and_biases_alone():
    """One step with gradients of 0: what shrinks is decayed."""
    params = jax.tree.map(jnp.ones_like, tiny_policy()[1])
    optimizer = make_optimizer(OptimConfig(learning_rate=0.5, schedule="constant", warmup=0, weight_decay=0.1), 10)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    shrunk = {
        jax.tree_util.keystr(path): bool(np.any(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert {name for name, found in shrunk.items() if not found} == {
        name for name in shrunk if "norm" in name or "bias" in name
    }
    assert sum(shrunk.values()) > 10


def test_the_loss_of_first_tokens_joins_the_mean():
    """Against the items' token losses by a pass of their own; weight 0 adds nothing to the program."""
    policy, params = tiny_policy()
    ranker = Ranker(policy, trie_for(LEARNT, "constrained"))
    loss = jax.jit(functools.partial(sft_loss, ranker), static_argnames="prefixes")
    plain, count = loss(params, BATCH)
    whole, same = loss(params, BATCH, prefixes=(0.3, 2.0))
    steps = []
    for item, start in ((1, 2), (2, 4)):
        prompts = Prompts(BATCH.tokens[:, : start + 1], jnp.asarray([start + 1], jnp.int32))
        steps.append(-score_items(policy, params, prompts, ranker.trie, jnp.asarray([[item]]))[0, 0])
    assert np.asarray(ranker.trie.lengths)[[1, 2]].tolist() == [2, 1]  # one token tells item 2
    means = np.array([(steps[0][0] + steps[1][0]) / 2, steps[0].sum() / 2])
    weight = means * np.exp(2.0 * means)
    assert count == same
    np.testing.assert_allclose(whole - plain, 0.3 * count * (weight / weight.sum() * means).sum(), rtol=1e-4)


def test_first_tokens_need_plain_losses():
    with pytest.raises(ConfigError, match=r"sft\.prefix_loss=0\.1 needs sft\.loss='catalog' \(it is 'lm'\)"):
        SftConfig(loss="lm", prefix_loss=0.1)
    with pytest.raises(ConfigError, match=r"sft\.prefix_eta=2\.0 means nothing where sft\.prefix_loss=0"):
        SftConfig(prefix_eta=2.0)
