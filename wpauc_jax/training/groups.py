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
from wpauc_jax.models import Dropout, Params
from wpauc_jax.objectives import (
    PolicySums,
    group_advantages,
    negative_ranks,
    policy_loss_sums,
    policy_weights,
    tawin_weights,
    window_weights,
)
from wpauc_jax.runtime.sharding import constrain
from wpauc_jax.training.state import Metrics

_DROPOUT = 0x64726F70  # tells the key of dropout from those of a rollout's depths


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


def dropout_of(config: RlConfig, key: jax.Array) -> Dropout | None:
    """What a step drops in the pass over its prompts; drawn apart from what a rollout draws with the same key."""
    return Dropout(jax.random.fold_in(key, _DROPOUT), config.dropout) if config.dropout else None


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
    if config.negative_scale != 1.0:
        weights = jnp.where(hit, weights, config.negative_scale * weights)
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
    first_codes = distinct_first_codes(ranker, items)
    group_metrics = _group_metrics(scores, hit, valid, weights, trie.num_items)
    return sums, metrics | group_metrics | {"first_codes": first_codes, "loss": loss}


def target_logps(ranker: Ranker, params: Params, asked: Prefilled, target: jax.Array) -> jax.Array:
    """Log-probability float32[B] of each prompt's target, differentiable; -inf where it is left out."""
    return ranker.score(params, asked, target[:, None]).sum(-1)[:, 0]


def distinct_first_codes(ranker: Ranker, items: jax.Array) -> jax.Array:
    """How many different first tokens a list of items int32[B, G] holds, a user's in the mean. RL narrows lists."""
    nodes = jnp.sort(ranker.trie.path(items)[..., 0], axis=1)
    new = jnp.pad(nodes[:, 1:] != nodes[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return (new & (nodes != ranker.trie.dead)).sum(axis=1).astype(jnp.float32).mean()


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


def by_probability(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array) -> jax.Array:
    """The negatives by their own probability."""
    return policy_weights(scores, hit, where=valid)


# By `rl.weighting`: (settings, scores [B, G], hits, valid) -> weights [B, G] on a group's advantages, 1 on the target.
WEIGHTING: dict[str, Callable[[RlConfig, jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "none": equal_weights,
    "tawin": soft_window,
    "window": hard_window,
    "opauc": one_way_window,
    "policy": by_probability,
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
        "hit_mass": jnp.where(hit, mass, 0.0).sum(axis=1).mean(),
        "entropy_low": (known - rest * jnp.log(rest)).mean(),
        "entropy_high": (known - rest * jnp.log(rest / unseen)).mean(),
        "weight_by_rank": by_rank.sum(axis=(0, 1)) / scores.shape[0],
    }
