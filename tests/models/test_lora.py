"""Adapters, new tokens, and training of nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.worlds import TINY, forward, some_prompts, tiny_policy, trie_for, variable_length_items
from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch
from wpauc_jax.config import ConfigError, LoraConfig, RlConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.models import ALL_TRAINED, add_adapter, grow_vocabulary, make_policy, merge_adapter, split_params
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

LORA = LoraConfig(rank=2, targets=("q", "down"))


@pytest.fixture(scope="module")
def adapted():
    """A policy whose adapter says something."""
    policy, params = add_adapter(*tiny_policy(), LORA, seed=3)
    return policy, jax.tree.map(lambda leaf: leaf + 0.05, {**params, "layers": params["layers"]})


def names(tree):
    return {".".join(path) for path in flatten_dict(tree)}


def test_a_fresh_adapter_changes_nothing():
    policy, params = tiny_policy()
    adapted, with_adapter = add_adapter(policy, params, LORA)
    assert names(with_adapter) - names(params) == {
        f"layers.{layer}.{owner}.lora.lora_{side}"
        for layer in range(TINY.num_layers)
        for owner in ("attention.q", "mlp.down")
        for side in "ab"
    }
    assert with_adapter["embed"] is params["embed"]
    tokens = some_prompts().tokens
    np.testing.assert_array_equal(forward(adapted, with_adapter, tokens), forward(policy, params, tokens))
    one, other = (with_adapter["layers"][layer]["mlp"]["down"]["lora"]["lora_a"] for layer in "01")
    assert one.shape == (TINY.ffn_width, 2)
    assert float(jnp.abs(one).min()) > 0 and not (one == other).all()


def test_a_merged_adapter_computes_the_same(adapted):
    policy, params = merge_adapter(*adapted)
    assert names(params) == names(tiny_policy()[1]) and policy.config == TINY
    tokens = some_prompts().tokens
    ours = forward(policy, params, tokens)
    np.testing.assert_allclose(ours, forward(*adapted, tokens), atol=1e-4)
    without = jax.tree.map(lambda leaf: leaf + 0.05, tiny_policy()[1])
    assert np.abs(ours - forward(policy, without, tokens)).max() > 1e-2
    assert merge_adapter(policy, params) == (policy, params)


def test_adapters_are_float32_beside_weights_of_half_the_size():
    _, params = make_policy(dataclasses.replace(TINY, param_dtype="bfloat16", dtype="bfloat16", lora=LORA))
    flat = flatten_dict(params)
    assert {str(leaf.dtype) for path, leaf in flat.items() if "lora" in path} == {"float32"}
    assert {str(leaf.dtype) for path, leaf in flat.items() if "lora" not in path} == {"bfloat16"}


def test_unknown_targets_are_named():
    with pytest.raises(ConfigError, match=r"model.lora.targets=\('q', 'query'\) must be some of q, k, v, out"):
        LoraConfig(rank=1, targets=("q", "query"))


@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_means(tied):
    policy, params = tiny_policy(dataclasses.replace(TINY, tie_embeddings=tied))
    grown, more = grow_vocabulary(policy, params, 20, [[3], [3, 5, 3], [], [7, 7], [1], [2]])
    assert grown.config.vocab_size == 26 and policy.config.vocab_size == 24
    for name in ("embed",) if tied else ("embed", "head"):
        old, new = np.asarray(params[name]), np.asarray(more[name])
        np.testing.assert_array_equal(new[:20], old[:20])
        wanted = [old[3], (2 * old[3] + old[5]) / 3, old[:20].mean(0), old[7], old[1], old[2]]
        np.testing.assert_allclose(new[20:], wanted, atol=1e-6)
    assert more["layers"] is params["layers"]


def test_spare_rows_are_used_first():
    policy, params = tiny_policy()
    grown, more = grow_vocabulary(policy, params, 20, [[1], [2]])
    assert grown.config.vocab_size == 24
    np.testing.assert_array_equal(more["embed"][22:], params["embed"][22:])
    np.testing.assert_array_equal(more["embed"][20:22], params["embed"][1:3])


@pytest.mark.parametrize(("first", "described"), [(0, [[1]]), (25, [[1]]), (20, [[20]]), (20, [[-1]])])
def test_impossible_new_tokens_are_refused(first, described):
    with pytest.raises(ValueError, match="new tokens"):
        grow_vocabulary(*tiny_policy(), first, described)


def test_everything_is_trained_unless_something_asks_for_less():
    policy, params = tiny_policy()
    trained, frozen = split_params(policy, params, first_row=20, num_rows=4)
    assert trained is params and frozen is ALL_TRAINED and frozen.join(trained) is params


@pytest.mark.parametrize(
    ("tied", "adapter", "rows"), [(True, True, 0), (False, True, 3), (True, False, 3), (False, False, 3)]
)
def test_only_what_was_added_is_trained(tied, adapter, rows):
    policy, params = tiny_policy(dataclasses.replace(TINY, tie_embeddings=tied, freeze=not adapter))
    if adapter:  # which freezes the rest
        policy, params = add_adapter(policy, params, LORA)
    trained, frozen = split_params(policy, params, first_row=20, num_rows=rows)
    tables = ["embed"] if tied else ["embed", "head"]
    added = {name for name in names(trained) if "lora" not in name}
    assert added == ({f"{name}_rows" for name in tables} if rows else set())
    assert sum("lora" in name for name in names(trained)) == (4 * TINY.num_layers if adapter else 0)
    assert not any("lora" in name for name in names(frozen.params))
    assert all(frozen.params[name] is params[name] for name in tables)  # no copy

    @jax.jit
    def joined(trained, frozen):
        return frozen.join(trained), frozen.join(jax.tree.map(lambda x: x + 1.0, trained))

    again, moved = (flatten_dict(tree) for tree in joined(trained, frozen))
    for path, before in flatten_dict(params).items():
        np.testing.assert_array_equal(again[path], before)
        changed = np.asarray(moved[path]) != np.asarray(before)
        if path[-1] in tables:
            assert changed[20 : 20 + rows].all() and not np.delete(changed, slice(20, 20 + rows), axis=0).any()
        else:
            assert changed.all() if "lora" in path else not changed.any()


def test_something_must_be_trained():
    policy, params = tiny_policy(dataclasses.replace(TINY, freeze=True))
    with pytest.raises(ConfigError, match="leaves nothing to train: the catalog adds no token"):
        split_params(policy, params, first_row=24, num_rows=0)


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_steps_hold_the_adapter_and_the_new_rows_alone(stage):
    policy, params = add_adapter(*tiny_policy(), LORA)
    trained, frozen = split_params(policy, params, first_row=20, num_rows=4)
    trie = trie_for(variable_length_items(), "constrained")
    optimizer = optax.adam(0.1)
    state = init_state(trained, optimizer, reference=stage == "rl")
    prompts = some_prompts()
    ranker = Ranker(policy, trie)
    if stage == "sft":
        step = make_sft_step(ranker, optimizer, frozen=frozen)
        items, starts = jnp.array([[0], [1], [2]]), jnp.zeros((3, 1), jnp.int32)
        batch = SftBatch(prompts.tokens, jnp.ones_like(prompts.tokens), items, starts)
    else:
        config = RlConfig(group_size=4, target_k=2, negatives="random", kl_coef=0.1)
        step = make_rl_step(ranker, optimizer, config, seed=0, frozen=frozen)
        batch = RlBatch(PromptBatch(prompts.tokens, prompts.lengths), jnp.array([0, 1, 2]))
    held = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert held <= (4 if stage == "rl" else 3) * sum(leaf.size for leaf in jax.tree.leaves(trained)) + 3
    before = jax.tree.map(np.asarray, (trained, frozen.params))
    after, metrics = step(state, batch)
    assert float(metrics["grad_norm"]) > 0
    moved = flatten_dict(jax.tree.map(lambda a, b: not np.array_equal(a, b), after.params, before[0]))
    assert all(moved[path] for path in moved if path[-1] != "lora_a")  # whose gradient is 0 while B is
    for one, other in zip(jax.tree.leaves(frozen.params), jax.tree.leaves(before[1]), strict=True):
        np.testing.assert_array_equal(one, other)
