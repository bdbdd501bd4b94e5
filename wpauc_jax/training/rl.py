"""Reinforcement learning. Here, and nowhere else, one step brings search, rewards and objectives together.

A step runs each prompt once. There is one update for each rollout, so the policy that is updated is the policy that
rolled out. So the rollout and the update can use the same pass over the prompt.

The rollout reads the keys and values of that pass under stop_gradient. Then the G candidates are scored once more, with
gradients. Autodiff adds up what flows back to the keys and values, and pulls it through the one prompt pass.

`exact.py` has the objectives that need no group.
"""

import dataclasses
import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.config import ConfigError, RlConfig
from wpauc_jax.decode import Prefilled, Ranker
from wpauc_jax.decode.hints import hinted_groups
from wpauc_jax.models import ALL_TRAINED, Frozen, Params
from wpauc_jax.objectives import Total, gce_loss
from wpauc_jax.runtime.sharding import constrain_state, constrain_whole
from wpauc_jax.training.compact import compact_gradient
from wpauc_jax.training.exact import exact_terms
from wpauc_jax.training.groups import Pushed, dropout_of, group_sums, groups_of, rolled_out, target_logps
from wpauc_jax.training.judge import Judge
from wpauc_jax.training.parts import Totals, gradient_in_parts, weighted_mean
from wpauc_jax.training.state import Metrics, Step, TrainState, check_dropout, updated
from wpauc_jax.training.teaching import exact_ranks, listed_ranks, teaching_metrics

NOBODY = Judge()  # a binary reward looks at nothing but the hit


class Gradient(Protocol):
    """Gradient of the trained parameters and metrics of a batch; `ref_params` are None without a KL term."""

    def __call__(
        self,
        ranker: Ranker,
        trained: Params,
        frozen: Frozen,
        *,
        ref_params: Params | None,
        batch: RlBatch,
        key: jax.Array,
        config: RlConfig,
        judge: Judge,
    ) -> tuple[Params, Metrics]:
        """See the class."""


def make_rl_step(
    ranker: Ranker,
    optimizer: optax.GradientTransformation,
    config: RlConfig,
    *,
    seed: int,
    frozen: Frozen = ALL_TRAINED,
    judge: Judge = NOBODY,
) -> Step:
    """Rollout, reward, advantages, reweighting and update in one program; see `rl_loss`. The state is donated.

    With `frozen` parameters the reference holds the trained ones alone, as the policy does. What is drawn, by rollouts
    and by dropout, is a function of the seed and the step. The `judge` holds what other rewards than the binary one
    look at.

    Raises ConfigError for dropout in a family of models that takes none, and for siblings that no item can have.
    """
    check_dropout(ranker.policy, "rl", config.dropout)
    if config.sibling_mix and config.sibling_depth >= ranker.trie.depth:
        raise ConfigError(
            f"rl.sibling_depth={config.sibling_depth}: items have at most {ranker.trie.depth} tokens, so no two share "
            f"as many; set rl.sibling_mix=0 or a smaller depth"
        )
    if config.hints and ranker.trie.depth == 1:
        raise ConfigError("rl.inject_target='hint' gives an item's first tokens, and here an item is one token alone")
    gradient = GRADIENTS[config.dead_groups] if config.microbatches == 1 else accumulated_gradient

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState, frozen: Frozen, ranker: Ranker, seed: jax.Array, batch: RlBatch, judge: Judge
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        ref_params = None if state.ref_params is None else ranker.policy.gathered(frozen.join(state.ref_params))
        grads, metrics = gradient(
            ranker, state.params, frozen, ref_params=ref_params, batch=batch, key=key, config=config, judge=judge
        )
        metrics["grad_norm"] = optax.tree.norm(grads)
        state = _synced(updated(state, optimizer, grads, ema=config.ema), config)
        return constrain_state(state), constrain_whole(metrics)

    return Step(step, frozen, ranker, np.uint32(seed), (judge,))


def rl_loss(
    ranker: Ranker,
    params: Params,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge = NOBODY,
) -> tuple[jax.Array, Metrics]:
    """The loss of B users and what it tells."""
    terms = ESTIMATORS[config.estimator]
    totals, metrics = terms(ranker, params, ref_params=ref_params, batch=batch, key=key, config=config, judge=judge)
    loss = weighted_mean(totals, config.term_weights)
    return loss, metrics | {"loss": loss}


def group_terms(
    ranker: Ranker,
    params: Params,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge,
) -> tuple[Totals, Metrics]:
    """The loss of B users' groups and, with `rl.nll`, their targets' negative log-likelihood; and what they tell."""
    asked = ranker.prefill(params, batch.prompts, dropout_of(config, key))
    items, hints = rolled_out(ranker, params, asked, batch, key, config), None
    if config.hints:
        items, hints = hinted_groups(ranker, *jax.lax.stop_gradient((params, asked)), items, batch.target)
    ref_logps = None
    if config.keeps_reference:
        ref_logps = ranker.score(ref_params, ranker.prefill(ref_params, batch.prompts), items)
    groups = groups_of(items, batch, ref_logps, judge=judge, config=config, hints=hints)
    loss, metrics, pushed = group_sums(ranker, params, asked, groups, config=config)
    ranks = exact_ranks(ranker, params, asked, batch.target)
    ranks = listed_ranks(pushed.scores, items, batch.target) if ranks is None else ranks
    if hints is not None:
        learnt = hint_loss(ranker, params, asked, batch.target, hints)
        told = teaching_metrics(ranks, pushed.pushes, pushed.scores, pushed.valid)
        return (loss, learnt), metrics | told | {"hint": learnt.mean(), "hinted": (hints > 0).mean()}
    if not config.nll:
        return (loss,), metrics | teaching_metrics(ranks, pushed.pushes, pushed.scores, pushed.valid)
    logps = target_logps(ranker, params, asked, groups.targets)
    nll = gce_loss(logps, q=0.0)
    share = config.nll * loss.count / logps.size
    told = _with_likelihood(ranks, pushed, groups.targets, logps, share)
    return (loss, nll), metrics | told | {"nll": nll.mean()}


def hint_loss(ranker: Ranker, params: Params, asked: Prefilled, target: jax.Array, hints: jax.Array) -> Total:
    """The negative log-likelihood of the first `hints` int32[B] tokens of the targets int32[B], over all B users."""
    logps = ranker.score(params, asked, target[:, None])[:, 0]
    given = jnp.arange(logps.shape[1]).reshape(1, -1) < hints[:, None]
    return Total(-jnp.where(given, logps, 0.0).sum(), jnp.asarray(hints.shape[0], jnp.float32))


def _with_likelihood(
    ranks: jax.Array, pushed: Pushed, targets: jax.Array, logps: jax.Array, share: jax.Array
) -> Metrics:
    """`teaching_metrics` where the targets [B, N] are pushed by `share` beside what their groups do."""
    same = pushed.items[:, :, None] == targets[:, None, :]
    missing = (targets >= 0) & ~(same & pushed.valid[..., None]).any(axis=1)
    pushes = pushed.pushes + share * same.any(axis=-1)
    return teaching_metrics(
        ranks,
        jnp.concatenate([pushes, jnp.full(logps.shape, share)], axis=1),
        jnp.concatenate([pushed.scores, logps], axis=1),
        jnp.concatenate([pushed.valid, missing], axis=1),
    )


# By `rl.estimator`: the terms of a batch's loss, one for each of `config.term_weights`, and metrics.
ESTIMATORS = {"sampled": group_terms, "exact": exact_terms}


def full_gradient(
    ranker: Ranker,
    trained: Params,
    frozen: Frozen,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge,
) -> tuple[Params, Metrics]:
    """Gradient and metrics of `rl_loss`, run on all groups."""

    def loss(trained: Params) -> tuple[jax.Array, Metrics]:
        params = ranker.policy.gathered(frozen.join(trained))
        return rl_loss(ranker, params, ref_params=ref_params, batch=batch, key=key, config=config, judge=judge)

    (_, metrics), grads = jax.value_and_grad(loss, has_aux=True)(trained)
    return grads, metrics


def accumulated_gradient(
    ranker: Ranker,
    trained: Params,
    frozen: Frozen,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge,
) -> tuple[Params, Metrics]:
    """As `full_gradient`, with the users in `rl.microbatches` parts. Each part draws with a key of its own."""

    def terms(trained: Params, batch: RlBatch, number: jax.Array) -> tuple[Totals, Metrics]:
        return ESTIMATORS[config.estimator](
            ranker,
            ranker.policy.gathered(frozen.join(trained)),
            ref_params=ref_params,
            batch=batch,
            key=jax.random.fold_in(key, number),
            config=config,
            judge=judge,
        )

    weights = config.term_weights
    totals, grads, metrics = gradient_in_parts(terms, trained, batch, parts=config.microbatches, weights=weights)
    return grads, metrics | {"loss": weighted_mean(totals, weights)}


# By `rl.dead_groups`: whether groups without a hit or without a miss take part in the update's passes.
GRADIENTS: dict[str, Gradient] = {"keep": full_gradient, "compact": compact_gradient}


def _synced(state: TrainState, config: RlConfig) -> TrainState:
    """Moves the reference towards the policy every `ref_sync_steps` steps."""
    if state.ref_params is None or not config.ref_sync_steps:
        return state
    share = jnp.where(state.step % config.ref_sync_steps == 0, config.ref_sync_mix, 0.0)
    moved = jax.tree.map(lambda ref, new: ref + (new - ref) * share.astype(ref.dtype), state.ref_params, state.params)
    return dataclasses.replace(state, ref_params=moved)
