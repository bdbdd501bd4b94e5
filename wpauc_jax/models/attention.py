"""Attention in two shapes: a causal prompt, and a group of candidates that share one prompt.

Letters as in docs/method: B users, G candidates, S new tokens of a candidate, T prompt tokens, N query heads,
K key/value heads, H head size. Softmax runs in float32.
"""

import jax
import jax.numpy as jnp


def causal_attention(q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array) -> jax.Array:
    """Each token attends to itself and what stands before it -> [B, T, N, H].

    Prompts are padded on the right, so that a real token never sees padding.
    """
    return jax.nn.dot_product_attention(q_BTNH, k_BTKH, v_BTKH, is_causal=True)


def group_attention(
    q_BGSNH: jax.Array,
    prompt_k_BTKH: jax.Array,
    prompt_v_BTKH: jax.Array,
    prompt_lengths_B: jax.Array,
    suffix_k_BGPKH: jax.Array,
    suffix_v_BGPKH: jax.Array,
) -> jax.Array:
    """Candidates attend to their user's prompt and to their own tokens so far -> [B, G, S, N, H].

    The suffix holds P >= S tokens a candidate, the last S being the queries' own; within it attention is causal. The
    prompt's keys are not repeated over G: for each user and key head all G * S queries are one matrix product, and the
    two parts share one softmax.
    """
    B, G, S, N, H = q_BGSNH.shape
    T, K, P = prompt_k_BTKH.shape[1], prompt_k_BTKH.shape[2], suffix_k_BGPKH.shape[2]
    q = (q_BGSNH * H**-0.5).reshape(B, G, S, K, N // K, H)
    to_prompt = jnp.einsum("bgskrh,btkh->bkgsrt", q, prompt_k_BTKH, preferred_element_type=jnp.float32)
    to_suffix = jnp.einsum("bgskrh,bgpkh->bkgsrp", q, suffix_k_BGPKH, preferred_element_type=jnp.float32)
    in_prompt = (jnp.arange(T)[None, :] < prompt_lengths_B[:, None]).reshape(B, 1, 1, 1, 1, T)
    earlier = (jnp.arange(P)[None, :] <= (P - S) + jnp.arange(S)[:, None]).reshape(1, 1, 1, S, 1, P)
    to_prompt = jnp.where(in_prompt, to_prompt, -jnp.inf)
    to_suffix = jnp.where(earlier, to_suffix, -jnp.inf)

    # A query always sees itself, so the maximum is finite.
    peak = jnp.maximum(to_prompt.max(-1, keepdims=True), to_suffix.max(-1, keepdims=True))
    peak = jax.lax.stop_gradient(peak)
    e_prompt, e_suffix = jnp.exp(to_prompt - peak), jnp.exp(to_suffix - peak)
    total = e_prompt.sum(-1, keepdims=True) + e_suffix.sum(-1, keepdims=True)
    e_prompt, e_suffix = (e_prompt / total).astype(q.dtype), (e_suffix / total).astype(q.dtype)
    out = jnp.einsum("bkgsrt,btkh->bgskrh", e_prompt, prompt_v_BTKH)
    out += jnp.einsum("bkgsrp,bgpkh->bgskrh", e_suffix, suffix_v_BGPKH)
    return out.reshape(B, G, S, N, H)
