"""Reinforcement learning: a step in which decoding, rewards and objectives meet, and nowhere else.

A step runs each prompt once: the pass whose keys and values the rollout reads is the pass that the update
differentiates, since with one update per rollout the policy that rolls out is the policy that is updated. The rollout
sees both under stop_gradient, the suffix of the G candidates is scored once more with gradients, and autodiff pulls the
keys' and values' cotangents back through the one prompt pass.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.config import RlConfig
from wpauc_jax.decode.search import score_items
from wpauc_jax.models import ALL_TRAINED, Frozen, Params, Policy, Prompts
from wpauc_jax.runtime.sharding import constrain_state, constrain_whole
from wpauc_jax.training.compact import compact_gradient
from wpauc_jax.training.groups import Groups, group_sums, rolled_out
from wpauc_jax.training.state import Batch, Metrics, Step, TrainState, updated


def make_rl_step(
    policy: Policy,
    trie: Trie,
    optimizer: optax.GradientTransformation,
    config: RlConfig,
    *,
    scoring: str,
    seed: int,
    frozen: Frozen = ALL_TRAINED,
) -> Step:
    """Rollout, reward, advantages, reweighting and update in one program; see `rl_loss`. The state is donated.

    With `frozen` parameters the reference holds the trained ones alone, as the policy does.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Frozen, trie: Trie, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        ref_params = None if state.ref_params is None else policy.gathered(frozen.join(state.ref_params))
        settings: dict[str, Any] = {"trie": trie, "batch": batch, "key": key, "config": config, "scoring": scoring}

        def loss(trained: Params) -> tuple[jax.Array, Metrics]:
            return rl_loss(policy, policy.gathered(frozen.join(trained)), ref_params=ref_params, **settings)

        if config.dead_groups == "compact":
            grads, metrics = compact_gradient(policy, state.params, frozen, **settings)
        else:
            (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return constrain_state(_synced(updated(state, optimizer, grads), config)), constrain_whole(metrics)

    return Step(step, frozen, trie)


def rl_loss(
    policy: Policy,
    params: Params,
    *,
    ref_params: Params | None,
    trie: Trie,
    batch: Batch,
    key: jax.Array,
    config: RlConfig,
    scoring: str,
) -> tuple[jax.Array, Metrics]:
    """The loss of B users' groups and what it tells. The batch holds tokens, lengths and target int32[B]."""
    prompts, target = Prompts(batch["tokens"], batch["lengths"]), batch["target"]
    cache = policy.prefill(params, prompts)
    items = rolled_out(policy, params, cache, trie, target, key, config, scoring)
    ref_logps = None
    if config.kl_coef > 0:
        ref_logps = score_items(policy, ref_params, prompts, trie, items, scoring=scoring)
    groups = Groups(items, target, ref_logps)
    sums, metrics = group_sums(policy, params, cache, trie, groups, config=config, scoring=scoring)
    return sums.loss.mean(), metrics


def _synced(state: TrainState, config: RlConfig) -> TrainState:
    """Moves the reference towards the policy every `ref_sync_steps` steps."""
    if state.ref_params is None or not config.ref_sync_steps:
        return state
    share = jnp.where(state.step % config.ref_sync_steps == 0, config.ref_sync_mix, 0.0)
    moved = jax.tree.map(lambda ref, new: ref + (new - ref) * share.astype(ref.dtype), state.ref_params, state.params)
    return dataclasses.replace(state, ref_params=moved)
