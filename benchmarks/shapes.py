"""The named shapes that benchmarks run at, and synthetic catalogs and prompts for them. Needs NumPy alone."""

import dataclasses

import numpy as np

EOS = 1
FIRST_CODE = 16  # ids below are special
LEARNING_RATE, MAX_GRAD_NORM, KL_COEF = 1e-5, 0.3, 1e-3


@dataclasses.dataclass(frozen=True)
class Shape:
    """A model of the Qwen2 family and the batch of one RL step."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    users: int  # B
    group: int = 16  # G
    prompt: int = 192  # T, tokens; no padding
    items: int = 3686  # I
    levels: int = 3  # codes in an item; the end token comes on top
    codes: int = 256  # in a level
    excluded: int = 0  # items that may not answer a prompt; 0: every item may


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("mini", layers=4, width=256, heads=4, kv_heads=2, head_dim=64, ffn=704, vocab=8192, users=8),
        Shape("qwen05", layers=24, width=896, heads=14, kv_heads=2, head_dim=64, ffn=4864, vocab=151_936, users=2),
    )
}


def make_catalog(shape: Shape, seed: int = 0) -> np.ndarray:
    """Distinct items int64[I, levels] as token ids, without the end token; the first code is skewed as in real data."""
    if shape.items > shape.codes**shape.levels:
        raise ValueError(f"{shape.levels} levels of {shape.codes} codes hold fewer than {shape.items} items")
    last = FIRST_CODE + shape.levels * shape.codes
    if last > shape.vocab:
        raise ValueError(f"{shape.levels} levels of {shape.codes} codes need a vocabulary of {last} ids")
    rng = np.random.default_rng(seed)
    found = np.zeros((0, shape.levels), np.int64)
    while len(found) < shape.items:
        draw = rng.integers(0, shape.codes, (2 * shape.items, shape.levels))
        draw[:, 0] = rng.zipf(1.3, len(draw)) % shape.codes
        found = np.unique(np.concatenate([found, draw]), axis=0)
    found = rng.permutation(found)[: shape.items]
    return found + FIRST_CODE + shape.codes * np.arange(shape.levels)


def prompts(shape: Shape, seed: int) -> np.ndarray:
    """int32[B, T] of item codes."""
    rng = np.random.default_rng(seed)
    high = FIRST_CODE + shape.levels * shape.codes
    return rng.integers(FIRST_CODE, high, (shape.users, shape.prompt)).astype(np.int32)
