"""Every fast path computes what the plain one does, and the step's program stays on the device."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.flops import step_flops
from benchmarks.shapes import Shape, make_catalog
from tests.worlds import (
    TINY,
    beam_search,
    some_prompts,
    some_rl_batch,
    tiny_policy,
    tiny_ranker,
    trie_for,
    variable_length_items,
)
from wpauc_jax.config import ConfigError, OptimConfig, RlConfig
from wpauc_jax.models import ALL_TRAINED, Policy
from wpauc_jax.models.attention import causal_attention, group_attention, merged, prompt_attention, suffix_attention
from wpauc_jax.models.kernels import splash_attention
from wpauc_jax.models.log_partition import VOCABULARY_BLOCK, log_partition
from wpauc_jax.training.compact import compact_gradient
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.rl import NOBODY, make_rl_step, rl_loss
from wpauc_jax.training.state import init_state

ITEMS = variable_length_items(count=36, longest=2)
CONFIG = RlConfig(group_size=6, target_k=3, kl_coef=0.0)


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def assert_trees_close(one, other, atol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=1e-4)


def plain_attention(q, k, v, mask):
    """q[N, H] queries of one head over k, v[M, H], in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    logits = np.where(mask, q @ k.T / np.sqrt(q.shape[-1]), -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("tokens", [5, 200])  # 200: more than one block of queries
def test_blocks_of_queries_equal_plain_causal_attention(tokens):
    q, k, v = normal(0, 2, tokens, 4, 8), normal(1, 2, 2, tokens, 8), normal(2, 2, 2, tokens, 8)
    out = causal_attention(q, k, v)
    causal = np.tril(np.ones((tokens, tokens), bool))
    for b, n in ((0, 0), (1, 3)):
        np.testing.assert_allclose(
            out[b, :, n], plain_attention(q[b, :, n], k[b, n // 2], v[b, n // 2], causal), atol=1e-5
        )


def test_prompt_and_suffix_merge_to_one_softmax():
    B, G, S, N, K, H, T, P = 2, 3, 2, 4, 2, 8, 7, 3
    q, k, v = normal(0, B, G, S, N, H), normal(1, B, K, T, H), normal(2, B, K, T, H)
    k_own, v_own, lengths = normal(3, B, G, P, K, H), normal(4, B, G, P, K, H), jnp.array([7, 4])
    out = group_attention(q, k, v, lengths, k_own, v_own)
    np.testing.assert_allclose(
        out, merged(suffix_attention(q, k_own, v_own), prompt_attention(q, k, v, lengths)), atol=1e-6
    )
    for b, g, s, n in ((0, 0, 0, 0), (1, 2, 1, 3), (1, 0, 0, 2)):
        keys = np.concatenate([k[b, n // 2], k_own[b, g, :, n // 2]])
        values = np.concatenate([v[b, n // 2], v_own[b, g, :, n // 2]])
        mask = np.concatenate([np.arange(T) < lengths[b], np.arange(P) <= P - S + s])
        np.testing.assert_allclose(
            out[b, g, s, n], plain_attention(q[b, g, s, n][None], keys, values, mask)[0], atol=1e-5
        )


def test_splash_kernel_equals_plain_attention_with_its_gradient():
    q, k, v = normal(0, 1, 20, 4, 8), normal(1, 1, 2, 20, 8), normal(2, 1, 2, 20, 8)

    def value_and_slopes(attend):
        return jax.value_and_grad(lambda *args: jnp.sin(attend(*args)).sum(), argnums=(0, 1, 2))(q, k, v)

    splash = functools.partial(splash_attention, interpret=True)
    assert_trees_close(value_and_slopes(splash), value_and_slopes(causal_attention))
    packed = {"segments_BT": jnp.asarray([[1] * 7 + [2] * 9 + [0] * 4], jnp.int32)}
    apart = value_and_slopes(functools.partial(causal_attention, **packed))
    assert_trees_close(value_and_slopes(functools.partial(splash, **packed)), apart)
    assert abs(apart[0] - value_and_slopes(causal_attention)[0]) > 1e-3


def test_splash_kernel_is_what_a_tpu_would_run():
    args = (normal(0, 1, 20, 4, 8), normal(1, 1, 2, 20, 8), normal(2, 1, 2, 20, 8))
    assert "tpu_custom_call" in jax.jit(splash_attention).trace(*args).lower(lowering_platforms=("tpu",)).as_text()


def test_kernels_that_cannot_run_are_named():
    with pytest.raises(ConfigError, match=r"model.attention='cudnn' needs model.dtype='bfloat16'"):
        dataclasses.replace(TINY, attention="cudnn")


@pytest.mark.parametrize("block_size", [5, 8, 64])  # 24 rows: a last block that overlaps, blocks that fit, one block
def test_blockwise_partition_sum(block_size):
    hidden, table = normal(0, 7, 16), 3 * normal(1, 24, 16)
    slope = normal(2, 7)

    def blockwise(hidden, table):
        return (slope * log_partition(hidden, table, block_size)).sum()

    def plain(hidden, table):
        return (slope * jax.nn.logsumexp(hidden @ table.T, axis=-1)).sum()

    assert_trees_close(*(jax.value_and_grad(f, argnums=(0, 1))(hidden, table) for f in (blockwise, plain)))


def test_vocab_scoring_holds_no_logits_of_the_vocabulary():
    """Neither forwards nor backwards: of V ids, a block is multiplied at a time, and only the table is as long as V."""
    config = dataclasses.replace(TINY, vocab_size=20_000)
    text = gradient_program(config, "vocab").as_text()
    assert beside(VOCABULARY_BLOCK, text)
    assert beside(config.vocab_size, text) == {config.width}

    prompts = some_prompts()  # so that logits would have been seen
    forward = jax.jit(Policy.forward, static_argnums=0).lower(*tiny_policy(config), prompts.tokens).compile()
    assert beside(config.vocab_size, forward.as_text()) >= {prompts.tokens.size}


def beside(size: int, program: str) -> set[int]:
    """What the other dimensions of a program's arrays multiply to where one dimension is `size`."""
    shapes = [[int(part) for part in dims.split(",")] for dims in set(re.findall(r"\w\d+\[([\d,]+)\]", program))]
    return {math.prod(shape) // size for shape in shapes if size in shape and len(shape) > 1}


def gradient(config, batch, *, rl=CONFIG, scoring="constrained"):
    _, params = tiny_policy(config)
    settings = {"ref_params": None, "batch": batch, "key": jax.random.key(0), "config": rl}
    loss = functools.partial(rl_loss, tiny_ranker(ITEMS, scoring, config), **settings)
    return jax.jit(jax.grad(lambda params: loss(params)[0]))(params)


def gradient_program(config, scoring):
    _, params = tiny_policy(config)
    settings = {"ref_params": None, "batch": some_rl_batch(), "key": jax.random.key(0), "config": CONFIG}
    loss = functools.partial(rl_loss, tiny_ranker(ITEMS, scoring, config), **settings)
    return jax.jit(jax.grad(lambda params: loss(params)[0])).lower(params).compile()


@pytest.mark.parametrize("change", [{"layers": "scanned"}, {"remat": "layer"}, {"remat": "products"}])
def test_how_layers_run_changes_no_gradient(change):
    rl = dataclasses.replace(CONFIG, inject_target="if_missing")
    batch = some_rl_batch((4, 9, 30))
    found, wanted = gradient(dataclasses.replace(TINY, **change), batch, rl=rl), gradient(TINY, batch, rl=rl)
    if "layers" in change:
        layers = [wanted["layers"][str(index)] for index in range(TINY.num_layers)]
        wanted["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    assert_trees_close(found, wanted, atol=1e-6)


@pytest.fixture(scope="module")
def compacted():
    """The compacted gradient as one compiled program, and the group that each of three users gets."""
    _, params = tiny_policy()

    @functools.partial(jax.jit, static_argnames="kind")
    def run(batch, kind):
        config = dataclasses.replace(CONFIG, kind=kind, dead_groups="compact")
        settings = {"ref_params": None, "batch": batch, "key": jax.random.key(0), "config": config, "judge": NOBODY}
        return compact_gradient(tiny_ranker(ITEMS), params, ALL_TRAINED, **settings)

    return run


@pytest.mark.parametrize(
    "kind", ["grpo", pytest.param("dapo", marks=pytest.mark.slow)]
)  # a mean over sequences, a mean over tokens
def test_dead_groups_left_out_change_no_gradient(compacted, kind):
    policy, params = tiny_policy()
    top = np.asarray(beam_search(policy, params, some_prompts(), trie_for(ITEMS, "constrained"), num_beams=6).items)
    plain = dataclasses.replace(CONFIG, kind=kind)
    for alive in (0, 2):
        batch = some_rl_batch([top[user, 2] if user >= 3 - alive else -2 for user in range(3)])
        grads, metrics = compacted(batch, kind)
        np.testing.assert_allclose(metrics["hit_rate"], alive / 3, rtol=1e-6)
        expected = gradient(TINY, batch, rl=plain)
        assert_trees_close(grads, expected, atol=1e-6)
        assert (max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 1e-4) == (alive > 0)
    assert compacted._cache_size() <= 2  # one program a kind, whatever number of groups is alive


def test_compaction_needs_a_loss_that_leaves_dead_groups_alone():
    for change in ({"kl_coef": 0.1}, {"inject_target": "if_missing"}):
        with pytest.raises(
            ConfigError, match=r"rl.dead_groups='compact' needs rl.kl_coef=0 and rl.inject_target='never'"
        ):
            dataclasses.replace(CONFIG, dead_groups="compact", **change)


@pytest.mark.parametrize("dead_groups", ["keep", "compact"])
def test_the_step_is_one_program_that_calls_nobody(dead_groups):
    """No callback, no infeed or outfeed, no copy to the host, and the state's memory is used again."""
    _, params = tiny_policy()
    optimizer, config = make_optimizer(OptimConfig(), 10), dataclasses.replace(CONFIG, dead_groups=dead_groups)
    step = make_rl_step(tiny_ranker(ITEMS), optimizer, config, seed=0)
    state = init_state(params, optimizer)
    compiled = step.lower(state, some_rl_batch((1, 2, 3))).compile()
    text = compiled.as_text().lower()
    for word in ("callback", "infeed", "outfeed", "send(", "recv(", "host"):
        assert word not in text, word
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes == held


def test_useful_flops_count_the_algorithm():
    """By hand for one layer of width 2 and for the difference that a second layer makes."""
    shape = Shape("toy", layers=1, width=2, heads=1, kv_heads=1, head_dim=2, ffn=3, vocab=9, users=5, group=4, prompt=6)
    flops = step_flops(shape, [7, 8], with_reference=True)
    keys, rest = 2 * 2 * 4, 2 * (2 * 4 + 3 * 6)
    prompt = 6 * keys + rest + 8 * 6 + 2 * 2 * 7  # the last token alone goes through a last layer
    suffix = keys + rest + 8 * (6 + 1) + 2 * 2 * 8
    assert flops.prompt == 5 * prompt and flops.suffix == 5 * 4 * suffix
    assert flops.step == 4 * flops.prompt + 5 * flops.suffix
    deeper = step_flops(dataclasses.replace(shape, layers=2), [7, 8], with_reference=False)
    assert deeper.prompt - flops.prompt == 5 * (6 * (keys + rest) + 8 * 6 * 7 / 2)
    assert deeper.step == 3 * deeper.prompt + 4 * deeper.suffix


def test_benchmark_catalogues_are_distinct_and_inside_the_vocabulary():
    shape = Shape("toy", layers=1, width=2, heads=1, kv_heads=1, head_dim=2, ffn=3, vocab=800, users=1)
    items = make_catalog(shape)
    assert len(np.unique(items, axis=0)) == shape.items == len(items)
    assert items.min() >= 16 and items.max() < shape.vocab
    with pytest.raises(ValueError, match="hold fewer than 3686 items"):
        make_catalog(dataclasses.replace(shape, codes=8))
    with pytest.raises(ValueError, match="need a vocabulary of 784 ids"):
        make_catalog(dataclasses.replace(shape, vocab=700))
