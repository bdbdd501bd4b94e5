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
    Total,
    bounded_negatives,
    group_advantages,
    negative_ranks,
    policy_loss_sums,
    policy_weights,
    sibling_advantages,
    softmax_dpo_loss,
    tawin_weights,
    window_weights,
)
from wpauc_jax.objectives.masked import total
from wpauc_jax.objectives.policy import KINDS
from wpauc_jax.runtime.sharding import constrain
from wpauc_jax.training.judge import Evidence, Judge, Verdict, evidence_of, hits, judged, targets_of
from wpauc_jax.training.state import Metrics

_DROPOUT = 0x64726F70  # tells the key of dropout from those of a rollout's depths


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["items", "targets", "ref_logps", "evidence", "hints"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Groups:
    """What the update needs of a rollout."""

    items: jax.Array  # int32[B, G], -1 where not valid
    targets: jax.Array  # int32[B, N], -1 for none; a row's own target is the first
    ref_logps: jax.Array | None  # float32[B, G, C], where there is a KL term
    evidence: Evidence
    hints: jax.Array | None = None  # int32[B], how many first tokens a group was given; None: none was

    @property
    def alive(self) -> jax.Array:
        """bool[B]: whether a group has a hit and a miss. Any other group's advantages and policy gradient are 0."""
        hit = hits(self.items, self.targets)
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
        targets=targets_of(batch, config) if config.targets > 1 else None,
        num_siblings=config.num_siblings,
        sibling_depth=config.sibling_depth,
    )
    return constrain(items, "batch", "group")  # a user's candidates stay together


def groups_of(
    items: jax.Array,
    batch: RlBatch,
    ref_logps: jax.Array | None,
    *,
    judge: Judge,
    config: RlConfig,
    hints: jax.Array | None = None,
) -> Groups:
    """What is rolled out, with what the judge finds of it."""
    return Groups(items, targets_of(batch, config), ref_logps, evidence_of(judge, batch, items, config), hints)


@dataclasses.dataclass(frozen=True)
class Pushed:
    """Which items a step pushes, and how much: what `teaching_metrics` reads."""

    items: jax.Array  # int32[B, G]
    pushes: jax.Array  # float32[B, G], the mean of the advantages of an item's tokens
    scores: jax.Array  # float32[B, G]
    valid: jax.Array  # bool[B, G]


def group_sums(
    ranker: Ranker, params: Params, asked: Prefilled, groups: Groups, *, config: RlConfig
) -> tuple[Total, Metrics, Pushed]:
    """The loss of the groups, and metrics; differentiable in the parameters and in what the prompts leave behind."""
    items, trie = groups.items, ranker.trie
    logps = ranker.score(params, asked, items)
    scores = jax.lax.stop_gradient(logps).sum(-1)
    found = items >= 0
    verdict = judged(config, scores, hits(items, groups.targets), found, groups.evidence)
    weights = WEIGHTING[config.weighting](config, scores, verdict.positive, verdict.valid, _wanted(groups.targets))
    if config.negative_scale != 1.0:
        weights = jnp.where(verdict.positive, weights, config.negative_scale * weights)
    nodes = trie.path(items)
    is_token = nodes != trie.dead
    if groups.hints is not None:
        is_token &= jnp.arange(trie.depth).reshape(1, 1, -1) >= groups.hints[:, None, None]
    scored = Scored(logps, nodes, is_token, verdict, weights, groups.ref_logps)
    loss, metrics, pushes = LOSSES[config.kind](config, scored)
    metrics |= _group_metrics(scores, verdict, hits(items, groups.targets), weights, trie.num_items)
    if groups.evidence.spared is not None:
        metrics["false_negatives"] = (groups.evidence.spared.sum() / jnp.maximum(found.sum(), 1)).astype(jnp.float32)
    pushed = Pushed(items, pushes, scores, verdict.valid)
    return loss, metrics | {"first_codes": distinct_first_codes(ranker, items), "loss": loss.mean()}, pushed


@dataclasses.dataclass(frozen=True)
class Scored:
    """Groups as a loss sees them."""

    logps: jax.Array  # float32[B, G, C], of the policy, with its gradient
    nodes: jax.Array  # int32[B, G, C], the candidates' paths
    is_token: jax.Array  # bool[B, G, C], the tokens that are learnt
    verdict: Verdict
    weights: jax.Array  # float32[B, G]
    ref_logps: jax.Array | None  # float32[B, G, C]


def policy_gradient(config: RlConfig, groups: Scored) -> tuple[Total, Metrics, jax.Array]:
    """Candidates pushed by their advantages. Returns the loss, metrics, and each candidate's push [B, G]."""
    verdict, is_token = groups.verdict, groups.is_token
    pushes = group_advantages(verdict.rewards, std=config.std, where=verdict.valid) * groups.weights
    if config.sibling_coef:
        among = sibling_advantages(verdict.rewards, groups.nodes, where=is_token & verdict.valid[..., None])
        pushes = pushes[..., None] + config.sibling_coef * among
    if config.bound_negatives:
        pushes = bounded_negatives(pushes, jax.lax.stop_gradient(groups.logps))
    sums = policy_loss_sums(
        groups.logps,
        pushes,
        ref_logps=groups.ref_logps,
        token_mask=is_token,
        where=verdict.valid,
        kind=config.kind,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        kl_coef=config.kl_coef,
    )
    if pushes.ndim == groups.logps.ndim:
        pushes = jnp.where(is_token, pushes, 0).sum(-1) / jnp.maximum(is_token.sum(-1), 1)
    return sums.loss, sums.means()[1], pushes


def preference(config: RlConfig, groups: Scored) -> tuple[Total, Metrics, jax.Array]:
    """S-DPO: the target against all the others of its group. Returns as `policy_gradient` does.

    Groups without their target, or without another, do not count.
    """
    hit, negative = groups.verdict.positive, groups.verdict.valid & ~groups.verdict.positive
    assert groups.ref_logps is not None  # `RlConfig.keeps_reference`
    logps, reference = groups.logps.sum(-1), groups.ref_logps.sum(-1)
    of_target = functools.partial(jnp.sum, axis=1, where=hit)  # a group's items are distinct, so it has one

    def loss_of(logps: jax.Array) -> Total:
        return softmax_dpo_loss(
            of_target(logps),
            logps,
            ref_positive_logps=of_target(reference),
            ref_negative_logps=reference,
            beta=config.dpo_beta,
            where=hit.any(axis=1),
            where_negative=negative,
        )

    told = jax.lax.stop_gradient(logps)
    gain = told - reference
    best_other = jnp.max(gain, axis=1, where=negative, initial=-jnp.inf)
    preferred = total(of_target(gain) > best_other, hit.any(axis=1) & negative.any(axis=1))
    return loss_of(logps), {"preferred": preferred.mean()}, -jax.grad(lambda logps: loss_of(logps).sum)(told)


# By `rl.kind`, those of `rl.estimator=sampled`: (settings, groups) -> the loss, metrics, and each candidate's push.
LOSSES: dict[str, Callable[[RlConfig, Scored], tuple[Total, Metrics, jax.Array]]] = {
    **dict.fromkeys(KINDS, policy_gradient),
    "sdpo": preference,
}


def _wanted(targets: jax.Array) -> jax.Array | int:
    """How many targets each row has: float32[B, 1], or 1 where no row can have another."""
    if targets.shape[1] == 1:
        return 1
    return (targets >= 0).sum(axis=1, keepdims=True).astype(jnp.float32)


def target_logps(ranker: Ranker, params: Params, asked: Prefilled, targets: jax.Array) -> jax.Array:
    """Log-probability float32[B, N] of each prompt's targets int32[B, N], differentiable.

    -inf where one is left out, and where there is none.
    """
    logps = ranker.score(params, asked, targets).sum(-1)
    return logps if targets.shape[1] == 1 else jnp.where(targets >= 0, logps, -jnp.inf)


def distinct_first_codes(ranker: Ranker, items: jax.Array) -> jax.Array:
    """How many different first tokens a list of items int32[B, G] holds, a user's in the mean. RL narrows lists."""
    nodes = jnp.sort(ranker.trie.path(items)[..., 0], axis=1)
    new = jnp.pad(nodes[:, 1:] != nodes[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return (new & (nodes != ranker.trie.dead)).sum(axis=1).astype(jnp.float32).mean()


Wanted = jax.Array | int  # how many targets each row has, float32[B, 1]; or 1


def equal_weights(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """1 on every candidate."""
    return valid.astype(scores.dtype)


def hard_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """The negatives from the anchor's rank on, as many as `rl.mass` for each target."""
    size = max(round(config.mass), 1) * wanted
    return window_weights(scores, hit, start=_anchor(config, wanted), size=size, where=valid)


def one_way_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """The negatives from the first to the anchor's rank."""
    return window_weights(scores, hit, start=0, size=_anchor(config, wanted) + 1, where=valid)


def soft_window(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """TAWin: a soft window around the anchor's rank."""
    return tawin_weights(
        scores,
        hit,
        anchor=_anchor(config, wanted),
        temperature=config.temperature,
        mass=config.mass * wanted,
        rank_scale=config.rank_scale,
        where=valid,
    )


def by_probability(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """The negatives by their own probability."""
    return policy_weights(scores, hit, where=valid)


def without_the_top(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, wanted: Wanted) -> jax.Array:
    """The negatives without the top share `rl.trim_top` of them: WPAUC(trim_top, 1 - trim_top)."""
    count = (valid & ~hit).sum(axis=1, keepdims=True)
    start = jnp.ceil(config.trim_top * count - 1e-4)  # .2 of 15 is 3, whatever rounding says
    return window_weights(scores, hit, start=start, size=scores.shape[1], where=valid)


def _anchor(config: RlConfig, wanted: Wanted) -> jax.Array | int:
    """The rank at the window's centre: K - n for n targets, unless `rl.anchor` says another one."""
    return config.target_k - wanted if config.anchor is None else config.anchor


# By `rl.weighting`: (settings, scores [B, G], hits, valid, number of targets) -> weights [B, G] on a group's
# advantages, 1 on the targets.
WEIGHTING: dict[str, Callable[[RlConfig, jax.Array, jax.Array, jax.Array, Wanted], jax.Array]] = {
    "none": equal_weights,
    "tawin": soft_window,
    "window": hard_window,
    "opauc": one_way_window,
    "policy": by_probability,
    "trimmed": without_the_top,
}


def _group_metrics(scores: jax.Array, verdict: Verdict, hit: jax.Array, weights: jax.Array, num_items: int) -> Metrics:
    """Metrics that show how a run goes. The entropy over the catalog has two bounds; the group's part is exact."""
    valid, rewards = verdict.valid, verdict.rewards
    low = jnp.where(valid, rewards, jnp.inf).min(axis=1)
    high = jnp.where(valid, rewards, -jnp.inf).max(axis=1)
    negative = valid & ~verdict.positive
    mass = jnp.where(valid, jnp.exp(scores), 0.0)
    known = -jnp.where(valid, mass * scores, 0.0).sum(axis=1)
    rest = jnp.clip(1.0 - mass.sum(axis=1), 1e-9, 1.0)
    unseen = jnp.maximum(num_items - valid.sum(axis=1), 1).astype(jnp.float32)
    ranks = negative_ranks(scores, verdict.positive, where=valid)
    by_rank = jax.nn.one_hot(ranks, scores.shape[1]) * (weights * negative)[..., None]
    return {
        "reward": jnp.where(valid, rewards, 0.0).sum() / jnp.maximum(valid.sum(), 1),
        "hit_rate": hit.any(axis=1).mean(),
        "dead_groups": (low >= high).mean(),  # nobody is better than another
        "group_mass": mass.sum(axis=1).mean(),
        "hit_mass": jnp.where(hit, mass, 0.0).sum(axis=1).mean(),
        "entropy_low": (known - rest * jnp.log(rest)).mean(),
        "entropy_high": (known - rest * jnp.log(rest / unseen)).mean(),
        "weight_by_rank": by_rank.sum(axis=(0, 1)) / scores.shape[0],
    }
