"""The loss of given answers under the plain language model: what alignment tasks add to SFT."""

import jax
import jax.numpy as jnp

from wpauc_jax.models import Params, Policy

_BLOCK = 8  # rows whose logits over the vocabulary exist at one time


def answer_loss(
    policy: Policy, params: Params, tokens: jax.Array, starts: jax.Array, answers: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy over the vocabulary of each answer's tokens, as (sum, count of tokens).

    tokens int32[B, T], starts int32[B] (the place before an answer's first token), answers
    int32[B, A] (-1 behind the end).
    """
    hidden = policy.hidden(params, tokens)
    steps = jnp.arange(answers.shape[1], dtype=jnp.int32)
    places = jnp.minimum(starts[:, None] + steps[None], tokens.shape[1] - 1)
    states = jnp.take_along_axis(hidden, places[..., None], axis=1)

    @jax.checkpoint
    def row_loss(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        states_AD, answers_A = row
        logits_AV = policy.logits(params, states_AD)
        chosen = jnp.take_along_axis(logits_AV, jnp.maximum(answers_A, 0)[:, None], axis=1)[:, 0]
        return jnp.where(answers_A >= 0, jax.nn.logsumexp(logits_AV, axis=1) - chosen, 0.0).sum()

    losses = jax.lax.map(row_loss, (states, answers), batch_size=_BLOCK)
    return losses.sum(), (answers >= 0).sum().astype(jnp.float32)
