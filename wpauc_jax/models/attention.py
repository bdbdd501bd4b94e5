"""Attention in two shapes: a causal prompt, and a group of candidates that share one prompt.

Letters: B users, G candidates, S new tokens of a candidate, T tokens of a prompt, N query heads, K heads of keys and
values, H size of a head. Softmax runs in float32.
"""

import jax
import jax.numpy as jnp

_BLOCK = 96  # queries of a prompt that are run together; a block sees no key behind its last query


def causal_attention(
    q_BTNH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array, segments_BT: jax.Array | None = None
) -> jax.Array:
    """Each token attends to itself and to the tokens before it in its segment of the row -> [B, T, N, H].

    Prompts are padded on the right, so that a real token never sees padding.
    """
    B, T, N, H = q_BTNH.shape
    K, R = k_BKTH.shape[1], N // k_BKTH.shape[1]
    q_BKMH = _by_key_head(q_BTNH, K)
    outs = []
    for start in range(0, T, _BLOCK):
        end = min(start + _BLOCK, T)
        query = start + jnp.arange((end - start) * R)[:, None] // R
        causal = (jnp.arange(end)[None, :] <= query)[None, None]
        if segments_BT is not None:
            of_query = jnp.repeat(segments_BT[:, start:end], R, axis=1)
            causal &= (of_query[:, :, None] == segments_BT[:, None, :end])[:, None]
        out, _ = _attend(q_BKMH[:, :, start * R : end * R], k_BKTH[:, :, :end], v_BKTH[:, :, :end], causal)
        outs.append(out)
    out_BKMH = jnp.concatenate(outs, axis=2)
    return out_BKMH.reshape(B, K, T, R, H).transpose(0, 2, 1, 3, 4).reshape(B, T, N, H)


def group_attention(
    q_BGSNH: jax.Array,
    prompt_k_BKTH: jax.Array,
    prompt_v_BKTH: jax.Array,
    prompt_lengths_B: jax.Array,
    suffix_k_BGPKH: jax.Array,
    suffix_v_BGPKH: jax.Array,
) -> jax.Array:
    """Candidates attend to their user's prompt and to their own tokens so far -> [B, G, S, N, H].

    The suffix holds P >= S tokens a candidate, the last S being the queries' own; within it attention is causal. The
    two parts are attended to apart and merged by their log-sum-exps.
    """
    prompt = prompt_attention(q_BGSNH, prompt_k_BKTH, prompt_v_BKTH, prompt_lengths_B)
    return merged(prompt, suffix_attention(q_BGSNH, suffix_k_BGPKH, suffix_v_BGPKH))


def prompt_attention(
    q_BGSNH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array, lengths_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention to the first `lengths` tokens of each user's prompt: [B, G, S, N, H] and log-sum-exp [B, G, S, N].

    The prompt's keys are not repeated over G: for each user and key head all G * S queries are one matrix product.
    """
    B, G, S, N, H = q_BGSNH.shape
    K, T = k_BKTH.shape[1:3]
    inside = jnp.arange(T)[None, :] < lengths_B[:, None]
    q_BKMH = _by_key_head(q_BGSNH.reshape(B, G * S, N, H), K)
    out, lse = _attend(q_BKMH, k_BKTH, v_BKTH, inside[:, None, None])
    out = out.reshape(B, K, G, S, N // K, H).transpose(0, 2, 3, 1, 4, 5).reshape(B, G, S, N, H)
    return out, lse.reshape(B, K, G, S, N // K).transpose(0, 2, 3, 1, 4).reshape(B, G, S, N)


def suffix_attention(q_BGSNH: jax.Array, k_BGPKH: jax.Array, v_BGPKH: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Causal attention of a candidate's last S tokens to its P >= S tokens; results as of `prompt_attention`.

    As matrix products: XLA's fusion for CPUs (JAX 0.10) of the same sums element by element crashes where K or R is 1.
    """
    B, G, S, N, H = q_BGSNH.shape
    P, K = k_BGPKH.shape[2:4]
    q = _scaled(q_BGSNH).reshape(B, G, S, K, N // K, H)
    logits = jnp.einsum("bgskrh,bgpkh->bgspkr", q, k_BGPKH, preferred_element_type=jnp.float32)
    earlier = jnp.arange(P)[None, :] <= (P - S) + jnp.arange(S)[:, None]
    logits = jnp.where(earlier.reshape(1, 1, S, P, 1, 1), logits, -jnp.inf)
    weights, total, lse = _softmax_parts(logits, axis=3)
    weights = weights.astype(v_BGPKH.dtype)
    out = jnp.einsum("bgspkr,bgpkh->bgskrh", weights, v_BGPKH, preferred_element_type=jnp.float32)
    out = out / total[:, :, :, 0, ..., None]
    return out.astype(v_BGPKH.dtype).reshape(B, G, S, N, H), lse.reshape(B, G, S, N)


def merged(one: tuple[jax.Array, jax.Array], other: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Attention to the union of two sets of keys, from (out, log-sum-exp) of each."""
    (out, lse), (out_, lse_) = one, other
    share = jax.nn.sigmoid(lse - lse_)[..., None]
    return (share * out + (1.0 - share) * out_).astype(out.dtype)


def _attend(q_BKMH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(out [B, K, M, H], log-sum-exp [B, K, M]); every query sees at least one key.

    Normalised behind the values' product: that is fewer passes over [M, T], in the gradient too.
    """
    logits = jnp.einsum("bkmh,bkth->bkmt", _scaled(q_BKMH), k_BKTH, preferred_element_type=jnp.float32)
    weights, total, lse = _softmax_parts(jnp.where(mask, logits, -jnp.inf), axis=-1)
    out = jnp.einsum("bkmt,bkth->bkmh", weights.astype(v_BKTH.dtype), v_BKTH, preferred_element_type=jnp.float32)
    return (out / total).astype(v_BKTH.dtype), lse


def _softmax_parts(logits: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights up to their sum, that sum (its axis kept), and the log-sum-exp (its axis gone)."""
    peak = jax.lax.stop_gradient(logits.max(axis=axis, keepdims=True))
    weights = jnp.exp(logits - peak)
    total = weights.sum(axis=axis, keepdims=True)
    return weights, total, (jnp.log(total) + peak).squeeze(axis)


def _scaled(q: jax.Array) -> jax.Array:
    return q * q.shape[-1] ** -0.5


def _by_key_head(q_BTNH: jax.Array, K: int) -> jax.Array:
    """[B, K, T * R, H]: the queries that share a key head, R heads to it, as the rows of one matrix."""
    B, T, N, H = q_BTNH.shape
    return q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 1, 3, 4).reshape(B, K, T * (N // K), H)
