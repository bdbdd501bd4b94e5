"""Losses of SFT over the scores of all items, where an item is one token: `sft.objective`.

Cross-entropy is not among them. It is the default, and needs no array of scores for each target.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wpauc_jax.config import SftConfig
from wpauc_jax.objectives import (
    Total,
    gbce_loss,
    llpauc_pairwise_loss,
    opauc_top_loss,
    soft_top_k_loss,
    tawin_weights,
    top_k_threshold,
)
from wpauc_jax.objectives.masked import masked_mean, total

# (scores float32[N, I], -inf where an item may not answer; the targets' columns int32[N]; which rows count bool[N];
# the key of what is drawn; settings) -> the loss. A target may always answer.
ItemLoss = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, SftConfig], Total]


def gbce(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """Generalised binary cross-entropy against `sft.negatives` items drawn evenly (gSASRec, arXiv 2308.07192)."""
    negatives, valid = _drawn(scores, target, key, config.negatives)
    share = min(config.negatives / max(scores.shape[1] - 1, 1), 1.0)
    return gbce_loss(
        _of_target(scores, target),
        negatives,
        sampled_share=share,
        calibration=config.calibration,
        where=counted,
        where_negative=valid,
    )


def bpr(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """Mean over `sft.negatives` items drawn evenly of softplus(s_neg - s_pos): BPR (arXiv 1205.2618), which has one."""
    negatives, valid = _drawn(scores, target, key, config.negatives)
    pairs = jax.nn.softplus(negatives - _of_target(scores, target)[:, None])
    return total(masked_mean(pairs, valid), counted & valid.any(axis=1))


def sl_at_k(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """Cross-entropy times soft Recall@K, K = `sft.target_k` (SL@K, arXiv 2508.05673)."""
    logps = jax.nn.log_softmax(scores, axis=-1)
    negative = _others(scores, target)
    thresholds = top_k_threshold(jnp.where(negative, logps, 0.0), config.target_k, where=negative)
    return soft_top_k_loss(_of_target(logps, target), thresholds, temperature=config.softness, where=counted)


def opauc(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """Mean of softplus(s_neg - s_pos) over the top `sft.beta` of all negatives: OPAUC(beta)."""
    negative = _others(scores, target)
    return opauc_top_loss(
        _of_target(scores, target)[:, None],
        jnp.where(negative, scores, 0.0),
        beta=config.beta,
        surrogate="logistic",
        where_positive=counted[:, None],
        where_negative=negative,
    )


def llpauc(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """LLPAUC(`sft.alpha`, `sft.beta`) of a batch's targets and the negatives drawn for them (arXiv 2403.00844).

    The paper learns five numbers beside the model. Here they take their best values in each batch.
    """
    negatives, valid = _drawn(scores, target, key, config.negatives)
    pool = jnp.concatenate([_of_target(scores, target)[:, None], negatives], axis=1)
    is_positive = jnp.broadcast_to(jnp.arange(pool.shape[1]) == 0, pool.shape)
    where = counted[:, None] & (is_positive | jnp.pad(valid, ((0, 0), (1, 0))))
    loss = llpauc_pairwise_loss(pool, is_positive, alpha=config.alpha, beta=config.beta, where=where)
    count = counted.sum().astype(loss.dtype)
    return Total(loss * count, count)


def pairwise(scores: jax.Array, target: jax.Array, counted: jax.Array, key: jax.Array, config: SftConfig) -> Total:
    """Sum of softplus(s_neg - s_pos) over TAWin's window of negatives, centred on rank `sft.target_k` - 1."""
    negative = _others(scores, target)
    finite = jnp.where(jnp.isneginf(scores), 0.0, scores)
    positive = jax.nn.one_hot(target, scores.shape[1], dtype=bool)
    valid = negative | positive
    anchor, width = config.target_k - 1, config.temperature
    weights = tawin_weights(finite, positive, anchor=anchor, temperature=width, where=valid)
    weights = weights / jnp.maximum(negative.sum(axis=1, keepdims=True), 1)  # so that those of negatives sum to 1
    pairs = jax.nn.softplus(finite - _of_target(scores, target)[:, None])
    return total(jnp.where(negative, weights * pairs, 0.0).sum(axis=1), counted)


# By `sft.objective`, but for `cross_entropy`.
ITEM_LOSSES: dict[str, ItemLoss] = {
    "gbce": gbce,
    "bpr": bpr,
    "sl_at_k": sl_at_k,
    "opauc": opauc,
    "llpauc": llpauc,
    "pairwise": pairwise,
}


def _of_target(scores: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.take_along_axis(scores, target[:, None], axis=1)[:, 0]


def _others(scores: jax.Array, target: jax.Array) -> jax.Array:
    """bool[N, I]: the items that may answer, but for the target."""
    return ~jnp.isneginf(scores) & (jnp.arange(scores.shape[1]).reshape(1, -1) != target[:, None])


def _drawn(scores: jax.Array, target: jax.Array, key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Scores [N, count] of items drawn evenly with replacement, and which of them are negatives of their row."""
    columns = jax.random.randint(key, (scores.shape[0], count), 0, scores.shape[1])
    drawn = jnp.take_along_axis(scores, columns, axis=1)
    valid = ~jnp.isneginf(drawn) & (columns != target[:, None])
    return jnp.where(valid, drawn, 0.0), valid
