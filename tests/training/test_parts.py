"""Gradient accumulation: a batch in parts gives the update of the whole batch, in less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.worlds import some_prompts, tiny_policy, tiny_ranker, variable_length_items
from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch, TitleTaskBatch
from wpauc_jax.config import ConfigError, RlConfig, SftConfig
from wpauc_jax.training.rl import make_rl_step, rl_loss
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)
B = 6
GROUPS = RlConfig(batch_size=B, group_size=6, inject_target="if_missing", kl_coef=0.0)
EXACT = RlConfig(batch_size=B, estimator="exact", kl_coef=0.0)
RL = {
    "grpo": dataclasses.replace(GROUPS, kl_coef=0.1),
    "dapo": dataclasses.replace(GROUPS, kind="dapo", weighting="none"),
    "gspo": dataclasses.replace(GROUPS, kind="gspo"),
    "dr_grpo": dataclasses.replace(GROUPS, kind="dr_grpo", std="none"),
    "dapo with nll": dataclasses.replace(GROUPS, kind="dapo", nll=0.7),
    "exact": EXACT,
    "gce with nll": dataclasses.replace(EXACT, kind="gce", nll=0.7),
    "soft_topk": dataclasses.replace(EXACT, kind="soft_topk"),
}
SFT = {
    "catalog": SftConfig(batch_size=4, label_smoothing=0.1),
    "lm": SftConfig(batch_size=4, loss="lm", title_to_id=0.5, id_to_title=0.25),
}


def stepped(make, config, batch, parts, reference=False):
    """Parameters before and after one step of gradient descent, and the metrics."""
    _, params = tiny_policy()
    optimizer = optax.sgd(1.0)
    scoring = "vocab" if getattr(config, "loss", "") == "lm" else "constrained"
    step = make(tiny_ranker(ITEMS, scoring), optimizer, dataclasses.replace(config, microbatches=parts), seed=0)
    state = init_state(params, optimizer, reference=reference)
    if reference:
        state = dataclasses.replace(state, ref_params=jax.tree.map(lambda x: x * 1.2, params))
    state, metrics = step(state, batch)
    return params, state.params, jax.tree.map(np.asarray, metrics)


def rl_batch(config: RlConfig = GROUPS) -> RlBatch:
    """Users of whom two, both of one part, have three items left, and of exact objectives no target.

    So the parts count different numbers of candidates, of tokens, and of targets.
    """
    prompts, target = some_prompts(batch=B), np.asarray((4, 9, 30, 30, 7, 35), np.int32)
    excluded = np.full((B, 33), -1, np.int32)
    for user in (0, 3):
        left = target[user] if config.estimator == "sampled" else 0
        excluded[user] = [item for item in range(36) if item not in {left, 1, 2}]
    return RlBatch(PromptBatch(prompts.tokens, prompts.lengths, jnp.asarray(excluded)), jnp.asarray(target))


def sft_batch() -> SftBatch:
    """Rows with one to four targets, and answers of different lengths."""
    draw = np.random.default_rng(0)
    items = draw.integers(0, len(ITEMS), (4, 4))
    items[[0, 0, 0, 1, 2], [1, 2, 3, 3, 3]] = -1

    def task() -> TitleTaskBatch:
        answers = draw.integers(1, 20, (4, 3))
        answers[[0, 0, 2], [1, 2, 2]] = -1
        arrays = (draw.integers(1, 20, (4, 9)), draw.integers(0, 4, 4), answers)
        return TitleTaskBatch(*(jnp.asarray(array, jnp.int32) for array in arrays))

    return SftBatch(
        tokens=jnp.asarray(draw.integers(1, 20, (4, 20)), jnp.int32),
        segments=jnp.ones((4, 20), jnp.int32),
        items=jnp.asarray(items, jnp.int32),
        starts=jnp.asarray(np.tile(np.arange(4) * 4, (4, 1)), jnp.int32),
        tasks={"title_to_id": task(), "id_to_title": task()},
    )


def assert_same_step(make, config, batch, parts, reference=False):
    before, whole, told = stepped(make, config, batch, 1, reference)
    _, in_parts, also_told = stepped(make, config, batch, parts, reference)
    steps = [jax.tree.map(jnp.subtract, after, before) for after in (whole, in_parts)]
    assert optax.tree.norm(steps[0]) > 1e-3
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-5), *steps)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(also_told[name], told[name], rtol=1e-5, atol=1e-6)
    assert also_told.keys() == told.keys()
    return told, also_told


FEW = ("grpo", "dapo with nll", "gce with nll", "soft_topk")  # the others take the same paths


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in RL])
def test_rl_in_parts_is_the_update_of_the_whole_batch(name):
    """Beams draw nothing, so that the parts' groups are those of the whole batch."""
    told, also = assert_same_step(make_rl_step, RL[name], rl_batch(RL[name]), 3, reference=RL[name].kl_coef > 0)
    everybody = {
        "dead_groups",
        "weight_by_rank",
    }  # other means are over some rows, of which parts have different numbers
    for metric in everybody & told.keys():
        np.testing.assert_allclose(also[metric], told[metric], atol=1e-6)


@pytest.mark.parametrize("name", SFT)
def test_sft_in_parts_is_the_update_of_the_whole_batch(name):
    told, also = assert_same_step(make_sft_step, SFT[name], sft_batch(), 2)
    for metric in {"targets", "title_to_id", "id_to_title"} & told.keys():
        np.testing.assert_allclose(also[metric], told[metric], rtol=1e-5)


def test_parts_need_less_memory():
    """What XLA sets aside for a step of 64 users, beside its arguments and results."""

    def temporary(parts: int) -> int:
        _, params = tiny_policy()
        optimizer = optax.sgd(1.0)
        config = dataclasses.replace(GROUPS, batch_size=64, microbatches=parts)
        step = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=0)
        prompts = some_prompts(batch=64, width=30)
        batch = RlBatch(PromptBatch(prompts.tokens, prompts.lengths), jnp.zeros(64, jnp.int32))
        return step.lower(init_state(params, optimizer), batch).compile().memory_analysis().temp_size_in_bytes

    assert temporary(8) < 0.3 * temporary(1)


def test_each_part_draws_its_own():
    """Two equal rows in two parts: each has the likelihood that its own draw of dropout gives."""
    _, params = tiny_policy()
    config, optimizer = dataclasses.replace(EXACT, dropout=0.5, batch_size=2), optax.sgd(1.0)
    one = RlBatch(*jax.tree.map(lambda rows: rows[1:2], (rl_batch().prompts, rl_batch().target)))
    both = jax.tree.map(lambda rows: jnp.concatenate([rows, rows]), one)
    of_step = jax.random.fold_in(jax.random.key(3), 0)
    given = {"ref_params": None, "batch": one, "config": config}
    loss = jax.jit(lambda key: rl_loss(tiny_ranker(ITEMS), params, key=key, **given)[1]["nll"])
    alone = [float(loss(jax.random.fold_in(of_step, part))) for part in range(2)]
    assert abs(alone[0] - alone[1]) > 1e-3
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, dataclasses.replace(config, microbatches=2), seed=3)
    _, metrics = step(init_state(params, optimizer), both)
    np.testing.assert_allclose(metrics["nll"], np.mean(alone), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RlConfig(batch_size=64, microbatches=3), "rl.microbatches=3 does not divide rl.batch_size=64"),
        (lambda: SftConfig(batch_size=10, microbatches=4), "sft.microbatches=4 does not divide sft.batch_size=10"),
        (lambda: SftConfig(prefix_loss=0.1, microbatches=2), "sft.prefix_loss=0.1 needs sft.microbatches=1"),
        (lambda: RlConfig(kl_coef=0.0, dead_groups="compact", microbatches=2), "needs rl.microbatches=1"),
    ],
)
def test_settings_that_do_not_go_with_parts(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
