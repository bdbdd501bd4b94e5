"""The training steps: what they compute, and what they must not do."""

import contextlib
import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.worlds import (
    beam_search,
    score_items,
    some_prompts,
    some_rl_batch,
    tiny_policy,
    tiny_ranker,
    trie_for,
    variable_length_items,
)
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.config import ConfigError, OptimConfig, RlConfig
from wpauc_jax.decode import score_catalogue
from wpauc_jax.decode.groups import with_target
from wpauc_jax.models import Prompts
from wpauc_jax.runtime.parameters import Parameters
from wpauc_jax.training.optim import learning_rate_schedule, make_optimizer
from wpauc_jax.training.rl import make_rl_step, rl_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)
CONFIG = RlConfig(group_size=6, target_k=3, kl_coef=0.0, inject_target="if_missing")


exact = jax.jit(score_catalogue, static_argnums=0)


@functools.partial(jax.jit, static_argnames=("config", "scoring"))
def loss_and_grad(params, ref_params, batch, config, scoring="constrained"):
    settings = {"ref_params": ref_params, "batch": batch, "key": jax.random.key(0), "config": config}
    loss = functools.partial(rl_loss, tiny_ranker(ITEMS, scoring), **settings)
    return jax.value_and_grad(loss, has_aux=True)(params)


@pytest.mark.parametrize("scoring", ["constrained", "vocab"])
def test_the_shared_prefill_gives_the_gradient_of_the_plain_computation(scoring):
    """Against the textbook form: items fixed, log-probs by a separate call, loss = -mean A w mean_t logp."""
    policy, params = tiny_policy()
    config, trie = dataclasses.replace(CONFIG, weighting="none"), trie_for(ITEMS, scoring)
    batch = some_rl_batch()
    (_, metrics), grads = loss_and_grad(params, None, batch, config, scoring)
    np.testing.assert_allclose(metrics["ratio"], 1.0, atol=1e-6)

    prompts = Prompts(batch.prompts.tokens, batch.prompts.lengths)
    found = beam_search(policy, params, prompts, trie, num_beams=6, scoring=scoring)
    items = with_target(found.items, batch.target[:, None])
    reward = np.asarray(items == batch.target[:, None], np.float64)
    advantage = (reward - reward.mean(1, keepdims=True)) / (reward.std(1, ddof=1, keepdims=True) + 1e-4)
    lengths = np.asarray(trie.lengths)[np.asarray(items)]

    def plain(params):
        logps = score_items(policy, params, prompts, trie, items, scoring=scoring)
        return -(jnp.asarray(advantage / lengths, jnp.float32) * logps.sum(-1)).mean()

    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(jax.jit(jax.grad(plain))(params)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


def test_a_dead_group_has_no_gradient_and_kl_to_itself_is_zero():
    _, params = tiny_policy()
    config = dataclasses.replace(CONFIG, inject_target="never", kl_coef=0.1)
    (loss, metrics), grads = loss_and_grad(params, params, some_rl_batch(target=(-2, -2, -2)), config)
    assert metrics["dead_groups"] == 1.0 and metrics["hit_rate"] == 0.0
    assert loss == 0.0 and metrics["kl"] == 0.0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads))


def kl_to(reference, params) -> float:
    """KL(policy || reference) over the whole catalog, a user's in the mean: nothing of the loss is used."""
    p, q = (
        exact(tiny_policy()[0], side, some_prompts(), trie_for(ITEMS, "constrained")) for side in (params, reference)
    )
    return float((jnp.exp(p) * (p - q)).sum(1).mean())


def test_kl_pulls_towards_the_reference():
    """Dead groups have no other gradient: steps against it bring the policy's whole distribution to the reference's."""
    _, params = tiny_policy()
    reference = jax.tree.map(lambda x: x * 1.3, params)
    config = dataclasses.replace(CONFIG, inject_target="never", kl_coef=0.1)
    before = kl_to(reference, params)
    for _ in range(8):
        (loss, metrics), grads = loss_and_grad(params, reference, some_rl_batch(target=(-2, -2, -2)), config)
        # loss: mean over sequences; metric: over tokens
        np.testing.assert_allclose(loss, 0.1 * metrics["kl"], rtol=0.5)
        params = jax.tree.map(lambda x, slope: x - 0.3 * slope, params, grads)
    assert 0 < kl_to(reference, params) < 0.5 * before


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("none", [1, 1, 1, 1, 1]),
        ("window", [0, 0, 5, 0, 0]),
        ("opauc", [5 / 3, 5 / 3, 5 / 3, 0, 0]),
        ("tawin", None),
    ],
)
def test_weights_by_rank(weighting, expected):
    _, params = tiny_policy()
    (_, metrics), _ = loss_and_grad(params, None, some_rl_batch(), dataclasses.replace(CONFIG, weighting=weighting))
    weights = np.asarray(metrics["weight_by_rank"])
    assert weights[5] == 0  # five negatives in a group of six
    np.testing.assert_allclose(weights.sum(), 5, rtol=1e-5)
    if expected is None:
        w = np.exp(-np.abs(np.arange(5) - 2.0))
        expected = 5 * w / w.sum()
    np.testing.assert_allclose(weights[:5], expected, rtol=1e-5)


@pytest.mark.parametrize("negatives", ["beam", "sample", "random"])
def test_training_on_one_batch_raises_its_targets(negatives):
    policy, params = tiny_policy()
    trie, batch = trie_for(ITEMS, "constrained"), some_rl_batch()
    optimizer = make_optimizer(OptimConfig(learning_rate=3e-3, schedule="constant", warmup=0), 40)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, dataclasses.replace(CONFIG, negatives=negatives), seed=0)
    state = init_state(params, optimizer)
    before = score_items(policy, params, some_prompts(), trie, batch.target[:, None]).sum(-1)
    for _ in range(40):
        state, metrics = step(state, batch)
    after = score_items(policy, state.params, some_prompts(), trie, batch.target[:, None]).sum(-1)
    assert metrics["hit_rate"] == 1.0
    assert (after > before + 0.5).all()


@contextlib.contextmanager
def compilations():
    """What JAX says of every program that it compiles meanwhile."""
    compiled: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: "ompil" in record.getMessage() and compiled.append(record.getMessage())
    logging.getLogger("jax").addHandler(handler)
    try:
        with jax.log_compiles():
            yield compiled
    finally:
        logging.getLogger("jax").removeHandler(handler)


def test_one_program_and_no_transfer_inside_the_step():
    _, params = tiny_policy()
    optimizer, config = make_optimizer(OptimConfig(), 10), dataclasses.replace(CONFIG, kl_coef=0.1)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=0)
    state = init_state(params, optimizer, reference=True)
    state, _ = step(state, some_rl_batch())
    others = [some_rl_batch(target) for target in ((1, 2, 3), (7, 0, 5))]
    longer = jax.tree.map(lambda rows: jnp.concatenate([rows, rows]), others[0])
    with compilations() as compiled, jax.transfer_guard("disallow"):
        for batch in others:
            state, _ = step(state, batch)
        assert compiled == []
        state, _ = step(state, longer)  # so that a compilation would have been seen
    assert compiled
    assert state.step == 4


def test_a_group_costs_its_candidates_not_its_prompts():
    """FLOPs of the compiled step: G = 16 over G = 1 adds a cost that is the same for short and long prompts."""
    _, params = tiny_policy()

    @functools.cache
    def flops(group: int, width: int) -> float:
        config = dataclasses.replace(CONFIG, group_size=group, target_k=1, weighting="none")
        prompts = PromptBatch(jnp.zeros((2, width), jnp.int32), jnp.full(2, width, jnp.int32))
        batch = RlBatch(prompts, jnp.zeros(2, jnp.int32))
        return loss_and_grad.lower(params, None, batch, config).compile().cost_analysis()["flops"]

    prompt = flops(2, 256) - flops(2, 64)  # what 192 more prompt tokens cost
    short, long = (flops(16, width) - flops(2, width) for width in (64, 256))
    assert long - short < 0.5 * prompt  # only attention to the longer prompt; repeated prompts would give 14 * prompt
    assert flops(16, 256) < 2 * flops(2, 256)


def test_reference_moves_only_on_its_steps():
    _, params = tiny_policy()
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 10)
    config = dataclasses.replace(CONFIG, kl_coef=0.1, ref_sync_steps=2, ref_sync_mix=0.6)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=0)
    state, _ = step(init_state(params, optimizer, reference=True), some_rl_batch())
    np.testing.assert_array_equal(state.ref_params["embed"], params["embed"])
    state, _ = step(state, some_rl_batch())
    np.testing.assert_allclose(
        state.ref_params["embed"], 0.4 * params["embed"] + 0.6 * state.params["embed"], atol=1e-6
    )


def test_warm_up_and_decay():
    rate = learning_rate_schedule(OptimConfig(learning_rate=1.0, schedule="linear", warmup=0.1), 100)
    np.testing.assert_allclose([rate(i) for i in (0, 5, 10, 55, 100)], [0, 0.5, 1, 0.5, 0], atol=1e-6)
    steps = learning_rate_schedule(OptimConfig(learning_rate=2.0, schedule="cosine", warmup=20), 100)
    np.testing.assert_allclose([steps(i) for i in (10, 20, 60, 100)], [1, 2, 1, 0], atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e3])
def test_the_clip_is_optaxs(size):
    grads = {"a": size * jax.random.normal(jax.random.key(0), (3, 4)), "b": size * jnp.ones(2)}
    grads = Parameters(grads, {("a",): ("embed", "ffn"), ("b",): ("ffn",)})
    ours = make_optimizer(OptimConfig(max_grad_norm=0.3), 10)
    theirs = optax.chain(optax.clip_by_global_norm(0.3), optax.adamw(1e-3))
    moments, wanted = (maker.update(grads, maker.init(grads), grads)[1][1][0] for maker in (ours, theirs))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=0), moments, wanted)


def test_norms_and_biases_do_not_decay():
    _, params = tiny_policy()
    optimizer = make_optimizer(OptimConfig(learning_rate=1.0, schedule="constant", warmup=0, weight_decay=0.1), 10)
    zero = jax.tree.map(jnp.zeros_like, params)
    update, _ = optimizer.update(zero, optimizer.init(params), params)
    assert (update["norm"]["scale"] == 0).all() and (update["layers"]["0"]["attention"]["q"]["bias"] == 0).all()
    np.testing.assert_allclose(update["embed"], -0.1 * params["embed"], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group_size": 6, "target_k": 6}, r"rl.target_k=6 needs a negative of rank 5.*rl.group_size=6"),
        ({"temperature": 0.0}, "rl.temperature=0.0 must be above 0"),
        ({"mass": 0.0}, "rl.mass=0.0 must be above 0"),
        ({"kind": "dr_grpo"}, "set rl.std='none'"),
        ({"rows": "latest", "holdout": 1.0}, "rl.holdout=1.0 must lie between 0 and 1"),
        ({"negatives": "best"}, "rl.negatives='best' is unknown; choose one of beam, sample, random"),
    ],
)
def test_settings_that_cannot_work_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        RlConfig(**change)
