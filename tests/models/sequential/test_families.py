"""The sequential families against plain NumPy, packed and alone, on a mesh, and in training."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.sequential import plain
from wpauc_jax.batches.types import SftBatch
from wpauc_jax.config import CatalogConfig, Config, ConfigError, MeshConfig, ModelConfig, OptimConfig
from wpauc_jax.config.model import ONE_TOKEN_FAMILIES
from wpauc_jax.decode import Ranker, scoring
from wpauc_jax.models import FAMILIES, Prompts, init
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

SIZES = {
    "sasrec": {"num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4, "ffn_width": 12, "num_positions": 9},
    "hstu": {"num_layers": 2, "num_heads": 2, "num_kv_heads": 2, "head_dim": 4, "num_positions": 9},
    "gru4rec": {"num_layers": 2, "ffn_width": 8},
    "caser": {"window": 3, "filters": 4, "vertical_filters": 2},
}
FAMILY = pytest.mark.parametrize("family", ONE_TOKEN_FAMILIES)


def settings(family, **changes):
    return ModelConfig(**{"family": family, "vocab_size": 40, "width": 8, "init_std": 0.4, **SIZES[family], **changes})


def model(family, config=None):
    """A model whose biases and scales are not what they begin with."""
    policy, params = init(config or settings(family), 0)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    return policy, jax.tree.unflatten(tree, [leaf + 0.3 * rng.normal(size=leaf.shape) for leaf in leaves])


def some_tokens(rows=3, length=7):
    return jnp.asarray(np.random.default_rng(1).integers(1, 40, (rows, length)), jnp.int32)


def test_every_family_of_single_tokens_says_so():
    assert {name for name, family in FAMILIES.items() if family.one_token} == set(ONE_TOKEN_FAMILIES) == set(SIZES)


@FAMILY
def test_the_states_are_those_of_a_plain_loop(family):
    policy, params = model(family)
    tokens = some_tokens()
    states = jax.jit(type(policy).hidden, static_argnums=0)(policy, params, tokens)
    numbers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(params))
    for row in range(3):
        expected = plain.STATES[family](numbers, np.asarray(tokens[row]), policy.config)
        np.testing.assert_allclose(states[row], expected, atol=2e-5)


@FAMILY
def test_packed_pieces_do_not_see_each_other(family):
    policy, params = model(family)
    hidden = jax.jit(type(policy).hidden, static_argnums=0)
    tokens = some_tokens(1)
    packed = hidden(policy, params, tokens, jnp.asarray([[1, 1, 1, 2, 2, 2, 0]]))
    np.testing.assert_allclose(packed[:, :3], hidden(policy, params, tokens)[:, :3], atol=1e-5)
    np.testing.assert_allclose(packed[:, 3:6], hidden(policy, params, tokens[:, 3:])[:, :3], atol=1e-5)


TIMED = settings("hstu", time_buckets=20)
TIMES = jnp.asarray(np.cumsum(np.random.default_rng(4).integers(0, [[3, 3, 40, 40, 900, 900, 10**6]] * 3), axis=1))


def test_hstu_with_times_is_its_plain_loop_and_without_them_has_no_bias_by_time():
    policy, params = model("hstu", TIMED)
    tokens, hidden = some_tokens(), jax.jit(type(policy).hidden, static_argnums=0)
    states = hidden(policy, params, tokens, None, None, TIMES)
    numbers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), dict(params))
    for row in range(3):
        expected = plain.hstu(numbers, np.asarray(tokens[row]), policy.config, np.asarray(TIMES[row]))
        np.testing.assert_allclose(states[row], expected, atol=2e-5)
        expected = plain.hstu(numbers, np.asarray(tokens[row]), policy.config)
        np.testing.assert_allclose(hidden(policy, params, tokens)[row], expected, atol=2e-5)
    cache = policy.prefill(params, Prompts(tokens, jnp.asarray([7, 4, 1]), TIMES))
    np.testing.assert_allclose(cache.hidden, states[np.arange(3), [6, 3, 0]], atol=1e-6)


def test_packed_pieces_have_times_of_their_own():
    policy, params = model("hstu", TIMED)
    tokens = some_tokens(1)
    states = functools.partial(policy.answer_states, params, count=1, segments=None)
    segments, starts = jnp.asarray([[1, 1, 1, 2, 2, 2, 0]]), jnp.asarray([[2, 5]])
    packed = states(tokens, segments=segments, starts=starts, times=TIMES[:1])
    alone = [
        states(tokens[:, part], starts=jnp.asarray([[2]]), times=TIMES[:1, part] - shift)
        for part, shift in ((slice(0, 3), 0), (slice(3, 6), TIMES[0, 3]))
    ]
    np.testing.assert_allclose(packed, jnp.concatenate(alone, axis=1), atol=1e-5)


@FAMILY
def test_padding_behind_a_prompt_is_not_seen(family):
    policy, params = model(family)
    tokens, lengths = some_tokens(), np.array([7, 4, 1])
    cache = policy.prefill(params, Prompts(tokens, jnp.asarray(lengths)))
    states = policy.hidden(params, tokens)
    np.testing.assert_allclose(cache.hidden, states[np.arange(3), lengths - 1], atol=1e-6)
    np.testing.assert_allclose(
        policy.log_partition(params, states), jax.nn.logsumexp(policy.logits(params, states), axis=-1), atol=1e-5
    )
    with pytest.raises(ConfigError, match="scores items of one token"):
        policy.extend(params, cache, tokens[:, None])


@FAMILY
def test_it_learns_fifty_users(family):
    """Each user's item is told by the two before it, in either order of which it is another one."""
    policy, params = init(settings(family, width=32, init_std=0.1, vocab_size=73), 0)
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(a, b) for a in range(3, 13) for b in range(3, 13) if a != b])[:50]
    tokens = jnp.asarray(np.concatenate([np.ones((50, 1)), pairs], axis=1), jnp.int32)
    ranker = Ranker(policy, scoring.trie_for([(token,) for token in range(3, 73)], "constrained"))
    targets = jnp.asarray(rng.permutation(70)[:50, None], jnp.int32)
    batch = SftBatch(tokens, jnp.ones_like(tokens), targets, jnp.full((50, 1), 2, jnp.int32))
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-2, schedule="constant", warmup=0, weight_decay=0.0), 200)
    step = make_sft_step(ranker, optimizer)
    state = init_state(params, optimizer)
    for _ in range(200):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.05


@FAMILY
def test_a_mesh_changes_nothing(family):
    config = settings(family, vocab_size=48)
    tokens = some_tokens(8)
    policy, params = init(config, 0)
    alone = policy.logits(params, policy.hidden(params, tokens))
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        policy, params = init(config, 0)
        assert tuple(params["embed"].sharding.spec) == ("tensor", "fsdp")
        cut = jax.jit(lambda params: policy.logits(params, policy.hidden(params, tokens)))(params)
    np.testing.assert_allclose(cut, alone, atol=1e-5)


def test_settings_that_a_family_does_not_use_are_refused():
    for config, message in [
        (settings("gru4rec", rope_theta=5e5), "model.rope_theta=500000.0 has no effect with model.family='gru4rec'"),
        (settings("caser", num_layers=1), "model.num_layers=1 has no effect with model.family='caser'"),
        (settings("sasrec", num_kv_heads=1), "model.num_kv_heads=1 must be model.num_heads=2"),
        (ModelConfig(vocab_size=40, window=3), "model.window=3 has no effect with model.family='decoder'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            init(config, 0)


def test_it_needs_items_of_one_token():
    atomic = Config(catalog=CatalogConfig(ids="atomic"), model=settings("gru4rec"))
    with pytest.raises(ConfigError, match=r"set catalog\.ids='atomic'"):
        dataclasses.replace(atomic, catalog=CatalogConfig())
