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
        Shape("qwen15", layers=28, width=1536, heads=12, kv_heads=2, head_dim=128, ffn=8960, vocab=151_936, users=2),
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


def sequence_lengths(users: int, seed: int = 0) -> np.ndarray:
    """Interactions int64[users] of each user: 5 and more, geometric, 15 in the mean."""
    return 4 + np.random.default_rng(seed).geometric(1 / 11, users)


def target_rows(shape: Shape, rows: int, *, max_history: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """SFT with a row a target: tokens int64[rows, T] of up to `max_history` items and the target, and their lengths.

    Targets are drawn from all places but the first of users by `sequence_lengths`. What is behind a row is 0.
    """
    rng = np.random.default_rng(seed)
    before = np.concatenate([np.arange(1, count) for count in sequence_lengths(1000)])
    items = np.minimum(rng.choice(before, rows), max_history) + 1
    size = shape.levels + 1
    sequences = np.concatenate([make_catalog(shape), np.full((shape.items, 1), EOS)], axis=1)
    tokens = sequences[rng.integers(0, shape.items, (rows, items.max()))].reshape(rows, -1)
    lengths = items * size
    tokens[np.arange(tokens.shape[1]) >= lengths[:, None]] = 0
    return tokens, lengths
