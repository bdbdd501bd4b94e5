"""What candidates get: rewards, and which misses are no true negatives. All of it is computed inside the step.

What rewards look at beside the hit is loaded once and is an argument of the step's program (`Judge`). What they find
for a group has no gradient (`Evidence`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.objectives import cosine_reward, ranking_reward

Array = Any  # a JAX array, or None where nothing asks for it


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["embeddings", "titles", "ranker", "params"],
    meta_fields=[],
)
@dataclasses.dataclass(frozen=True)
class Judge:
    """What rewards and false negatives of a run look at; None for what they do not need."""

    embeddings: Array = None  # float32[I, D]
    titles: Array = None  # int32[I]: items of one title have one number; of an item without, its own
    ranker: Any = None  # the `Ranker` of another run, whose items are one token each
    params: Any = None  # that run's


@functools.partial(jax.tree_util.register_dataclass, data_fields=["similarity", "affinity", "spared"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a judge finds of B groups; None for what was not asked."""

    similarity: Array = None  # float32[B, G], cosines with the target
    affinity: Array = None  # float32[B, G], log-probabilities under the other run's model
    spared: Array = None  # bool[B, G], misses that are no true negatives


def targets_of(batch: RlBatch, config: RlConfig) -> jax.Array:
    """The items int32[B, N] that a row's reward asks for, -1 for none; the row's own target is the first."""
    if config.targets == 1:
        return batch.target[:, None]
    return jnp.concatenate([batch.target[:, None], batch.later[:, : config.targets - 1]], axis=1)


def hits(items: jax.Array, targets: Array) -> jax.Array:
    """bool[B, G]: which items int32[B, G] are among the targets int32[B, N]."""
    if targets.shape[1] == 1:
        return items == targets
    return ((items[:, :, None] == targets[:, None, :]) & (items >= 0)[:, :, None]).any(-1)


def evidence_of(judge: Judge, batch: RlBatch, items: jax.Array, config: RlConfig) -> Evidence:
    """What the judge finds of groups int32[B, G], as far as the settings ask for it."""
    asked = config.weights_of_rewards
    similarity = affinity = spared = None
    if config.needs_embeddings:
        similarity = _similarity(judge, batch.target, items)
    if "collaborative" in asked:
        ranker, prompts = judge.ranker, batch.judge
        affinity = ranker.score(judge.params, ranker.prefill(judge.params, prompts), items).sum(-1)
    if config.false_negatives != "keep":
        found = FALSE_NEGATIVES[config.false_negative](judge, batch, items, similarity, config)
        spared = found & (items >= 0) & ~hits(items, targets_of(batch, config))
    return jax.lax.stop_gradient(Evidence(similarity, affinity, spared))


def _similarity(judge: Judge, target: jax.Array, items: jax.Array) -> jax.Array:
    known = items >= 0
    return cosine_reward(judge.embeddings[jnp.where(known, items, 0)], judge.embeddings[target], where=known)


def binary(scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> jax.Array:
    """1 for a target."""
    return hit.astype(jnp.float32)


def ranking(scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> jax.Array:
    """A miss loses the more, the higher it stands in a list with a target."""
    return ranking_reward(scores, hit, where=valid)


def semantic(scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> jax.Array:
    """The cosine of embeddings."""
    return evidence.similarity


def collaborative(scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> jax.Array:
    """What another recommender thinks. Its log-partition, the same for a whole group, does not matter."""
    return evidence.affinity


# By name: (scores [B, G], hits, valid, evidence) -> rewards [B, G].
PARTS: dict[str, Callable[[jax.Array, jax.Array, jax.Array, Evidence], jax.Array]] = {
    "binary": binary,
    "ranking": ranking,
    "semantic": semantic,
    "collaborative": collaborative,
}


def one_part(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> jax.Array:
    """The reward of that name alone."""
    return PARTS[config.reward](scores, hit, valid, evidence)


def weighted_parts(
    config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence
) -> jax.Array:
    """The sum of rewards times their weights."""
    total = jnp.zeros(scores.shape, jnp.float32)
    for name, weight in config.weights_of_rewards.items():
        total += weight * PARTS[name](scores, hit, valid, evidence)
    return total


# By `rl.reward`: (settings, scores [B, G], hits, valid, evidence) -> rewards float32[B, G].
REWARDS: dict[str, Callable[[RlConfig, jax.Array, jax.Array, jax.Array, Evidence], jax.Array]] = {
    **dict.fromkeys(PARTS, one_part),
    "combined": weighted_parts,
}


def same_title(judge: Judge, batch: RlBatch, items: jax.Array, similarity: Array, config: RlConfig) -> jax.Array:
    """Items with the title of the target."""
    return judge.titles[jnp.maximum(items, 0)] == judge.titles[batch.target][:, None]


def near_in_embedding(judge: Judge, batch: RlBatch, items: jax.Array, similarity: Array, config: RlConfig) -> jax.Array:
    """Items whose embedding is near the target's."""
    return similarity >= config.false_negative_cosine


def taken_later(judge: Judge, batch: RlBatch, items: jax.Array, similarity: Array, config: RlConfig) -> jax.Array:
    """Items that the user takes after the target, inside the training split."""
    return hits(items, batch.later)


# By `rl.false_negative`: (judge, batch, items [B, G], cosines [B, G], settings) -> which may have been liked.
FALSE_NEGATIVES: dict[str, Callable[[Judge, RlBatch, jax.Array, Array, RlConfig], jax.Array]] = {
    "title": same_title,
    "embedding": near_in_embedding,
    "later": taken_later,
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a group learns from."""

    rewards: jax.Array  # float32[B, G]
    positive: jax.Array  # bool[B, G], what no weighting takes for a negative
    valid: jax.Array  # bool[B, G], who takes part


def as_they_are(config: RlConfig, rewards: jax.Array, hit: jax.Array, valid: jax.Array, spared: Array) -> Verdict:
    """Every miss is a negative."""
    return Verdict(rewards, hit, valid)


def left_out(config: RlConfig, rewards: jax.Array, hit: jax.Array, valid: jax.Array, spared: Array) -> Verdict:
    """False negatives take no part."""
    return Verdict(rewards, hit, valid & ~spared)


def rewarded(config: RlConfig, rewards: jax.Array, hit: jax.Array, valid: jax.Array, spared: Array) -> Verdict:
    """False negatives get a reward of their own."""
    return Verdict(jnp.where(spared, config.false_negative_reward, rewards), hit | spared, valid)


# By `rl.false_negatives`: (settings, rewards [B, G], hits, valid, false negatives) -> the verdict.
VERDICTS: dict[str, Callable[[RlConfig, jax.Array, jax.Array, jax.Array, Array], Verdict]] = {
    "keep": as_they_are,
    "mask": left_out,
    "reward": rewarded,
}


def judged(config: RlConfig, scores: jax.Array, hit: jax.Array, valid: jax.Array, evidence: Evidence) -> Verdict:
    """Rewards of B groups, and who takes part."""
    rewards = REWARDS[config.reward](config, scores, hit, valid, evidence)
    return VERDICTS[config.false_negatives](config, rewards, hit, valid, evidence.spared)
