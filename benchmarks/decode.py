"""Constrained beam search alone, against what else one could do, at catalogs of 1e3 to 1e6 items of 4 codes.

    python -m benchmarks.decode [--items 1000 10000 100000 1000000]

Three ways to search from a prompt that has been run, on the mini model of `benchmarks.shapes`:
  trie    this project's: the live rows of the output head at each depth, a node's children, one program.
  mask    all logits of the vocabulary each step, and a mask from a Python dictionary of prefixes, per beam, as the
          trainers on Hugging Face do.
  dense   the trie, with each depth's children of a code from a table [V, V] of pairs, and all logits: it fits only
          while V is small, and knows pairs of codes, not paths, so that it can leave the catalog.
Prints a table and, last, one JSON object: milliseconds a batch, and the largest catalog's time over the smallest's.
"""

import argparse
import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import median, seconds
from benchmarks.setup import Bench, model_config, rl_config
from benchmarks.shapes import SHAPES, Shape, make_catalog
from wpauc_jax.decode import Prefilled, Ranker
from wpauc_jax.models import Params, PromptCache, Prompts, SuffixCache

Row = dict[str, float]


def trie_seconds(bench: Bench, cache: PromptCache, params: Params, repeats: int) -> float:
    """Median seconds of `wpauc_jax.decode.Ranker.search`."""

    @jax.jit
    def run(ranker: Ranker, params: Params, cache: PromptCache) -> jax.Array:
        return ranker.search(params, Prefilled(cache, None), num_beams=bench.shape.group).items

    jax.block_until_ready(run(bench.ranker, params, cache))
    return median(seconds(lambda: run(bench.ranker, params, cache), repeats))


class MaskedSearch:
    """Beam search over the whole vocabulary; `legal` says which tokens may follow, for the tokens so far."""

    def __init__(self, bench: Bench, levels: int):
        self.bench, self.levels = bench, levels

        @functools.partial(jax.jit, static_argnames="width")
        def best(params: Params, hidden: jax.Array, score: jax.Array, mask: jax.Array, width: int):
            logps = jax.nn.log_softmax(bench.policy.logits(params, hidden))
            totals = (score[..., None] + jnp.where(mask, logps, -jnp.inf)).reshape(score.shape[0], -1)
            score, index = jax.lax.top_k(totals, width)
            return score, index // logps.shape[-1], index % logps.shape[-1]

        @jax.jit
        def extend(params: Params, cache: PromptCache, token: jax.Array, past: SuffixCache | None, parent: jax.Array):
            if past is not None:
                rows = jnp.arange(token.shape[0])[:, None]
                past = SuffixCache(*(side[:, rows, parent] for side in past))
            states, past = bench.policy.extend(params, cache, token[..., None], past)
            return states[:, :, 0], past

        self._best, self._extend = best, extend

    def run(self, params: Params, cache: PromptCache, legal: Any) -> np.ndarray:
        """Token sequences [B, G, levels]."""
        B, G = cache.lengths.shape[0], self.bench.shape.group
        hidden, past, score = cache.hidden[:, None], None, jnp.zeros((B, 1))
        tokens = np.zeros((B, 1, 0), np.int64)
        for t in range(self.levels):
            score, parent, token = self._best(params, hidden, score, legal(tokens), width=G)
            parents = np.asarray(parent)
            tokens = np.concatenate([tokens[np.arange(B)[:, None], parents], np.asarray(token)[..., None]], axis=-1)
            if t + 1 < self.levels:
                hidden, past = self._extend(params, cache, token, past, parent)
        return tokens


def python_masks(items: np.ndarray, vocab: int) -> Any:
    """tokens [B, W, t] -> mask bool[B, W, V] from a dictionary of prefixes."""
    after: dict[tuple[int, ...], list[int]] = {}
    for t in range(items.shape[1]):
        for prefix in np.unique(items[:, : t + 1], axis=0).tolist():
            after.setdefault(tuple(prefix[:-1]), []).append(prefix[-1])

    def legal(tokens: np.ndarray) -> jax.Array:
        mask = np.zeros((*tokens.shape[:2], vocab), bool)
        for b, beams in enumerate(tokens.tolist()):
            for w, prefix in enumerate(beams):
                mask[b, w, after[tuple(prefix)]] = True
        return jnp.asarray(mask)

    return legal


def pair_masks(items: np.ndarray, vocab: int) -> Any:
    """tokens [B, W, t] -> mask bool[B, W, V] from the pairs of codes that stand next to each other in some item."""
    first, pairs = np.zeros(vocab, bool), np.zeros((vocab, vocab), bool)
    first[items[:, 0]] = True
    for t in range(1, items.shape[1]):
        pairs[items[:, t - 1], items[:, t]] = True
    table = jnp.asarray(pairs)

    def legal(tokens: np.ndarray) -> jax.Array:
        if not tokens.shape[2]:
            return jnp.broadcast_to(jnp.asarray(first), (*tokens.shape[:2], vocab))
        return table[tokens[..., -1]]

    return legal


def measure(shape: Shape, repeats: int) -> Row:
    bench = Bench(shape, model_config(shape), rl_config(shape))
    params = bench.new_state().params
    batch = bench.batch(0)
    cache = jax.jit(bench.policy.prefill)(params, Prompts(batch.prompts.tokens, batch.prompts.lengths))
    items, masked = make_catalog(shape), MaskedSearch(bench, shape.levels)
    row = {"items": float(shape.items), "trie_ms": 1e3 * trie_seconds(bench, cache, params, repeats)}
    for name, masks in (("mask_ms", python_masks), ("dense_ms", pair_masks)):
        legal = masks(items, shape.vocab)
        masked.run(params, cache, legal)
        row[name] = 1e3 * median(seconds(functools.partial(masked.run, params, cache, legal), max(3, repeats // 4)))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    print(f"{'items':>10}{'trie ms':>10}{'mask ms':>10}{'dense ms':>10}")
    rows = []
    for items in options.items:
        row = measure(dataclasses.replace(SHAPES["mini"], items=items, levels=4), options.repeats)
        rows.append(row)
        print(f"{items:>10}{row['trie_ms']:>10.2f}{row['mask_ms']:>10.2f}{row['dense_ms']:>10.2f}", flush=True)
    print(json.dumps({"rows": rows, "trie_growth": rows[-1]["trie_ms"] / rows[0]["trie_ms"]}))


if __name__ == "__main__":
    main()
