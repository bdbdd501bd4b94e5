"""The groups that RL learns from: a rollout finds them without gradients, and the update scores them with gradients."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.decode import Prefilled, Ranker
from wpauc_jax.decode.groups import rollout
from wpauc_jax.models import Params
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
    """What the update needs of a rollout."""

    items: jax.Array  # int32[B, G], -1 where not valid
    target: jax.Array  # int32[B]
    ref_logps: jax.Array | None  # float32[B, G, C], where there is a KL term

    @property
    def alive(self) -> jax.Array:
        """bool[B]: whether a group has a hit and a miss. Any other group's advantages and policy gradient are 0."""
        hit = self.items == self.target[:, None]
        return hit.any(axis=1) & ((self.items >= 0) & ~hit).any(axis=1)


def rolled_out(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, key: jax.Array, config: RlConfig
) -> jax.Array:
    """Items int32[B, G] of each user's group, without gradients."""
    items = rollout(
        ranker,
        jax.lax.stop_gradient(params),
        jax.lax.stop_gradient(asked),
        batch,
        key,
        negatives=config.negatives,
        group_size=config.group_size,
        inject_target=config.inject_target,
    )
    return constrain(items, "batch", "group")  # a user's candidates stay together


def group_sums(
    ranker: Ranker, params: Params, asked: Prefilled, groups: Groups, *, config: RlConfig
) -> tuple[PolicySums, Metrics]:
    """The loss of the groups, and metrics; differentiable in the parameters and in what the prompts leave behind."""
    items, trie = groups.items, ranker.trie
    logps = ranker.score(params, asked, items)
    valid = items >= 0
    hit = items == groups.target[:, None]
    scores = jax.lax.stop_gradient(logps).sum(-1)
    advantages = group_advantages(hit.astype(jnp.float32), std=config.std, where=valid)
    weights = WEIGHTING[config.weighting](config, scores, hit, valid)
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


def equal_weights(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """1 on every candidate."""
    return valid.astype(scores.dtype)


def hard_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """The negatives from the anchor's rank on, as many as `rl.mass`."""
    size = max(round(config.mass), 1)
    return window_weights(scores, hit, start=config.anchor_rank, size=size, where=valid)


def one_way_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """The negatives from the first to the anchor's rank."""
    return window_weights(scores, hit, start=0, size=config.anchor_rank + 1, where=valid)


def soft_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """TAWin: a soft window around the anchor's rank."""
    return tawin_weights(
        scores,
        hit,
        anchor=config.anchor_rank,
        temperature=config.temperature,
        mass=config.mass,
        rank_scale=config.rank_scale,
        where=valid,
    )


# By `rl.weighting`: (settings, scores [B, G], hits, valid) -> weights [B, G] on a group's advantages, 1 on the target.
WEIGHTING: dict[str, Callable[[RlConfig, jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "none": equal_weights,
    "tawin": soft_window,
    "window": hard_window,
    "opauc": one_way_window,
}


def _group_metrics(scores: jax.Array, hit: jax.Array, valid: jax.Array, weights: jax.Array, num_items: int) -> Metrics:
    """Metrics that show how a run goes. The entropy over the catalog has two bounds; the group's part is exact."""
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
