"""Rotary position embeddings (Su et al., arXiv 2104.09864), with Llama 3's stretched frequencies."""

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax.config import ModelConfig, RopeScalingConfig


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians a position float32[H / 2], one frequency for each pair of a head's dimensions."""
    half = config.head_dim // 2
    frequencies = config.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
    return SCALING[config.rope_scaling.kind](frequencies, config.rope_scaling).astype(np.float32)


def _unscaled(frequencies: np.ndarray, scaling: RopeScalingConfig) -> np.ndarray:
    return frequencies


def _llama3(frequencies: np.ndarray, scaling: RopeScalingConfig) -> np.ndarray:
    """Long waves divided by `factor`, short ones kept, those in between by linear interpolation in 1 / wavelength.

    As Llama 3.1 defines it and `transformers` computes it (`rope_type: llama3`).
    """
    turns = scaling.original_length * frequencies / (2 * np.pi)  # of a pair over the original context
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = np.clip((turns - scaling.low_freq_factor) / span, 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)


# By `model.rope_scaling.kind`: (frequencies, settings) -> frequencies.
SCALING = {"none": _unscaled, "llama3": _llama3}


def rope_table(config: ModelConfig, length: int) -> np.ndarray:
    """Cosines and sines float32[length, 2, H / 2] at positions 0 .. length - 1.

    A constant: computed in the program, XLA would repeat them for every head and layer, and again in the gradient.
    """
    angle = np.arange(length, dtype=np.float32)[:, None] * rope_frequencies(config)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def rope(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Turns pairs of dimensions, halves paired as in Hugging Face's models.

    x[..., S, heads, H], turns[..., S, 2, H / 2] (rows of `rope_table`) -> like x.
    """
    turns = turns.reshape((1,) * (x.ndim - turns.ndim) + turns.shape)
    cos, sin = turns[..., :1, :], turns[..., 1:, :]
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1).astype(x.dtype)
