"""RL without a group: objectives of the target's own probability, `rl.estimator=exact`.

The target is scored once, teacher-forced, behind the one pass over the prompt. So a step costs that of a group of one
candidate, and no row is dead. Several targets count as one event: that any of them is drawn.

Only soft Recall@K looks at other items, for its threshold: K + 1 beams without gradients (`beam`), `rl.group_size` of
them (`window`), or a pass over the whole trie (`exact`). In a catalog of one token an item all items are scored in one
product in any case, so the beams are exact.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import RlBatch
from wpauc_jax.config import RlConfig
from wpauc_jax.decode import Prefilled, Ranker
from wpauc_jax.models import Params
from wpauc_jax.objectives import (
    Total,
    exact_group_loss,
    gce_loss,
    soft_recall,
    soft_top_k_loss,
    top_k_threshold,
    window_threshold,
)
from wpauc_jax.objectives.masked import total
from wpauc_jax.runtime.sharding import constrain
from wpauc_jax.training.groups import distinct_first_codes, dropout_of, target_logps
from wpauc_jax.training.judge import Judge, targets_of
from wpauc_jax.training.parts import Totals
from wpauc_jax.training.state import Metrics
from wpauc_jax.training.teaching import exact_ranks, teaching_metrics

Loss = Callable[[jax.Array], Total]  # of log-probabilities of the targets [B]
# (ranker, params, prompts, batch, log-probabilities of the targets [B], settings) -> the loss, and what it tells.
Objective = Callable[[Ranker, Params, Prefilled, RlBatch, jax.Array, RlConfig], tuple[Loss, Metrics]]


def exact_terms(
    ranker: Ranker,
    params: Params,
    *,
    ref_params: Params | None,
    batch: RlBatch,
    key: jax.Array,
    config: RlConfig,
    judge: Judge,
) -> tuple[Totals, Metrics]:
    """The loss of B users' targets and, with `rl.nll`, their negative log-likelihood; and what they tell.

    Dropout alone draws with the key. There is no KL term, so `ref_params` are None, and the reward is binary.
    """
    asked = ranker.prefill(params, batch.prompts, dropout_of(config, key))
    each = target_logps(ranker, params, asked, targets_of(batch, config))
    logps = each[:, 0] if config.targets == 1 else jax.nn.logsumexp(each, axis=1)
    objective, metrics = OBJECTIVES[config.kind](ranker, params, asked, batch, logps, config)
    nll = gce_loss(logps, q=0.0)

    def loss_of(logps: jax.Array) -> jax.Array:
        return objective(logps).mean()

    loss = objective(logps)
    totals = (loss, nll) if config.nll else (loss,)
    metrics |= {"nll": nll.mean(), "target_mass": _of_possible(jnp.exp(logps), logps)}
    ranks = exact_ranks(ranker, params, asked, batch.target)
    if ranks is None:
        return totals, metrics
    told, together = jax.lax.stop_gradient((each, logps))
    slopes = jax.grad(loss_of)(together) - config.nll / len(together)
    pushes = slopes[:, None] * jnp.exp(told - together[:, None])
    metrics.setdefault("hit_rate", _of_possible(ranks < config.list_length, told[:, 0]))
    return totals, metrics | teaching_metrics(ranks, pushes, told, ~jnp.isneginf(told))


def _of_possible(values: jax.Array, logps: jax.Array) -> jax.Array:
    """The mean of values [B] over the rows whose target is possible, as the loss takes it."""
    return total(values, ~jnp.isneginf(logps)).mean()


def expected_group(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, logps: jax.Array, config: RlConfig
) -> tuple[Loss, Metrics]:
    """What groups of independent draws from the policy give in expectation."""
    return functools.partial(exact_group_loss, std=config.std), {}


def q_family(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, logps: jax.Array, config: RlConfig
) -> tuple[Loss, Metrics]:
    """Generalised cross-entropy."""
    return functools.partial(gce_loss, q=config.q), {}


def soft_top_k(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, logps: jax.Array, config: RlConfig
) -> tuple[Loss, Metrics]:
    """Soft Recall@K, against a threshold that is found without gradients."""
    params, asked = jax.lax.stop_gradient((params, asked))
    thresholds, metrics = THRESHOLDS[config.threshold](ranker, params, asked, batch, config)
    told = jax.lax.stop_gradient(logps)
    if "hit_rate" in metrics:  # a row each until here
        metrics["hit_rate"] = _of_possible(metrics["hit_rate"], told)
    metrics["soft_recall"] = _of_possible(soft_recall(told, thresholds, temperature=config.softness), told)
    metrics["above_threshold"] = _of_possible(told > thresholds, told)
    loss = functools.partial(soft_top_k_loss, thresholds=thresholds, temperature=config.softness, form=config.soft_form)
    return loss, metrics


# By `rl.kind`, those of `rl.estimator=exact`.
OBJECTIVES: dict[str, Objective] = {
    "grpo": expected_group,
    "dr_grpo": expected_group,
    "gce": q_family,
    "soft_topk": soft_top_k,
}


def beam_threshold(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, config: RlConfig
) -> tuple[jax.Array, Metrics]:
    """The K-th negative of K + 1 beams: one of the beams may be the target. A search finds at most the true K-th."""
    scores, negative, metrics = _searched(ranker, params, asked, batch, config.target_k + 1)
    return top_k_threshold(scores, config.target_k, where=negative), metrics


def window_of_beams(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, config: RlConfig
) -> tuple[jax.Array, Metrics]:
    """The mean of TAWin's window in a search of `rl.group_size` beams."""
    scores, negative, metrics = _searched(ranker, params, asked, batch, config.group_size)
    threshold = window_threshold(
        scores,
        anchor=config.anchor_rank,
        temperature=config.temperature,
        mass=config.mass,
        rank_scale=config.rank_scale,
        where=negative,
    )
    return threshold, metrics


def exact_threshold(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, config: RlConfig
) -> tuple[jax.Array, Metrics]:
    """The K-th negative of the whole catalog."""
    scores = ranker.score_all(params, asked)
    negative = jnp.arange(scores.shape[1]).reshape(1, -1) != batch.target[:, None]
    return top_k_threshold(scores, config.target_k, where=negative), {}


# By `rl.threshold`: (ranker, params, prompts, batch, settings) -> thresholds [B], and what they tell.
THRESHOLDS: dict[str, Callable[[Ranker, Params, Prefilled, RlBatch, RlConfig], tuple[jax.Array, Metrics]]] = {
    "beam": beam_threshold,
    "exact": exact_threshold,
    "window": window_of_beams,
}


def _searched(
    ranker: Ranker, params: Params, asked: Prefilled, batch: RlBatch, num_beams: int
) -> tuple[jax.Array, jax.Array, Metrics]:
    """Scores of the likeliest items [B, W], which of them are negatives, and metrics; `hit_rate` is bool[B]."""
    found = ranker.search(params, asked, num_beams=num_beams)
    items = constrain(found.items, "batch", "group")
    hit = items == batch.target[:, None]
    metrics = {
        "hit_rate": hit.any(axis=1),
        "first_codes": distinct_first_codes(ranker, items),
    }
    return found.scores, found.valid & ~hit, metrics
