"""`rl.kind=sdpo`: the target against the others of its group, compared with a reference."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from tests.worlds import (
    beam_search,
    score_items,
    some_rl_batch,
    tiny_policy,
    tiny_ranker,
    trie_for,
    variable_length_items,
)
from wpauc_jax.config import OptimConfig, RlConfig
from wpauc_jax.decode.groups import with_target
from wpauc_jax.models import Prompts
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import make_rl_step, rl_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)
CONFIG = RlConfig(
    kind="sdpo", group_size=6, kl_coef=0.0, weighting="none", inject_target="if_missing", dpo_beta=0.7, batch_size=3
)


def loss_and_grad(params, reference, config=CONFIG):
    def loss(params):
        given = {"ref_params": reference, "batch": some_rl_batch(), "key": jax.random.key(0), "config": config}
        return rl_loss(tiny_ranker(ITEMS), params, **given)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


def plain(params, reference, beta: float) -> float:
    """-log sigmoid(-log sum_j exp(beta (h_j - h_target))), a user at a time; h is the log-ratio to the reference."""
    policy, _ = tiny_policy()
    batch, trie = some_rl_batch(), trie_for(ITEMS, "constrained")
    prompts = Prompts(batch.prompts.tokens, batch.prompts.lengths)
    items = with_target(beam_search(policy, params, prompts, trie, num_beams=6).items, batch.target[:, None])
    ours, theirs = (np.asarray(score_items(policy, p, prompts, trie, items)).sum(-1) for p in (params, reference))
    losses = []
    for row, target in enumerate(batch.target):
        h = beta * (ours[row] - theirs[row])
        mine = int(np.flatnonzero(np.asarray(items[row]) == int(target))[0])
        others = sum(math.exp(h[j] - h[mine]) for j in range(6) if j != mine)
        losses.append(-math.log(1 / (1 + math.exp(math.log(others)))))
    return sum(losses) / len(losses)


def test_it_is_the_papers_formula_on_the_group():
    _, params = tiny_policy()
    reference = jax.tree.map(lambda x: x * 1.2, params)
    (loss, metrics), _ = loss_and_grad(params, reference)
    np.testing.assert_allclose(loss, plain(params, reference, 0.7), rtol=1e-5)
    assert metrics["hit_rate"] == 1.0 and 0 <= metrics["preferred"] <= 1


def test_with_one_negative_it_is_dpo():
    """-log sigmoid(beta (log-ratio of the target - log-ratio of the other)): Rafailov et al., arXiv 2305.18290."""
    policy, params = tiny_policy()
    reference = jax.tree.map(lambda x: x * 1.2, params)
    (loss, _), _ = loss_and_grad(params, reference, dataclasses.replace(CONFIG, group_size=2, target_k=1))
    batch, trie = some_rl_batch(), trie_for(ITEMS, "constrained")
    prompts = Prompts(batch.prompts.tokens, batch.prompts.lengths)
    items = with_target(beam_search(policy, params, prompts, trie, num_beams=2).items, batch.target[:, None])
    ours, theirs = (np.asarray(score_items(policy, p, prompts, trie, items)).sum(-1) for p in (params, reference))
    ratio, wins = ours - theirs, np.asarray(items) == np.asarray(batch.target)[:, None]
    assert (wins.sum(1) == 1).all()
    margin = 0.7 * (ratio[wins] - ratio[~wins])
    np.testing.assert_allclose(loss, np.mean([math.log1p(math.exp(-one)) for one in margin]), rtol=1e-5)


def test_at_the_reference_it_is_the_log_of_the_groups_size():
    _, params = tiny_policy()
    (loss, _), grads = loss_and_grad(params, params)
    np.testing.assert_allclose(loss, math.log(6), rtol=1e-5)
    assert max(abs(np.asarray(leaf)).max() for leaf in jax.tree.leaves(grads)) > 1e-4


@pytest.mark.parametrize("negatives", ["beam", "random"])
def test_training_comes_to_prefer_the_targets(negatives):
    """Against a reference that stays where it was."""
    _, params = tiny_policy()
    optimizer = make_optimizer(OptimConfig(learning_rate=3e-3, schedule="constant", warmup=0), 30)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, dataclasses.replace(CONFIG, negatives=negatives), seed=0)
    state = init_state(params, optimizer, reference=True)
    losses = []
    for _ in range(30):
        state, metrics = step(state, some_rl_batch())
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(math.log(6), rel=1e-4) and losses[-1] < 0.3
    assert metrics["preferred"] == 1.0
    assert np.isfinite(metrics["gradient_by_rank"]).all()
