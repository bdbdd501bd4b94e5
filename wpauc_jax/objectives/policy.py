"""Clipped policy-gradient losses over groups of candidates: GRPO, DAPO, GSPO and Dr.GRPO, and TAWin on top of them.

Shapes: B users (any leading axes), G candidates in a group, C completion tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wpauc_jax.objectives.advantage import group_advantages
from wpauc_jax.objectives.checks import check_choice, check_number, check_shape
from wpauc_jax.objectives.masked import Total, as_float, as_mask, masked_mean, total
from wpauc_jax.objectives.tawin import Scalar, tawin_weights

# Per-token estimates of KL(policy || reference) on the policy's samples, of ref_logps - logps.
KL_ESTIMATORS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "k1": jnp.negative,
    "k2": lambda difference: jnp.square(difference) / 2,
    "k3": lambda difference: jnp.expm1(difference) - difference,
}


class PolicySums(NamedTuple):
    """What `policy_loss_sums` returns. A pytree: add it over micro-batches, `psum` it over devices, then take means.

    Attributes:
      loss: the loss to minimise; its count does not depend on the parameters.
      kl: KL estimate from the policy to the reference over tokens; 0 of 0 without a reference.
      clip_fraction: whether the clipped bound is the active one, over ratios.
      ratio: policy over rollout probability; over tokens, or over sequences with `gspo`.
    """

    loss: Total
    kl: Total
    clip_fraction: Total
    ratio: Total

    def means(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss, metrics): each sum over its count, 0 where nothing was counted."""
        metrics = {"kl": self.kl, "clip_fraction": self.clip_fraction, "ratio": self.ratio}
        return self.loss.mean(), {name: value.mean() for name, value in metrics.items()}


def policy_loss(
    logps: jax.typing.ArrayLike,
    advantages: jax.typing.ArrayLike,
    *,
    old_logps: jax.typing.ArrayLike | None = None,
    ref_logps: jax.typing.ArrayLike | None = None,
    token_mask: jax.typing.ArrayLike | None = None,
    where: jax.typing.ArrayLike | None = None,
    kind: str = "grpo",
    clip_low: Scalar = 0.2,
    clip_high: Scalar = 0.2,
    kl_coef: Scalar = 0.0,
    kl_estimator: str = "k3",
    max_length: int | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean policy-gradient loss of one batch, and its metrics. Arguments and errors: see `policy_loss_sums`.

    Returns:
      The scalar loss, and the scalar metrics `kl`, `clip_fraction` and `ratio`, means of what `PolicySums` holds.
    """
    sums = policy_loss_sums(
        logps,
        advantages,
        old_logps=old_logps,
        ref_logps=ref_logps,
        token_mask=token_mask,
        where=where,
        kind=kind,
        clip_low=clip_low,
        clip_high=clip_high,
        kl_coef=kl_coef,
        kl_estimator=kl_estimator,
        max_length=max_length,
    )
    return sums.means()


def policy_loss_sums(
    logps: jax.typing.ArrayLike,
    advantages: jax.typing.ArrayLike,
    *,
    old_logps: jax.typing.ArrayLike | None = None,
    ref_logps: jax.typing.ArrayLike | None = None,
    token_mask: jax.typing.ArrayLike | None = None,
    where: jax.typing.ArrayLike | None = None,
    kind: str = "grpo",
    clip_low: Scalar = 0.2,
    clip_high: Scalar = 0.2,
    kl_coef: Scalar = 0.0,
    kl_estimator: str = "k3",
    max_length: int | None = None,
) -> PolicySums:
    """Policy-gradient loss as (sum, count), so that micro-batches and devices add up exactly.

    With ratio = exp(logps - old_logps), a token costs -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A)
    + kl_coef * KL. The four kinds differ in how tokens are averaged:
      grpo: over the tokens of a sequence, then over sequences (arXiv 2402.03300).
      dapo: over all tokens of all sequences (arXiv 2503.14476; its clip is 0.2 / 0.28, without KL).
      gspo: one ratio per sequence, exp(mean over tokens of logps - old_logps), then over sequences (2507.18071).
      dr_grpo: sum over the tokens of a sequence divided by `max_length`, then over sequences (2503.20783). Its
        advantages have no std: `group_advantages(..., std="none")`.

    To accumulate over micro-batches: `jax.value_and_grad(lambda p: (s := policy_loss_sums(...)).loss.sum, s)`, with
    `has_aux`, add gradients and sums, and divide the gradients by `sums.loss.count`.

    Args:
      logps: log-probabilities of the candidates' tokens under the policy [..., G, C]; may be -inf where masked.
      advantages: [..., G], or of every token [..., G, C] except with `gspo`; a constant; already reweighted if
        reweighting is wanted.
      old_logps: the same under the policy that rolled out; None: this policy itself, so the ratio is 1 and the
        gradient is that of -A logps.
      ref_logps: the same under the reference policy, for the KL.
      token_mask: tokens that count [..., G, C]; None: all. A candidate without tokens counts nowhere.
      where: valid candidates [..., G]; None: all. An invalid candidate counts nowhere.
      kind: how tokens are averaged, see above.
      clip_low: how far below 1 the ratio may fall before a negative advantage stops pushing.
      clip_high: how far above 1 the ratio may rise before a positive advantage stops pushing.
      kl_coef: weight of the KL; needs `ref_logps` unless it is 0.
      kl_estimator: `k1` logps - ref, `k2` half its square, `k3` exp(ref - logps) - (ref - logps) - 1. As a loss term
        k1 has no expected gradient on the policy's own samples; k2 and k3 have.
      max_length: the constant of dr_grpo; None: C.

    Returns:
      PolicySums of scalars.

    Raises:
      ValueError: unequal shapes, an unknown option, a negative constant, kl_coef without ref_logps, or advantages of
        tokens with `gspo`, whose ratio is a sequence's.
    """
    check_choice("kind", kind, KINDS)
    check_choice("kl_estimator", kl_estimator, KL_ESTIMATORS)
    for name, value in (("clip_low", clip_low), ("clip_high", clip_high), ("kl_coef", kl_coef)):
        check_number(name, value, low=0.0)
    if ref_logps is None and not (isinstance(kl_coef, int | float) and kl_coef == 0):
        raise ValueError(f"kl_coef={kl_coef!r} needs ref_logps; give the reference's log-probabilities or kl_coef=0.0")
    logps, advantages, valid, mask = _checked(logps, advantages, where, token_mask)
    old = logps if old_logps is None else _like(old_logps, logps, mask, "old_logps")
    log_ratio = logps - jax.lax.stop_gradient(old)
    log_ratio, ratio_mask = KINDS[kind].ratio(log_ratio, mask, valid)
    if advantages.shape[-1] != 1 and kind == "gspo":
        raise ValueError("kind='gspo' has one ratio for a sequence; give advantages [..., G], not of every token")
    surrogate, ratio, clipped = _clipped_surrogate(log_ratio, advantages, clip_low, clip_high)
    aggregate = KINDS[kind].aggregate
    length = logps.shape[-1] if max_length is None else max_length
    loss = aggregate(-surrogate, ratio_mask, valid, length)
    kl = Total(jnp.zeros_like(loss.sum), jnp.zeros_like(loss.count))
    if ref_logps is not None:
        kl_tokens = KL_ESTIMATORS[kl_estimator](_like(ref_logps, logps, mask, "ref_logps") - logps)
        kl = total(jax.lax.stop_gradient(kl_tokens), mask)
        loss = Total(loss.sum + kl_coef * aggregate(kl_tokens, mask, valid, length).sum, loss.count)
    ratio, clipped = jax.lax.stop_gradient((ratio, clipped))
    return PolicySums(loss, kl, total(clipped, ratio_mask), total(ratio, ratio_mask))


def tawin_advantages(
    rewards: jax.typing.ArrayLike,
    *,
    scores: jax.typing.ArrayLike,
    anchor: Scalar,
    temperature: Scalar = 1.0,
    mass: Scalar = 1.0,
    rank_scale: str = "rank",
    std: str = "sample",
    eps: float = 1e-4,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """Group advantages of binary rewards, the negatives' reweighted by TAWin: [..., G].

    Args:
      rewards: 1 for the target, 0 for the rest [..., G]. A reward above 0 makes a positive.
      scores: the policy's score of each candidate [..., G], the sum of its token log-probabilities. A constant.
      anchor: centre of the window among the negatives, 0-based; K - 1 to serve Recall@K. This and `temperature`,
        `mass` and `rank_scale` are described at `tawin_weights`; `std` and `eps` at `group_advantages`.
      temperature: width of the window.
      mass: number of negatives it holds.
      rank_scale: what distance between ranks means.
      std: `sample`, `population` or `none`.
      eps: added to the standard deviation.
      where: valid candidates [..., G].

    Returns:
      [..., G]: each group sums to 0; all 0 in a group without a hit or without a miss.
    """
    advantages = group_advantages(rewards, std=std, eps=eps, where=where)
    return advantages * tawin_weights(
        scores,
        jnp.asarray(rewards) > 0,
        anchor=anchor,
        temperature=temperature,
        mass=mass,
        rank_scale=rank_scale,
        where=where,
    )


def tawin_loss(
    logps: jax.typing.ArrayLike,
    rewards: jax.typing.ArrayLike,
    *,
    scores: jax.typing.ArrayLike,
    anchor: Scalar,
    temperature: Scalar = 1.0,
    mass: Scalar = 1.0,
    rank_scale: str = "rank",
    std: str = "sample",
    eps: float = 1e-4,
    where: jax.typing.ArrayLike | None = None,
    **policy_options: Any,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The one call of a training loop: reward -> advantage -> TAWin -> loss.

    Args:
      logps: token log-probabilities of the candidates [..., G, C]. An item ranker without tokens has C = 1.
      rewards: 1 for the target, 0 for the rest [..., G].
      scores: what ranks the candidates [..., G], as in `tawin_advantages`.
      anchor: as in `tawin_advantages`.
      temperature: as in `tawin_advantages`.
      mass: as in `tawin_advantages`.
      rank_scale: as in `tawin_advantages`.
      std: as in `tawin_advantages`.
      eps: as in `tawin_advantages`.
      where: valid candidates [..., G].
      **policy_options: `old_logps`, `ref_logps`, `token_mask`, `kind`, `clip_low`, `clip_high`, `kl_coef`,
        `kl_estimator`, `max_length` of `policy_loss_sums`.

    Returns:
      The scalar loss, and the metrics of `policy_loss` with `hit_rate`, the share of groups that hold a positive:
      all others have no gradient but the KL's.
    """
    advantages = tawin_advantages(
        rewards,
        scores=scores,
        anchor=anchor,
        temperature=temperature,
        mass=mass,
        rank_scale=rank_scale,
        std=std,
        eps=eps,
        where=where,
    )
    loss, metrics = policy_loss(logps, advantages, where=where, **policy_options)
    hits = (jnp.asarray(rewards) > 0) & as_mask(where, advantages.shape)
    return loss, {**metrics, "hit_rate": jnp.mean(jnp.any(hits, -1), dtype=loss.dtype)}


def _checked(
    logps: jax.typing.ArrayLike,
    advantages: jax.typing.ArrayLike,
    where: jax.typing.ArrayLike | None,
    token_mask: jax.typing.ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Log-probs (0 where masked), constant advantages [..., G, 1 or C], candidates that count, tokens that count."""
    logps, advantages = as_float(logps), jax.lax.stop_gradient(as_float(advantages))
    if logps.ndim < 2:
        raise ValueError(f"logps has shape {logps.shape}; it needs a candidate axis and a token axis, [..., G, C]")
    of_tokens = advantages.ndim == logps.ndim
    check_shape("advantages", advantages, logps.shape if of_tokens else logps.shape[:-1], "logps [..., G, C]")
    mask = as_mask(token_mask, logps.shape) & as_mask(where, logps.shape[:-1])[..., None]
    valid = jnp.any(mask, -1)
    advantages = jnp.where(mask, advantages, 0) if of_tokens else jnp.where(valid, advantages, 0)[..., None]
    return jnp.where(mask, logps, 0), advantages, valid, mask


def _like(other: jax.typing.ArrayLike, logps: jax.Array, mask: jax.Array, name: str) -> jax.Array:
    """Another policy's log-probs of the same tokens: a constant, 0 where masked."""
    other = jax.lax.stop_gradient(as_float(other))
    check_shape(name, other, logps.shape, "logps")
    return jnp.where(mask, other, 0)


def _clipped_surrogate(
    log_ratio: jax.Array, advantages: jax.Array, clip_low: Scalar, clip_high: Scalar
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """min(ratio A, clip(ratio) A), the ratio, and whether the clipped bound is active."""
    ratio = jnp.exp(log_ratio)
    plain = ratio * advantages
    bounded = jnp.clip(ratio, 1 - clip_low, 1 + clip_high) * advantages
    clipped = bounded < plain
    return jnp.where(clipped, bounded, plain), ratio, clipped.astype(ratio.dtype)


def _sequence_mean(values: jax.Array, mask: jax.Array, valid: jax.Array, length: int) -> Total:
    del length
    return total(masked_mean(values, mask), valid)


def _token_mean(values: jax.Array, mask: jax.Array, valid: jax.Array, length: int) -> Total:
    del valid, length
    return total(values, mask)


def _constant_length(values: jax.Array, mask: jax.Array, valid: jax.Array, length: int) -> Total:
    return total(total(values, mask, axis=-1).sum / length, valid)


def _of_tokens(log_ratio: jax.Array, mask: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    del valid
    return log_ratio, mask


def _of_sequences(log_ratio: jax.Array, mask: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    return masked_mean(log_ratio, mask, keepdims=True), valid[..., None]


class _Kind(NamedTuple):
    """What tells one loss from another."""

    ratio: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # log-ratios and which count
    aggregate: Callable[[jax.Array, jax.Array, jax.Array, int], Total]  # values of tokens or sequences to the loss


KINDS: dict[str, _Kind] = {
    "grpo": _Kind(_of_tokens, _sequence_mean),
    "dapo": _Kind(_of_tokens, _token_mean),
    "gspo": _Kind(_of_sequences, _sequence_mean),
    "dr_grpo": _Kind(_of_tokens, _constant_length),
}
