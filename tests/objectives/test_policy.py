"""Advantages and policy losses: definitions by loop, identities between the kinds, exact accumulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.objectives import (
    group_advantages,
    policy_loss,
    policy_loss_sums,
    rloo_advantages,
    tawin_advantages,
    tawin_loss,
    tawin_weights,
)

USERS, GROUP, TOKENS = 4, 6, 3
KINDS = ("grpo", "dapo", "gspo", "dr_grpo")


def make_batch(seed=0, users=USERS):
    """(logps, old, ref, advantages, token_mask, where): ragged tokens, an empty sequence, invalid candidates."""
    rng = np.random.default_rng(seed)
    logps = rng.normal(size=(users, GROUP, TOKENS)) * 0.4 - 2
    old, ref = (logps + rng.normal(size=logps.shape) * scale for scale in (0.25, 0.5))
    token_mask = np.arange(TOKENS) < rng.integers(0, TOKENS + 1, size=(users, GROUP, 1))
    token_mask[0, 0] = False
    where = rng.random((users, GROUP)) < 0.8
    return logps, old, ref, rng.normal(size=(users, GROUP)), token_mask, where


def slow_kl(lp, ref, estimator):
    return {"k1": lp - ref, "k2": (lp - ref) ** 2 / 2, "k3": np.exp(ref - lp) - (ref - lp) - 1}[estimator]


def slow_loss(kind, kl_coef, estimator, max_length, batch, low=0.2, high=0.3):
    """The losses as they are written in their papers, a loop over candidates and tokens."""
    sequences, tokens, lengths = [], [], []
    for lp, old, ref, advantage, mask, valid in zip(*(x.reshape(-1, *x.shape[2:]) for x in batch), strict=True):
        if not valid or not mask.any():
            continue
        lp, old, ref = lp[mask], old[mask], ref[mask]
        ratio = np.exp((lp - old).mean() if kind == "gspo" else lp - old) * np.ones_like(lp)
        terms = np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)
        terms = terms - kl_coef * slow_kl(lp, ref, estimator)
        tokens.extend(-terms)
        lengths.append(len(terms))
        sequences.append(-terms.sum() / max_length if kind == "dr_grpo" else -terms.mean())
    return np.mean(tokens if kind == "dapo" else sequences)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_losses_equal_their_definitions(kind, estimator):
    logps, old, ref, advantages, token_mask, where = batch = make_batch()
    with jax.enable_x64(True):
        loss, metrics = policy_loss(
            logps,
            advantages,
            old_logps=old,
            ref_logps=ref,
            token_mask=token_mask,
            where=where,
            kind=kind,
            clip_high=0.3,
            kl_coef=0.5,
            kl_estimator=estimator,
            max_length=7,
        )
    np.testing.assert_allclose(loss, slow_loss(kind, 0.5, estimator, 7, batch), rtol=1e-12)
    counted = token_mask & where[..., None]
    np.testing.assert_allclose(metrics["kl"], slow_kl(logps, ref, estimator)[counted].mean(), rtol=1e-12)
    ratio = np.exp(logps - old)
    if kind == "gspo":
        counted_sequences = counted.any(-1)
        means = np.ma.array(logps - old, mask=~counted).mean(-1).filled(0)
        ratio, counted, advantages = np.exp(means), counted_sequences, advantages
    else:
        advantages = np.broadcast_to(advantages[..., None], ratio.shape)
    clipped = ((ratio > 1.3) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
    assert 0 < clipped[counted].mean() < 1
    np.testing.assert_allclose(metrics["clip_fraction"], clipped[counted].mean(), rtol=1e-12)
    np.testing.assert_allclose(metrics["ratio"], ratio[counted].mean(), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_add_up_exactly(kind):
    """Unequal counts in the parts: the mean of the parts' means would be off."""
    logps, old, ref, advantages, token_mask, where = make_batch(3)
    where[:1] = np.arange(GROUP) < 2

    def sums(logps, rows):
        return policy_loss_sums(
            logps[rows],
            advantages[rows],
            old_logps=old[rows],
            ref_logps=ref[rows],
            token_mask=token_mask[rows],
            where=where[rows],
            kind=kind,
            kl_coef=0.1,
        )

    def value_and_slope(rows):
        def summed(logps):
            result = sums(logps, rows)
            return result.loss.sum, result

        (_, result), slope = jax.jit(jax.value_and_grad(summed, has_aux=True))(jnp.asarray(logps))
        return result, slope

    with jax.enable_x64(True):
        (first, slope_1), (second, slope_2) = value_and_slope(slice(0, 1)), value_and_slope(slice(1, None))
        added = jax.tree.map(jnp.add, first, second)
        whole = slice(None)
        loss, slope = jax.jit(jax.value_and_grad(lambda logps: sums(logps, whole).means()[0]))(jnp.asarray(logps))
        np.testing.assert_allclose(added.means()[0], loss, rtol=1e-13)
        np.testing.assert_allclose((slope_1 + slope_2) / added.loss.count, slope, rtol=1e-12, atol=1e-15)
        for name, value in sums(logps, whole).means()[1].items():
            np.testing.assert_allclose(added.means()[1][name], value, rtol=1e-13)
        assert abs((first.loss.mean() + second.loss.mean()) / 2 - loss) > 1e-3


def slope_of(kind, advantages, logps):
    return np.asarray(jax.jit(jax.grad(lambda logps: policy_loss(logps, advantages, kind=kind)[0]))(logps))


def test_one_update_per_rollout_makes_the_kinds_equal():
    """Ratio 1 and equal lengths: GSPO and DAPO have GRPO's gradient, Dr.GRPO that times 1 / sqrt(G)."""
    group = 16
    logps = np.random.default_rng(0).normal(size=(3, group, TOKENS))
    rewards = np.zeros((3, group))
    rewards[[0, 1, 2], [0, 5, 15]] = 1
    with jax.enable_x64(True):
        advantages = group_advantages(rewards, eps=0.0)
        grpo = slope_of("grpo", advantages, logps)
        assert np.abs(grpo).max() > 0.01
        np.testing.assert_allclose(slope_of("gspo", advantages, logps), grpo, rtol=1e-12)
        np.testing.assert_allclose(slope_of("dapo", advantages, logps), grpo, rtol=1e-12)
        dr_grpo = slope_of("dr_grpo", group_advantages(rewards, std="none"), logps)
        np.testing.assert_allclose(dr_grpo, grpo / 4, rtol=1e-12)


def test_gspo_equals_grpo_for_unequal_lengths_but_dapo_does_not():
    logps, _, _, advantages, token_mask, _ = make_batch()
    with jax.enable_x64(True):

        def slope(kind):
            return jax.jit(jax.grad(lambda lp: policy_loss(lp, advantages, token_mask=token_mask, kind=kind)[0]))(logps)

        np.testing.assert_allclose(slope("gspo"), slope("grpo"), rtol=1e-12)
        assert np.abs(slope("dapo") - slope("grpo")).max() > 1e-3


rewards_lists = st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.1, -2.0]), min_size=GROUP, max_size=GROUP)
mask_lists = st.lists(st.booleans(), min_size=GROUP, max_size=GROUP)
jitted_advantages = {
    std: jax.jit(lambda r, w, std=std: group_advantages(r, std=std, where=w))
    for std in ("sample", "population", "none")
}


@settings(deadline=None, max_examples=100)
@given(rewards_lists, mask_lists, st.sampled_from(["sample", "population", "none"]))
def test_advantages_equal_numpy(rewards, where, std):
    rewards, where = np.asarray(rewards), np.asarray(where)
    kept, ddof = rewards[where], std == "sample"
    expected = np.zeros(GROUP)
    if len(kept) > ddof:
        scale = 1.0 if std == "none" else np.std(kept, ddof=int(ddof)) + 1e-4
        expected[where] = (kept - kept.mean()) / scale
    with jax.enable_x64(True):
        actual = jitted_advantages[std](rewards, where)
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=50)
@given(rewards_lists, mask_lists)
def test_rloo_is_the_difference_from_the_others(rewards, where):
    rewards, where = np.asarray(rewards), np.asarray(where)
    expected = np.zeros(GROUP)
    for i in np.flatnonzero(where):
        others = where & (np.arange(GROUP) != i)
        expected[i] = rewards[i] - rewards[others].mean() if others.any() else 0
    with jax.enable_x64(True):
        np.testing.assert_allclose(rloo_advantages(rewards, where=where), expected, rtol=1e-12, atol=1e-12)


def test_one_hit_in_sixteen():
    advantages = np.asarray(group_advantages(np.eye(16, dtype=np.float32)[2]))
    np.testing.assert_allclose(advantages[2], (15 / 16) / (0.25 + 1e-4), rtol=1e-6)
    np.testing.assert_allclose(advantages[3], (-1 / 16) / (0.25 + 1e-4), rtol=1e-6)


def test_equal_rewards_have_no_advantage_whatever_the_rounding():
    rewards = np.full((2, 7), 0.1, np.float32)
    for std in ("sample", "population", "none"):
        np.testing.assert_array_equal(group_advantages(rewards, std=std, eps=0.0), np.zeros((2, 7)))


def test_tawin_loss_is_the_composition():
    logps, old, _, _, token_mask, where = make_batch(5)
    rewards = np.zeros((USERS, GROUP))
    rewards[0, 1] = rewards[1, 2] = rewards[3, 0] = 1
    where[[0, 1, 3], [1, 2, 0]] = [True, True, False]  # the last hit is not a valid candidate
    scores = np.where(token_mask, logps, 0).sum(-1)
    setting = {"anchor": 1, "temperature": 0.5, "mass": 2.0, "rank_scale": "log", "where": where}
    with jax.enable_x64(True):
        weights = tawin_weights(scores, rewards > 0, **setting)
        advantages = group_advantages(rewards, std="population", eps=0.01, where=where) * weights
        np.testing.assert_allclose(np.sum(np.asarray(advantages), -1), np.zeros(USERS), atol=1e-12)
        policy = {"old_logps": old, "token_mask": token_mask, "kind": "dapo", "clip_high": 0.28}
        expected, expected_metrics = policy_loss(logps, advantages, where=where, **policy)
        reshaping = {"scores": scores, "std": "population", "eps": 0.01, **setting}
        loss, metrics = tawin_loss(logps, rewards, **reshaping, **policy)
        np.testing.assert_allclose(tawin_advantages(rewards, **reshaping), advantages, rtol=1e-12)
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    assert abs(float(loss)) > 1e-3
    assert float(metrics.pop("hit_rate")) == 0.5
    assert metrics == expected_metrics


def test_minus_infinity_behind_a_mask_is_harmless():
    logps, old, ref, advantages, token_mask, where = make_batch()
    common = {"token_mask": token_mask, "where": where, "kl_coef": 0.1}
    poisoned = [np.where(token_mask & where[..., None], x, -np.inf) for x in (logps, old, ref)]

    def value_and_slope(logps, old, ref):
        def loss(logps):
            return policy_loss(logps, advantages, old_logps=old, ref_logps=ref, **common)[0]

        return jax.jit(jax.value_and_grad(loss))(logps)

    for clean, dirty in zip(value_and_slope(logps, old, ref), value_and_slope(*poisoned), strict=True):
        np.testing.assert_array_equal(clean, dirty)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ppo"}, "kind='ppo'.*grpo"),
        ({"kl_estimator": "k4"}, "kl_estimator='k4'"),
        ({"kl_coef": 0.1}, "needs ref_logps"),
        ({"clip_low": -0.1}, "clip_low=-0.1"),
        ({"where": np.ones((USERS, TOKENS), bool)}, r"shape \(4, 3\)"),
        ({"token_mask": np.ones((USERS, GROUP), bool)}, r"shape \(4, 6\)"),
        ({"old_logps": np.zeros((USERS, GROUP))}, "old_logps has shape"),
        ({"ref_logps": np.zeros((USERS, GROUP))}, "ref_logps has shape"),
    ],
)
def test_static_mistakes_raise(options, message):
    logps, _, _, advantages, _, _ = make_batch()
    with pytest.raises(ValueError, match=message):
        policy_loss(logps, advantages, **options)


def test_wrong_advantages_raise():
    logps, _, _, advantages, _, _ = make_batch()
    with pytest.raises(ValueError, match="advantages has shape"):
        policy_loss(logps, advantages[:, :-1])
    with pytest.raises(ValueError, match="candidate axis"):
        policy_loss(logps[0, 0], advantages[0, 0])
    with pytest.raises(ValueError, match="std='mad'"):
        group_advantages(advantages, std="mad")
    with pytest.raises(ValueError, match="eps=-1"):
        group_advantages(advantages, eps=-1)
