"""Dropout: what it drops, by which key, and where in the decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import TINY, tiny_policy
from wpauc_jax.config import ConfigError, RlConfig, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.models import Dropout, Prompts, init, policy
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import make_sft_step

TOKENS = jnp.asarray([[1, 5, 7, 3, 9, 4], [1, 8, 8, 2, 6, 3]], jnp.int32)
KEY = jax.random.key(3)


def hidden(config, rate, key=KEY):
    model, params = tiny_policy(config)
    dropout = Dropout(key, rate) if rate else None
    return np.asarray(model.hidden(params, TOKENS, None, dropout))


def test_a_share_is_dropped_and_the_mean_is_kept():
    x = jnp.full((400, 500), 2.0)
    found = np.asarray(Dropout(KEY, 0.3)(x))
    kept = found != 0
    np.testing.assert_allclose(found[kept], 2.0 / 0.7, rtol=1e-6)
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    assert Dropout(KEY, 0.3)(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_key_alone_decides_and_parts_draw_apart():
    x, dropout = jnp.ones((8, 64)), Dropout(KEY, 0.5)
    first, second = dropout.within(0)(x), dropout.within(1)(x)
    np.testing.assert_array_equal(first, Dropout(KEY, 0.5).within(0)(x))
    assert 0.3 < np.mean(np.asarray(first) != np.asarray(second)) < 0.7


def test_a_rate_near_0_changes_next_to_nothing():
    np.testing.assert_allclose(hidden(TINY, 1e-7), hidden(TINY, 0.0), atol=1e-4)
    assert np.abs(hidden(TINY, 0.5) - hidden(TINY, 0.0)).max() > 0.1
    assert np.abs(hidden(TINY, 0.5) - hidden(TINY, 0.5, jax.random.key(4))).max() > 0.1


def test_each_part_of_the_decoder_is_dropped(monkeypatch):
    """The embedding, and in both layers what attention and the MLP add; no two by one key."""
    drawn = []
    draw = jax.random.bernoulli

    def watched(key, p, shape):
        drawn.append((key, p, shape))
        return draw(key, p, shape)

    monkeypatch.setattr(jax.random, "bernoulli", watched)
    model, params = tiny_policy()
    model.hidden(params, TOKENS, None, Dropout(KEY, 0.25))
    keys = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key, _, _ in drawn}
    assert len(drawn) == len(keys) == 1 + 2 * TINY.num_layers
    assert {(p, shape) for _, p, shape in drawn} == {(0.75, (*TOKENS.shape, TINY.width))}


def test_a_prompt_is_dropped_by_layer_and_the_last_layer_runs_its_last_token_alone(monkeypatch):
    drawn = []
    draw = jax.random.bernoulli

    def watched(key, p, shape):
        drawn.append((tuple(np.asarray(jax.random.key_data(key)).tolist()), shape))
        return draw(key, p, shape)

    monkeypatch.setattr(jax.random, "bernoulli", watched)
    model, params = tiny_policy(dataclasses.replace(TINY, layers="unrolled"))
    prompts = Prompts(TOKENS, jnp.asarray([6, 4]))
    dropped = model.prefill(params, prompts, Dropout(KEY, 0.25))
    whole, last = (*TOKENS.shape, TINY.width), (len(TOKENS), 1, TINY.width)
    assert sorted(shape for _, shape in drawn) == sorted([last] * 2 + [whole] * (1 + 2 * (TINY.num_layers - 1)))
    assert len({key for key, _ in drawn}) == len(drawn)
    count = len(drawn)
    plain = model.prefill(params, prompts)
    assert len(drawn) == count  # without dropout nothing is drawn
    assert np.abs(np.asarray(dropped.hidden) - np.asarray(plain.hidden)).max() > 0.05
    assert np.abs(np.asarray(dropped.keys[-1]) - np.asarray(plain.keys[-1])).max() > 0.05


@pytest.mark.parametrize("changes", [{"layers": "scanned", "remat": "layer"}])
def test_how_layers_run_changes_no_draw(changes):
    config = dataclasses.replace(TINY, **changes)
    np.testing.assert_allclose(hidden(config, 0.3), hidden(TINY, 0.3), atol=2e-5)
    model, params = tiny_policy(config)

    def loss(params):
        return jnp.square(model.hidden(params, TOKENS, None, Dropout(KEY, 0.3))).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_family_without_dropout_refuses_it(monkeypatch):
    monkeypatch.setattr(policy.FAMILIES["decoder"], "takes_dropout", False)
    model, _ = init(TINY, 0)
    with pytest.raises(ConfigError, match=r"sft\.dropout=0\.1: model\.family='decoder' takes no dropout"):
        make_sft_step(Ranker(model, None), None, SftConfig(dropout=0.1))
    with pytest.raises(ConfigError, match=r"rl\.dropout=0\.1: model\.family='decoder' takes no dropout"):
        make_rl_step(Ranker(model, None), None, RlConfig(dropout=0.1), seed=0)
