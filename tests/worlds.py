"""Small models, catalogues and brute-force answers that several tests share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from wpauc_jax import decode
from wpauc_jax.batches.types import PromptBatch, RlBatch
from wpauc_jax.catalog.trie import Trie
from wpauc_jax.config import ModelConfig
from wpauc_jax.decode import Ranker, scoring
from wpauc_jax.models import Params, Policy, Prompts, init

# Compiled once for a shape; called eagerly, each operation would be compiled on its own.
beam_search = jax.jit(decode.constrained_beam_search, static_argnums=0, static_argnames=("num_beams", "scoring"))
score_items = jax.jit(decode.score_items, static_argnums=0, static_argnames="scoring")
forward = jax.jit(Policy.forward, static_argnums=0)

EOS = 2
TINY = ModelConfig(
    vocab_size=24, num_layers=2, width=32, num_heads=4, num_kv_heads=2, head_dim=8, ffn_width=48, init_std=0.2
)


@functools.cache
def tiny_policy(config: ModelConfig = TINY, seed: int = 0) -> tuple[Policy, Params]:
    with jax.ensure_compile_time_eval():  # values also where the first caller is being traced
        return init(config, seed)


def variable_length_items(count: int = 40, longest: int = 3, seed: int = 0) -> list[tuple[int, ...]]:
    """Distinct sequences of up to `longest` tokens, some a prefix of others, in no order."""
    rng = np.random.default_rng(seed)
    items: dict[tuple[int, ...], None] = {}
    while len(items) < count:
        items[tuple(int(x) for x in rng.integers(3, 9, rng.integers(1, longest + 1)))] = None
    return list(items)


def trie_for(items: list[tuple[int, ...]], rule: str) -> Trie:
    return scoring.trie_for(items, rule, eos=EOS)


def tiny_ranker(items: list[tuple[int, ...]], rule: str = "constrained", config: ModelConfig = TINY) -> Ranker:
    """The tiny policy over some items."""
    return Ranker(tiny_policy(config)[0], trie_for(items, rule), rule)


def some_prompts(batch: int = 3, width: int = 9, seed: int = 1) -> Prompts:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, width + 1, batch)
    lengths[0] = width
    tokens = rng.integers(0, TINY.vocab_size, (batch, width))
    tokens[np.arange(width) >= lengths[:, None]] = 0
    return Prompts(jnp.asarray(tokens, jnp.int32), jnp.asarray(lengths, jnp.int32))


def some_rl_batch(target=(4, 9, 30)) -> RlBatch:
    """`some_prompts`, and what they ask for."""
    prompts = some_prompts()
    return RlBatch(PromptBatch(prompts.tokens, prompts.lengths), jnp.asarray(target, jnp.int32))


def brute_force_logps(policy: Policy, params: Params, prompts: Prompts, items, scoring: str) -> np.ndarray:
    """Log-probability float64[B, I] of every item, by one plain forward pass an item and user, without a trie."""
    sequences = [(*item, EOS) for item in items]
    longest = max(map(len, sequences))
    lengths = np.asarray(prompts.lengths)
    out = np.zeros((len(lengths), len(items)))
    for b, length in enumerate(lengths):
        rows = np.zeros((len(items), prompts.tokens.shape[1] + longest), np.int32)
        rows[:, :length] = np.asarray(prompts.tokens)[b, :length]
        for i, sequence in enumerate(sequences):
            rows[i, length : length + len(sequence)] = sequence
        logits = np.asarray(forward(policy, params, jnp.asarray(rows)), np.float64)
        for i, sequence in enumerate(sequences):
            for j, token in enumerate(sequence):
                step = logits[i, length - 1 + j]
                if scoring == "constrained":
                    legal = {other[j] for other in sequences if other[:j] == sequence[:j]}
                    allowed = step[sorted(legal)]
                else:
                    allowed = step
                out[b, i] += step[token] - np.logaddexp.reduce(allowed)
    return out
