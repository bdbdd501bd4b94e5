"""Causal attention by a vendor's kernel: cuDNN on NVIDIA GPUs, Splash (a Pallas kernel) on TPUs.

`model.attention` chooses one of them for the prompt, in place of `attention.causal_attention`. The attention of a group
is two matrix products and a merge in any case: see `wpauc_jax.models.attention`.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    CausalMask,
    MultiHeadMask,
    SegmentIds,
    make_splash_mqa_single_device,
)

_LANES = 128  # Splash wants whole tiles of tokens and of a head


def cudnn_attention(
    q_BTNH: jax.Array, k_BKTH: jax.Array, v_BKTH: jax.Array, segments_BT: jax.Array | None = None
) -> jax.Array:
    """[B, T, N, H]; needs an NVIDIA GPU and a computation in bfloat16."""
    k, v = k_BKTH.swapaxes(1, 2), v_BKTH.swapaxes(1, 2)
    mask = None if segments_BT is None else (segments_BT[:, :, None] == segments_BT[:, None])[:, None]
    return jax.nn.dot_product_attention(q_BTNH, k, v, mask=mask, is_causal=True, implementation="cudnn")


def splash_attention(
    q_BTNH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """[B, T, N, H]; needs a TPU, or `interpret` to run slowly anywhere. Tokens and heads are padded to tiles."""
    B, T, N, H = q_BTNH.shape
    K = k_BKTH.shape[1]
    q = (q_BTNH * H**-0.5).reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    q, k, v = _padded(q), _padded(k_BKTH), _padded(v_BKTH)
    kernel = _splash_kernel(k.shape[2], N // K, interpret)
    segments = None
    if segments_BT is not None:
        padded = jnp.pad(segments_BT, [(0, 0), (0, k.shape[2] - T)])
        segments = SegmentIds(padded, padded)
    of_user = jax.vmap(kernel, in_axes=(0, 0, 0, None))  # over key heads
    out = jax.vmap(of_user)(q, k, v, segments)[..., :T, :H]
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _splash_kernel(tokens: int, heads: int, interpret: bool):
    """Attention of `heads` query heads [R, T, H] to one key head [T, H]."""
    mask = MultiHeadMask([CausalMask((tokens, tokens))] * heads)
    return make_splash_mqa_single_device(mask, interpret=interpret)


def _padded(x: jax.Array) -> jax.Array:
    """Zeros behind the last tokens, which no earlier one sees, and behind a head's dimensions, where they add 0."""
    missing = [(0, 0)] * (x.ndim - 2) + [(0, -size % _LANES) for size in x.shape[-2:]]
    return jnp.pad(x, missing)
