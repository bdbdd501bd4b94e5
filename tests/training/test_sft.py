"""The SFT step: what it computes, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import score_items, tiny_policy, variable_length_items
from tests.worlds import trie_for as tiny_trie
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import OptimConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.models import Prompts
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import SFT_SCORING, make_sft_step, sft_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)


def test_sft_in_one_pass_equals_sliding_windows():
    """One causal pass over (a, b, c, d) and (e, f), packed into a row, predicts b, c, d and f from their histories."""
    policy, params = tiny_policy()
    trie = tiny_trie(ITEMS, "constrained")
    tokens, segments, targets, starts, histories = [], [], [], [], []
    for segment, sequence in enumerate(([3, 17, 8, 25], [5, 11]), start=1):
        row = [1]
        for item in sequence:
            if len(row) > 1:
                targets.append(item)
                starts.append(len(tokens) + len(row) - 1)
                histories.append(list(row))
            row += ITEMS[item]
        tokens += row
        segments += [segment] * len(row)
    batch = SftBatch(
        tokens=jnp.asarray([[*tokens, 0, 0]], jnp.int32),
        segments=jnp.asarray([[*segments, 0, 0]], jnp.int32),
        items=jnp.asarray([[*targets, -1]], jnp.int32),
        starts=jnp.asarray([[*starts, 0]], jnp.int32),
    )
    total, count = jax.jit(sft_loss)(Ranker(policy, trie), params, batch)
    windows = 0.0
    for history, item in zip(histories, targets, strict=True):
        prompts = Prompts(jnp.asarray([history], jnp.int32), jnp.asarray([len(history)], jnp.int32))
        windows -= score_items(policy, params, prompts, trie, jnp.asarray([[item]])).sum()
    assert count == 4
    np.testing.assert_allclose(total, windows, rtol=1e-5)


@pytest.mark.parametrize("loss", SFT_SCORING)
def test_sft_learns_one_batch(loss):
    """Semantic ids need no end token: under `lm` the token behind an item is the next item's first."""
    policy, params = tiny_policy()
    items = [(4, 10), (3, 12), (5, 11), (3, 11)]
    ranker = Ranker(policy, trie_for(items, SFT_SCORING[loss]), SFT_SCORING[loss])
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 60)
    step = make_sft_step(ranker, optimizer)
    batch = SftBatch(
        tokens=jnp.asarray([[1, *items[0], *items[1], *items[2]]], jnp.int32),
        segments=jnp.ones((1, 7), jnp.int32),
        items=jnp.asarray([[-1, 1, 2]], jnp.int32),
        starts=jnp.asarray([[0, 2, 4]], jnp.int32),
    )
    state = init_state(params, optimizer)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.05 * losses[0]
