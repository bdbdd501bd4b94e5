"""The loss of given answers under the plain language model. SFT adds it for alignment tasks."""

import jax
import jax.numpy as jnp

from wpauc_jax.batches.types import TitleTaskBatch
from wpauc_jax.models import Dropout, Params, Policy


def answer_loss(
    policy: Policy, params: Params, batch: TitleTaskBatch, dropout: Dropout | None = None
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy over the vocabulary of each answer's tokens, as (sum, count of tokens)."""
    tokens, starts, answers = batch.tokens, batch.starts, batch.answers
    states = policy.answer_states(params, tokens, None, starts[:, None], answers.shape[1], dropout)[:, 0]

    # A row's logits at its own answer's tokens, [B, A, A]: place by place those on the diagonal are wanted.
    rows = jax.vmap(lambda states_AD, answers_A: policy.logits(params, states_AD, answers_A))
    chosen = jnp.diagonal(rows(states, jnp.maximum(answers, 0)), axis1=1, axis2=2)
    losses = jnp.where(answers >= 0, policy.log_partition(params, states) - chosen, 0.0)
    return losses.sum(), (answers >= 0).sum().astype(jnp.float32)
