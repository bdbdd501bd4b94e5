"""`rl.inject_target=hint`: groups begun behind the target's first tokens, against plain loops over exact scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import some_rl_batch, tiny_policy, tiny_ranker
from wpauc_jax.config import ConfigError, OptimConfig, RlConfig
from wpauc_jax.decode.hints import hinted_groups
from wpauc_jax.objectives import group_advantages
from wpauc_jax.training.groups import rolled_out
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step, rl_loss
from wpauc_jax.training.state import init_state

ITEMS = [(a, b, c) for a in range(3, 7) for b in range(7, 11) for c in range(11, 14)]
CONFIG = RlConfig(group_size=5, target_k=3, kl_coef=0.0, inject_target="hint", weighting="none")
BATCH = some_rl_batch((13, 1, 40))  # in need of one first token, of none, of two


@functools.cache
def world():
    """The groups as rolled out and as hinted, the hints, and everybody's exact scores."""
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]

    @jax.jit
    def run(params):
        asked = ranker.prefill(params, BATCH.prompts)
        items = rolled_out(ranker, params, asked, BATCH, jax.random.key(0), CONFIG)
        return items, *hinted_groups(ranker, params, asked, items, BATCH.target), ranker.score_all(params, asked)

    return [np.asarray(one) for one in run(params)]


def plainly_hinted(row: int) -> tuple[list[int], int]:
    before, _, _, scores = world()
    target = int(BATCH.target[row])
    if target in before[row]:
        return before[row].tolist(), 0
    for hint in (1, 2):
        alike = [item for item, tokens in enumerate(ITEMS) if tokens[:hint] == ITEMS[target][:hint]]
        best = sorted(alike, key=lambda item: -scores[row, item])[:5]
        if target in best:
            return best + [-1] * (5 - len(best)), hint
    return before[row].tolist(), 0


def test_groups_are_begun_behind_the_least_hint():
    before, items, hints, _ = world()
    for row in range(3):
        assert (items[row].tolist(), hints[row]) == plainly_hinted(row)
    assert hints.tolist() == [1, 0, 2] and (before[1] == items[1]).all()


def test_a_target_that_no_hint_brings_leaves_its_group_alone():
    """Of the items that begin as the target does, the two best fill the group."""
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]
    asked = ranker.prefill(params, BATCH.prompts)
    scores = np.asarray(ranker.score_all(params, asked))
    worst = [
        min((i for i, tokens in enumerate(ITEMS) if tokens[:2] == (3, 7)), key=lambda i, row=row: scores[row, i])
        for row in range(3)
    ]
    items = jnp.full((3, 2), 47, jnp.int32)
    found, hints = hinted_groups(ranker, params, asked, items, jnp.asarray(worst, jnp.int32))
    assert not hints.any() and (np.asarray(found) == 47).all()


def test_the_loss_learns_the_rest_from_the_group_and_the_hint_from_its_likelihood():
    ranker, params = tiny_ranker(ITEMS), tiny_policy()[1]
    _, items, hints, _ = world()

    def plain(params):
        asked = ranker.prefill(params, BATCH.prompts)
        logps = ranker.score(params, asked, jnp.asarray(items))
        advantages = group_advantages((items == np.asarray(BATCH.target)[:, None]) * 1.0, where=items >= 0)
        rest = (jnp.arange(3).reshape(1, 1, 3) >= hints[:, None, None]) & (
            ranker.trie.path(jnp.asarray(items)) != ranker.trie.dead
        )
        ratio = jnp.exp(logps - jax.lax.stop_gradient(logps))
        of_item = -(jnp.where(rest, ratio, 0) * advantages[..., None]).sum(-1) / jnp.maximum(rest.sum(-1), 1)
        group = jnp.where(items >= 0, of_item, 0).sum() / (items >= 0).sum()
        target = ranker.score(params, asked, BATCH.target[:, None])[:, 0]
        return group - jnp.where(jnp.arange(3).reshape(1, 3) < hints[:, None], target, 0).sum() / 3

    settings = {"ref_params": None, "batch": BATCH, "key": jax.random.key(0), "config": CONFIG}
    (loss, metrics), grads = jax.jit(
        jax.value_and_grad(lambda params: rl_loss(ranker, params, **settings), has_aux=True)
    )(params)
    wanted, slopes = jax.jit(jax.value_and_grad(plain))(params)
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grads, slopes)
    assert metrics["hinted"] == pytest.approx((hints > 0).mean()) and metrics["hint"] > 0


@pytest.mark.parametrize("microbatches", [1, 3])
def test_a_step_takes_hints(microbatches):
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, warmup=0), 30)
    config = dataclasses.replace(CONFIG, batch_size=3, microbatches=microbatches)
    step, state = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=0), init_state(tiny_policy()[1], optimizer)
    hinted = []
    for _ in range(30):
        state, metrics = step(state, BATCH)
        hinted.append(float(metrics["hinted"]))
    assert hinted[0] > 0 and hinted[-1] == 0 and metrics["hit_rate"] == 1


def test_what_cannot_take_hints_is_refused():
    for settings in ({"nll": 0.1}, {"targets": 2}, {"kind": "sdpo", "weighting": "none"}, {"negatives": "random"}):
        with pytest.raises(ConfigError, match=r"rl.inject_target='hint' has a loss for the hint"):
            dataclasses.replace(CONFIG, **settings)
    with pytest.raises(ConfigError, match=r"needs rl.kl_coef=0 and rl.inject_target='never'"):
        dataclasses.replace(CONFIG, dead_groups="compact")
    with pytest.raises(ConfigError, match="here an item is one token alone"):
        make_rl_step(tiny_ranker([(3,), (4,), (5,)]), make_optimizer(OptimConfig(), 1), CONFIG, seed=0)
