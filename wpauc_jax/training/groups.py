"""The groups that RL learns from: rolled out without gradients, then weighted and scored with them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from wpauc_jax.catalog.trie import Trie
from wpauc_jax.config import RlConfig
from wpauc_jax.decode.groups import rollout
from wpauc_jax.decode.search import score
from wpauc_jax.models import Params, Policy, PromptCache
from wpauc_jax.objectives import (
    PolicySums,
    group_advantages,
    negative_ranks,
    policy_loss_sums,
    tawin_weights,
    window_weights,
)
from wpauc_jax.runtime.sharding import constrain
from wpauc_jax.training.state import Metrics


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


def rolled_out(policy, params, cache, trie: Trie, target, key, config: RlConfig, scoring: str) -> jax.Array:
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
