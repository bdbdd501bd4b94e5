"""Objectives without a group, against the same formulas of every item's exact probability."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.test_rl import CONFIG, ITEMS, exact, loss_and_grad
from tests.worlds import some_prompts, some_rl_batch, tiny_policy, tiny_ranker, trie_for
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.config import ConfigError, OptimConfig, RlConfig
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.state import init_state

EXACT = RlConfig(estimator="exact", kl_coef=0.0, target_k=3)
TARGET = (4, 9, 30)  # of two tokens, of one, of two


def probabilities(params, scoring="constrained"):
    """Of every item [B, I], item by item through the trie: no target is looked at."""
    return jnp.exp(exact(tiny_policy()[0], params, some_prompts(), trie_for(ITEMS, scoring)))


def kth_negative(p, k):
    others = p.at[jnp.arange(3), jnp.asarray(TARGET)].set(0.0)
    return jnp.sort(others, axis=1)[:, -k]


FORMULAS = {
    "grpo": (EXACT, lambda p, _: -2 * jnp.arcsin(jnp.sqrt(p))),
    "dr_grpo": (dataclasses.replace(EXACT, kind="dr_grpo", std="none"), lambda p, _: -p),
    "gce": (dataclasses.replace(EXACT, kind="gce", q=0.3), lambda p, _: (1 - p**0.3) / 0.3),
    "soft_topk": (
        dataclasses.replace(EXACT, kind="soft_topk", threshold="exact", softness=0.7),
        lambda p, b: -jax.lax.stop_gradient(jax.nn.sigmoid((jnp.log(p) - jnp.log(b)) / 0.7)) * jnp.log(p),
    ),
    "surrogate": (
        dataclasses.replace(EXACT, kind="soft_topk", threshold="exact", soft_form="surrogate"),
        lambda p, b: -jax.nn.sigmoid(jnp.log(p) - jnp.log(b)),
    ),
    "mixture": (dataclasses.replace(EXACT, nll=0.4), lambda p, _: -2 * jnp.arcsin(jnp.sqrt(p)) - 0.4 * jnp.log(p)),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("dr_grpo", "surrogate") else name for name in FORMULAS],
)
def test_the_gradient_is_that_of_the_formula(name):
    _, params = tiny_policy()
    config, formula = FORMULAS[name]
    (loss, metrics), grads = loss_and_grad(params, None, some_rl_batch(TARGET), config)

    def plain(params):
        p = probabilities(params)
        threshold = jax.lax.stop_gradient(kth_negative(p, config.target_k))
        return formula(p[jnp.arange(3), jnp.asarray(TARGET)], threshold).mean()

    value, expected = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(loss, value, rtol=1e-4)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) > 1e-3
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6, rtol=2e-3)
    p = probabilities(params)[jnp.arange(3), jnp.asarray(TARGET)]
    np.testing.assert_allclose(metrics["target_mass"], p.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["nll"], -jnp.log(p).mean(), rtol=1e-4)


def test_thresholds_by_beams_and_by_a_window():
    """A search as wide as the catalog finds the true K-th negative; the window's width goes from there to the mean."""
    _, params = tiny_policy()
    p, batch = probabilities(params), some_rl_batch(TARGET)
    soft = dataclasses.replace(EXACT, kind="soft_topk", softness=0.5)
    target = p[jnp.arange(3), jnp.asarray(TARGET)]

    def told(**changes):
        return loss_and_grad(params, None, batch, dataclasses.replace(soft, **changes))[0][1]["soft_recall"]

    expected = jax.nn.sigmoid((jnp.log(target) - jnp.log(kth_negative(p, 3))) / 0.5).mean()
    np.testing.assert_allclose(told(threshold="exact"), expected, rtol=1e-4)
    wide = {"threshold": "window", "group_size": len(ITEMS)}
    np.testing.assert_allclose(told(**wide, temperature=1e-3), expected, rtol=1e-3)
    mean = (1 - target) / (len(ITEMS) - 1)
    np.testing.assert_allclose(
        told(**wide, temperature=1e6), jax.nn.sigmoid((jnp.log(target) - jnp.log(mean)) / 0.5).mean(), rtol=1e-3
    )
    found = told(threshold="beam")  # a search of four beams finds at most the true third negative
    assert expected - 1e-4 <= found < expected + 0.2


def test_what_is_left_out_of_the_ranking_is_no_threshold_and_no_target():
    _, params = tiny_policy()
    plain, p = some_rl_batch(TARGET), probabilities(params)
    best = jnp.argsort(-p, axis=1)[:, :3].astype(jnp.int32)
    excluded = jnp.where(best == jnp.asarray(TARGET)[:, None], -1, best)
    excluded = excluded.at[2].set(jnp.asarray([30, -1, -1]))  # the third row's own target is left out
    batch = RlBatch(PromptBatch(plain.prompts.tokens, plain.prompts.lengths, excluded), plain.target)
    config = dataclasses.replace(EXACT, kind="soft_topk", threshold="exact", target_k=1)
    (_, metrics), grads = loss_and_grad(params, None, batch, config)
    ranker = tiny_ranker(ITEMS)
    left = np.array(jax.jit(lambda params: ranker.score_all(params, ranker.prefill(params, batch.prompts)))(params))
    assert (np.isneginf(left).sum(1) == [(row >= 0).sum() for row in np.asarray(excluded)]).all()
    rows = np.arange(2)
    target, left[rows, TARGET[:2]] = left[rows, TARGET[:2]], -np.inf
    np.testing.assert_allclose(metrics["nll"], -target.mean(), rtol=1e-4)
    recall = 1 / (1 + np.exp(left[:2].max(1) - target))
    np.testing.assert_allclose(metrics["soft_recall"], recall.mean(), rtol=1e-3)  # the third row counts nowhere
    np.testing.assert_allclose(metrics["target_mass"], np.exp(target).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["above_threshold"], (target > left[:2].max(1)).mean())
    wide = dataclasses.replace(config, threshold="window", target_k=3, group_size=len(ITEMS))
    assert loss_and_grad(params, None, batch, wide)[0][1]["hit_rate"] == 1  # every item that may be found is
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", ["grpo", "soft_topk"])
def test_training_raises_the_targets(name):
    _, params = tiny_policy()
    optimizer = make_optimizer(OptimConfig(learning_rate=3e-3, schedule="constant", warmup=0), 30)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, FORMULAS[name][0], seed=0)
    state, batch = init_state(params, optimizer), some_rl_batch(TARGET)
    for _ in range(30):
        state, _ = step(state, batch)
    rows = jnp.arange(3), jnp.asarray(TARGET)
    assert (probabilities(state.params)[rows] > 1.5 * probabilities(params)[rows]).all()


def test_first_codes_are_counted():
    _, params = tiny_policy()
    config = dataclasses.replace(EXACT, kind="soft_topk")
    (_, metrics), _ = loss_and_grad(params, None, some_rl_batch(TARGET), config)
    order = np.argsort(-np.asarray(probabilities(params)), axis=1)[:, :4]
    exact_lists = [len({ITEMS[i][0] for i in row}) for row in order]
    assert abs(float(metrics["first_codes"]) - np.mean(exact_lists)) <= 1  # beams may miss an item of the best four


def test_dropout_draws_by_seed_and_step_and_zero_is_none():
    _, params = tiny_policy()
    optimizer = make_optimizer(OptimConfig(learning_rate=3e-3, schedule="constant", warmup=0), 30)

    @functools.cache
    def losses(config, seed):
        step = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=seed)
        state, found = init_state(jax.tree.map(jnp.copy, params), optimizer), []
        for _ in range(2):
            state, metrics = step(dataclasses.replace(state, params=jax.tree.map(jnp.copy, params)), some_rl_batch())
            found.append(float(metrics["loss"]))
        return tuple(found)

    plain, dropped = EXACT, dataclasses.replace(EXACT, dropout=0.5)
    assert losses(plain, 0) == losses(plain, 1) and losses(plain, 0)[0] == losses(plain, 0)[1]
    assert len({*losses(dropped, 0), *losses(dropped, 1)}) == 4
    group = dataclasses.replace(CONFIG, dropout=0.5)
    assert losses(group, 0) != losses(group, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "gce", "estimator": "sampled"}, r"rl.kind='gce' is none of rl.estimator='sampled', which knows grpo"),
        ({"kind": "dapo"}, r"rl.kind='dapo' is none of rl.estimator='exact'.* or rl.estimator='sampled'"),
        ({"kl_coef": 0.1}, r"rl.kl_coef=0.1 means nothing where rl.estimator='exact'.*set rl.kl_coef=0.0"),
        ({"negative_scale": 0.5}, "rl.negative_scale=0.5 means nothing"),
        ({"kind": "dr_grpo"}, "set rl.std='none'"),
        ({"kind": "soft_topk", "threshold": "window", "group_size": 3}, "rl.target_k=3 needs a negative of rank 2"),
        ({"estimator": "sampled", "nll": 0.1, "dead_groups": "compact"}, "needs rl.nll=0"),
        ({"estimator": "sampled", "dropout": 0.1, "dead_groups": "compact"}, "needs rl.dropout=0"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(EXACT, **changes)


def test_the_group_is_no_limit_where_there_is_none():
    assert not dataclasses.replace(EXACT, target_k=20).searches_groups


def test_scaled_negatives_and_likelihood_beside_a_group():
    """The loss of a group is linear in its advantages: scale 0 leaves the targets' part, 1 the whole."""
    _, params = tiny_policy()
    batch = some_rl_batch()

    def gradient(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        return jax.tree.leaves(loss_and_grad(params, None, batch, config)[1])

    whole, none, mixed = (
        gradient(**changes) for changes in ({}, {"negative_scale": 0.0}, {"negative_scale": 0.25, "nll": 0.5})
    )
    likelihood = gradient(estimator="exact", inject_target="never", kind="gce", q=0.0, group_size=16)
    assert not all(np.allclose(a, b, atol=1e-5) for a, b in zip(whole, none, strict=True))
    for a, b, c, d in zip(whole, none, mixed, likelihood, strict=True):
        np.testing.assert_allclose(c, 0.25 * a + 0.75 * b + 0.5 * d, atol=1e-6, rtol=1e-3)
