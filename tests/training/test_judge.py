"""Rewards, false negatives and several targets in a group's loss. A table of log-probabilities stands for the model."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import trie_for
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.objectives import group_advantages, policy_loss, ranking_reward, tawin_weights, wpauc_window
from wpauc_jax.training.groups import group_sums, groups_of
from wpauc_jax.training.judge import Judge

TRIE = trie_for([(token,) for token in range(3, 15)], "constrained")  # twelve items of one token
ITEMS = jnp.array([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, -1], [5, 4, 3, 2, 1, 0]])
LOGPS = jnp.asarray(-np.sort(np.random.default_rng(0).uniform(1, 4, (3, 6))), jnp.float32)
TARGET = jnp.array([2, 9, 11])
LATER = jnp.array([[4, 0], [10, -1], [-1, -1]])
PLAIN = RlConfig(group_size=6, target_k=3, kl_coef=0.0, weighting="none")
EMBEDDINGS = jnp.asarray(np.random.default_rng(1).normal(size=(12, 4)), jnp.float32)
TITLES = jnp.array([0, 1, 2, 1, 2, 5, 6, 7, 8, 9, 10, 11])  # 1 and 3, 2 and 4 have one title
BATCH = RlBatch(PromptBatch(None, None), TARGET, LATER, "prompts of the other run")
OTHER = types.SimpleNamespace(
    prefill=lambda params, prompts: prompts, score=lambda params, asked, items: -0.1 * items[..., None]
)
JUDGE = Judge(EMBEDDINGS, TITLES, OTHER, None)


@functools.cache
def told(config):
    """(gradient with respect to the log-probabilities [3, 6], metrics) of a group's loss."""

    def loss(logps):
        ranker = types.SimpleNamespace(score=lambda params, asked, items: logps[..., None], trie=TRIE)
        groups = groups_of(ITEMS, BATCH, None, judge=JUDGE, config=config)
        loss, metrics, _ = group_sums(ranker, None, None, groups, config=config)
        return loss.mean(), metrics

    grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(LOGPS)
    return np.asarray(grads), {name: np.asarray(value) for name, value in metrics.items()}


def expected(rewards, valid=None, weights=1.0):
    """The same of plain rewards [3, 6]."""
    valid = (ITEMS >= 0) if valid is None else valid

    def loss(logps):
        advantages = group_advantages(rewards, where=valid) * weights
        return policy_loss(logps[..., None], advantages, where=valid)[0]

    return np.asarray(jax.jit(jax.grad(loss))(LOGPS))


def option(**changes):
    return dataclasses.replace(PLAIN, **changes)


HIT = TARGET[:, None] == ITEMS
COSINES = jnp.einsum(
    "bgd,bd->bg", *(x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (EMBEDDINGS[ITEMS], EMBEDDINGS[TARGET]))
)
RANKING = ranking_reward(LOGPS, HIT, where=ITEMS >= 0)


@pytest.mark.parametrize(
    ("config", "rewards"),
    [
        (PLAIN, HIT.astype(jnp.float32)),
        (option(reward="ranking"), RANKING),
        (option(reward="semantic"), COSINES),
        (option(reward="collaborative", reward_from="x"), -0.1 * ITEMS),
        (
            option(reward="combined", reward_from="x", reward_weights=(1.0, 0.0, 0.5, 2.0)),
            HIT + 0.5 * COSINES - 0.2 * ITEMS,
        ),
    ],
    ids=lambda value: value.reward if isinstance(value, RlConfig) else "",
)
def test_each_reward_is_what_its_formula_says(config, rewards):
    grads, metrics = told(config)
    np.testing.assert_allclose(grads, expected(rewards), atol=1e-6)
    assert np.abs(grads).max() > 1e-2
    np.testing.assert_allclose(metrics["hit_rate"], 2 / 3, rtol=1e-6)
    dead = {"binary": 1 / 3, "ranking": 1 / 3}.get(config.reward, 0)
    np.testing.assert_allclose(metrics["dead_groups"], dead, rtol=1e-6)


# Misses that are no true negatives, by the settings that find them.
SPARED = {
    "title": {(0, 4)},  # item 4 has the title of item 2; item 2 itself is the hit
    "later": {(0, 0), (0, 4), (1, 4)},
    "embedding": {(b, g) for b, g in np.argwhere(np.asarray(COSINES) >= 0.3) if not HIT[b, g] and ITEMS[b, g] >= 0},
}


@pytest.mark.parametrize("by", SPARED)
@pytest.mark.parametrize("mode", ["mask", "reward"])
def test_planted_false_negatives_are_found(by, mode):
    setting = {"false_negative": by} | ({"false_negative_cosine": 0.3} if by == "embedding" else {})
    if mode == "reward":
        setting["false_negative_reward"] = 0.5
    grads, metrics = told(option(false_negatives=mode, **setting))
    spared = np.zeros((3, 6), bool)
    spared[tuple(zip(*SPARED[by], strict=True))] = True
    assert spared.any()
    np.testing.assert_allclose(metrics["false_negatives"], spared.sum() / 17, rtol=1e-5)
    if mode == "mask":
        wanted = expected(HIT.astype(jnp.float32), (ITEMS >= 0) & ~spared)
        assert not grads[spared].any()
    else:
        wanted = expected(jnp.where(spared, 0.5, HIT))
    np.testing.assert_allclose(grads, wanted, atol=1e-6)


def test_where_none_is_found_no_bit_changes():
    """No item but the target has its very embedding, and the target itself is never asked about."""
    nothing = {"false_negative": "embedding", "false_negative_cosine": 1.0}
    for mode in ("mask", "reward"):
        grads, metrics = told(option(false_negatives=mode, **nothing))
        assert metrics["false_negatives"] == 0
        np.testing.assert_array_equal(grads, told(PLAIN)[0])


def test_several_targets_and_their_window():
    """The window of Recall@K for n targets begins at rank K - n among the negatives and holds n of them."""
    config = option(targets=3, weighting="window")
    hit = np.array([[1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0] * 6], bool)  # 2, 4, 0; 9, 10; 11 alone
    weights = np.ones((3, 6))
    for row, wanted in enumerate((3, 2)):
        negatives = np.flatnonzero(~hit[row] & (np.asarray(ITEMS[row]) >= 0))
        n = len(negatives)
        alpha, d = wpauc_window(3, wanted, n)
        inside = negatives[(np.arange(n) >= round(alpha * n)) & (np.arange(n) < round((alpha + d) * n))]
        weights[row, negatives] = 0
        weights[row, inside] = n / len(inside)
    grads, metrics = told(config)
    np.testing.assert_allclose(grads, expected(jnp.asarray(hit, jnp.float32), weights=weights), atol=1e-6)
    np.testing.assert_allclose(metrics["hit_rate"], 2 / 3, rtol=1e-6)
    soft = told(option(targets=3, weighting="tawin"))[0]
    anchor, mass = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[3.0], [2.0], [1.0]])
    window = tawin_weights(LOGPS, hit, anchor=anchor, mass=mass, where=ITEMS >= 0)
    np.testing.assert_allclose(soft, expected(jnp.asarray(hit, jnp.float32), weights=window), atol=1e-6)


def test_trimming_leaves_the_top_out():
    """Of five negatives .4 are the first two; what is left has their weight, as WPAUC(.4, .6) has."""
    grads, _ = told(option(weighting="trimmed", trim_top=0.4))
    weights = np.ones((3, 6))
    weights[0], weights[1] = [0, 0, 1, 5 / 3, 5 / 3, 5 / 3], [0, 0, 2, 1, 2, 0]
    np.testing.assert_allclose(grads, expected(HIT.astype(jnp.float32), weights=weights), atol=1e-6)
    assert told(option(weighting="trimmed", trim_top=0.0))[0].tolist() == told(PLAIN)[0].tolist()


def test_recasts_pair_is_a_window_of_one():
    """ReCast (arXiv 2604.22169): only the best negative is pushed, as far as the target, with 1 - 1/G as a factor."""
    grads, _ = told(option(weighting="window", anchor=0, mass=1.0, std="none"))
    pair = np.zeros((3, 6))
    pair[0, [2, 0]] = pair[1, [3, 0]] = [-1, 1]
    sizes = np.array([[5 / 6], [4 / 5], [0]])
    np.testing.assert_allclose(grads, pair * sizes / 17, atol=1e-6)


def test_bounds_and_siblings_of_one_token():
    """A negative's push is scaled by p / (1 - p); with one token an item all candidates are siblings."""
    p = np.exp(np.asarray(LOGPS))
    plain = told(option(std="population"))[0]
    bounded = told(option(std="population", bound_negatives=True))[0]
    np.testing.assert_allclose(bounded, np.where(plain > 0, plain * p / (1 - p), plain), atol=1e-6)
    np.testing.assert_allclose(told(option(std="population", sibling_coef=0.5))[0], 1.5 * plain, atol=1e-5)
