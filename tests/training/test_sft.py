"""The SFT step: what it computes, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import score_items, tiny_policy, trie_for, variable_length_items
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import OptimConfig
from wpauc_jax.models import Prompts
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step, sft_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)


def test_sft_in_one_pass_equals_sliding_windows():
    """One causal pass over (a, b, c, d) and (e, f), packed into a row, predicts b, c, d and f from their histories."""
    policy, params = tiny_policy()
    trie = trie_for(ITEMS, "constrained")
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
    batch = {
        "tokens": jnp.asarray([[*tokens, 0, 0]], jnp.int32),
        "segments": jnp.asarray([[*segments, 0, 0]], jnp.int32),
        "items": jnp.asarray([[*targets, -1]], jnp.int32),
        "starts": jnp.asarray([[*starts, 0]], jnp.int32),
    }
    total, count = jax.jit(sft_loss, static_argnums=0, static_argnames="loss")(
        policy, params, trie, batch, loss="catalogue"
    )
    windows = 0.0
    for history, item in zip(histories, targets, strict=True):
        prompts = Prompts(jnp.asarray([history], jnp.int32), jnp.asarray([len(history)], jnp.int32))
        windows -= score_items(policy, params, prompts, trie, jnp.asarray([[item]])).sum()
    assert count == 4
    np.testing.assert_allclose(total, windows, rtol=1e-5)


@pytest.mark.parametrize("loss", ["catalogue", "lm"])
def test_sft_learns_one_batch(loss):
    """Semantic ids need no end token: under `lm` the token behind an item is the next item's first."""
    policy, params = tiny_policy()
    items = [(4, 10), (3, 12), (5, 11), (3, 11)]
    trie = build_trie(items, trim=loss == "catalogue")
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0), 60)
    step = make_sft_step(policy, trie, optimizer, loss=loss)
    batch = {
        "tokens": jnp.asarray([[1, *items[0], *items[1], *items[2]]], jnp.int32),
        "segments": jnp.ones((1, 7), jnp.int32),
        "items": jnp.asarray([[-1, 1, 2]], jnp.int32),
        "starts": jnp.asarray([[0, 2, 4]], jnp.int32),
    }
    state = init_state(params, optimizer)
    losses = []
    for _ in range(60):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.05 * losses[0]
