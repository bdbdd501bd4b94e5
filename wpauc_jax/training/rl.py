"""The training steps: pure functions of arrays in which decoding, rewards and objectives meet, and nowhere else.

An SFT step predicts every next item of each sequence in one causal pass. An RL step runs each prompt once: the pass
whose keys and values the rollout reads is the pass that the update differentiates, since with one update per rollout
the policy that rolls out is the policy that is updated. The rollout sees both under stop_gradient, the suffix of the
G candidates is scored once more with gradients, and autodiff pulls the keys' and values' cotangents back through the
one prompt pass.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.config import RlConfig
from wpauc_jax.decode.groups import rollout
from wpauc_jax.decode.search import path_logps, score, score_items
from wpauc_jax.models import ALL_TRAINED, Frozen, Params, Policy, PromptCache, Prompts
from wpauc_jax.objectives import (
    PolicySums,
    group_advantages,
    negative_ranks,
    policy_loss_sums,
    tawin_weights,
    window_weights,
)
from wpauc_jax.runtime.sharding import constrain, constrain_state, constrain_whole, state_specs
from wpauc_jax.training.answers import answer_loss

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state", "ref_params"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes."""

    step: jax.Array  # int32[]
    params: Params  # those that are trained
    opt_state: optax.OptState
    ref_params: Params | None  # RL with a KL term: the policy that training must not leave; otherwise None


@dataclasses.dataclass(frozen=True)
class Step:
    """A compiled program (state, frozen, trie, batch) -> (state, metrics) bound to what it does not change.

    The state is donated.
    """

    program: jax.stages.Wrapped
    frozen: Frozen
    trie: Trie

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One step; metrics stay on the device."""
        return self.program(state, self.frozen, self.trie, batch)

    def lower(self, state: TrainState, batch: Batch) -> jax.stages.Lowered:
        """The program for arrays, or shapes, like these."""
        return self.program.lower(state, self.frozen, self.trie, batch)


def init_state(params: Params, optimizer: optax.GradientTransformation, *, reference: bool = False) -> TrainState:
    """A state at step 0 with its own copy of `params`, so that steps may donate it."""

    def create(params: Params) -> TrainState:
        ref_params = jax.tree.map(jnp.copy, params) if reference else None
        return TrainState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), optimizer.init(params), ref_params)

    return jax.jit(create, out_shardings=state_specs(jax.eval_shape(create, params)))(params)


def make_sft_step(
    policy: Policy,
    trie: Trie,
    optimizer: optax.GradientTransformation,
    *,
    loss: str,
    frozen: Frozen = ALL_TRAINED,
    tasks: Mapping[str, float] | None = None,
) -> Step:
    """Supervised fine-tuning of the parameters that are not `frozen`; see `sft_loss`. The state is donated.

    To the mean loss on histories that of each alignment task is added, times its weight in `tasks`; the batch holds
    the task's rows (see `data.alignment`).
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, frozen: Frozen, trie: Trie, batch: Batch) -> tuple[TrainState, Metrics]:
        def mean_loss(trained: Params) -> tuple[jax.Array, Metrics]:
            params = policy.gathered(frozen.join(trained))
            total, count = sft_loss(policy, params, trie, batch, loss=loss)
            value = total / jnp.maximum(count, 1.0)
            of_tasks = {task: _task_loss(policy, params, batch, task) for task in tasks or {}}
            for task, weight in (tasks or {}).items():
                value += weight * of_tasks[task]
            return value, {"targets": count, **of_tasks}

        (value, metrics), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads)}
        return constrain_state(_updated(state, optimizer, grads)), constrain_whole(metrics)

    return Step(step, frozen, trie)


def sft_loss(policy: Policy, params: Params, trie: Trie, batch: Batch, *, loss: str) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy of every next item, as (sum, count).

    `catalogue`: softmax over the items, its mean taken over items. `lm`: softmax over the vocabulary, its mean taken
    over tokens. The batch holds tokens and segments int32[B, T] (see `Policy.hidden`), items int32[B, M] (-1: no
    target) and starts int32[B, M], the place of the token before an item's first.
    """
    hidden = policy.hidden(params, batch["tokens"], batch["segments"])
    B, T, D = hidden.shape
    M, C = batch["items"].shape[1], trie.depth
    places = jnp.minimum(batch["starts"][..., None] + jnp.arange(C, dtype=jnp.int32).reshape(1, 1, C), T - 1)
    states = jnp.take_along_axis(hidden, places.reshape(B, M * C, 1), axis=1).reshape(B * M, 1, C, D)
    nodes = trie.path(batch["items"]).reshape(B * M, 1, C)
    scoring = {"catalog": "constrained", "lm": "vocab"}[loss]
    logps = path_logps(policy, params, states[:, 0, 0], states[:, :, 1:], trie, nodes, scoring=scoring)
    targets = batch["items"] >= 0 if loss == "catalog" else nodes != trie.dead
    return -logps.sum(), targets.sum().astype(jnp.float32)


def _task_loss(policy: Policy, params: Params, batch: Batch, task: str) -> jax.Array:
    """The mean loss of an alignment task over its answers' tokens."""
    rows = {name: batch[f"{task}_{name}"] for name in ("tokens", "starts", "answers")}
    total, count = answer_loss(policy, params, **rows)
    return total / jnp.maximum(count, 1.0)


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
        return constrain_state(_synced(_updated(state, optimizer, grads), config)), constrain_whole(metrics)

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
    items = _rolled_out(policy, params, cache, trie, target, key, config, scoring)
    ref_logps = None
    if config.kl_coef > 0:
        ref_logps = score_items(policy, ref_params, prompts, trie, items, scoring=scoring)
    groups = Groups(items, target, ref_logps)
    sums, metrics = group_sums(policy, params, cache, trie, groups, config=config, scoring=scoring)
    return sums.loss.mean(), metrics


@functools.partial(jax.tree_util.register_dataclass, data_fields=["items", "target", "ref_logps"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Groups:
    """What a rollout leaves to be learned from."""

    items: jax.Array  # int32[B, G], -1 where not valid
    target: jax.Array  # int32[B]
    ref_logps: jax.Array | None  # float32[B, G, C], where there is a KL term

    @property
    def alive(self) -> jax.Array:
        """bool[B]: a hit and a miss are in the group. Another one's advantages are 0, and so is its policy gradient."""
        hit = self.items == self.target[:, None]
        return hit.any(axis=1) & ((self.items >= 0) & ~hit).any(axis=1)


def group_sums(
    policy: Policy,
    params: Params,
    cache: PromptCache,
    trie: Trie,
    groups: Groups,
    *,
    config: RlConfig,
    scoring: str,
) -> tuple[PolicySums, Metrics]:
    """The loss of groups behind prompts that have been run, differentiable in both parameters and cache; metrics."""
    items = groups.items
    logps = score(policy, params, cache, trie, items, scoring=scoring)
    valid = items >= 0
    hit = items == groups.target[:, None]
    scores = jax.lax.stop_gradient(logps).sum(-1)
    advantages = group_advantages(hit.astype(jnp.float32), std=config.std, where=valid)
    weights = negative_weights(config, scores, hit, valid)
    sums = policy_loss_sums(
        logps,
        advantages * weights,
        ref_logps=groups.ref_logps,
        token_mask=trie.path(items) != trie.dead,
        where=valid,
        kind=config.kind,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl_coef=config.kl_coef,
    )
    loss, metrics = sums.means()
    return sums, metrics | _group_metrics(scores, hit, valid, weights, trie.num_items) | {"loss": loss}


def compact_gradient(
    policy: Policy,
    trained: Params,
    frozen: Frozen,
    *,
    trie: Trie,
    batch: Batch,
    key: jax.Array,
    config: RlConfig,
    scoring: str,
) -> tuple[Params, Metrics]:
    """Gradient and metrics of `rl_loss` without a KL term, run on the groups that are alive and few others.

    All users are rolled out without gradients. Then as many groups as the next of B/8, B/4, B/2 and B, or none, are
    run with gradients, the living ones first; the other groups' gradient is 0. The program holds each size once, and
    the number of living groups picks one on the device. This pays where less than half of the groups are alive: the
    prompts of those are run once more than in `rl_loss`.
    """
    prompts, target = Prompts(batch["tokens"], batch["lengths"]), batch["target"]
    params = policy.gathered(frozen.join(trained))
    cache = policy.prefill(params, prompts)
    groups = Groups(_rolled_out(policy, params, cache, trie, target, key, config, scoring), target, None)
    everyone, metrics = group_sums(policy, params, cache, trie, groups, config=config, scoring=scoring)
    order = jnp.argsort(~groups.alive)  # stable: the living first

    def gradient_of(size: int) -> Callable[[Params], Params]:
        def loss(trained: Params) -> jax.Array:
            some_prompts, some = jax.tree.map(lambda rows: rows[order[:size]], (prompts, groups))
            params = policy.gathered(frozen.join(trained))
            cache = policy.prefill(params, some_prompts)
            sums, _ = group_sums(policy, params, cache, trie, some, config=config, scoring=scoring)
            return sums.loss.sum / jnp.maximum(everyone.loss.count, 1)

        return jax.grad(loss) if size else lambda trained: jax.tree.map(jnp.zeros_like, trained)

    B = target.shape[0]
    sizes = sorted({0, -(-B // 8), -(-B // 4), -(-B // 2), B})
    which = jnp.searchsorted(jnp.asarray(sizes), groups.alive.sum())
    return jax.lax.switch(which, [gradient_of(size) for size in sizes], trained), metrics


def _rolled_out(policy, params, cache, trie: Trie, target, key, config: RlConfig, scoring: str) -> jax.Array:
    """Items int32[B, G] of each user's group, without gradients."""
    items = rollout(
        policy,
        jax.lax.stop_gradient(params),
        jax.lax.stop_gradient(cache),
        trie,
        target,
        key,
        negatives=config.negatives,
        group_size=config.group_size,
        inject_target=config.inject_target,
        scoring=scoring,
    )
    return constrain(items, "batch", "group")  # a user's candidates stay together


def negative_weights(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """The weights [B, G] on a group's advantages, by `rl.weighting`; 1 on the target."""
    if config.weighting == "none":
        return valid.astype(scores.dtype)
    if config.weighting == "window":
        size = max(round(config.mass), 1)
        return window_weights(scores, hit, start=config.anchor_rank, size=size, where=valid)
    if config.weighting == "opauc":
        return window_weights(scores, hit, start=0, size=config.anchor_rank + 1, where=valid)
    return tawin_weights(
        scores,
        hit,
        anchor=config.anchor_rank,
        temperature=config.temperature,
        mass=config.mass,
        rank_scale=config.rank_scale,
        where=valid,
    )


def _group_metrics(scores: jax.Array, hit: jax.Array, valid: jax.Array, weights: jax.Array, num_items: int) -> Metrics:
    """What a run is watched by. Entropy over the catalogue is bracketed: the group's share of it is known exactly."""
    found = hit.any(axis=1)
    negative = valid & ~hit
    mass = jnp.where(valid, jnp.exp(scores), 0.0)
    known = -jnp.where(valid, mass * scores, 0.0).sum(axis=1)
    rest = jnp.clip(1.0 - mass.sum(axis=1), 1e-9, 1.0)
    unseen = jnp.maximum(num_items - valid.sum(axis=1), 1).astype(jnp.float32)
    ranks = negative_ranks(scores, hit, where=valid)
    by_rank = jax.nn.one_hot(ranks, scores.shape[1]) * (weights * negative)[..., None]
    return {
        "reward": (hit.sum() / jnp.maximum(valid.sum(), 1)).astype(jnp.float32),
        "hit_rate": found.mean(),
        "dead_groups": (~found | ~negative.any(axis=1)).mean(),
        "group_mass": mass.sum(axis=1).mean(),
        "entropy_low": (known - rest * jnp.log(rest)).mean(),
        "entropy_high": (known - rest * jnp.log(rest / unseen)).mean(),
        "weight_by_rank": by_rank.sum(axis=(0, 1)) / scores.shape[0],
    }


def _updated(state: TrainState, optimizer: optax.GradientTransformation, grads: Params) -> TrainState:
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)


def _synced(state: TrainState, config: RlConfig) -> TrainState:
    """Moves the reference towards the policy every `ref_sync_steps` steps."""
    if state.ref_params is None or not config.ref_sync_steps:
        return state
    share = jnp.where(state.step % config.ref_sync_steps == 0, config.ref_sync_mix, 0.0)
    moved = jax.tree.map(lambda ref, new: ref + (new - ref) * share.astype(ref.dtype), state.ref_params, state.params)
    return dataclasses.replace(state, ref_params=moved)
