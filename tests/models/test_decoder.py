"""The shared prompt changes cost, not results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.worlds import TINY, forward, some_prompts, tiny_policy
from wpauc_jax.config import ConfigError
from wpauc_jax.models import init
from wpauc_jax.models.matmul import rows_times_kernel


@pytest.mark.parametrize("splits", [(3,), (1, 2), (1, 1, 1)])
def test_cached_candidates_equal_the_full_forward(splits):
    policy, params = tiny_policy()
    prompts = some_prompts()
    rng = np.random.default_rng(0)
    suffix = jnp.asarray(rng.integers(0, TINY.vocab_size, (3, 4, 3)), jnp.int32)

    cache, past, hidden, done = policy.prefill(params, prompts), None, [], 0
    for size in splits:
        states, past = policy.extend(params, cache, suffix[:, :, done : done + size], past)
        hidden.append(states)
        done += size
    cached = policy.logits(params, jnp.concatenate([jnp.repeat(cache.hidden[:, None, None], 4, 1), *hidden], axis=2))

    for b, length in enumerate(np.asarray(prompts.lengths)):
        prompt = jnp.repeat(prompts.tokens[b : b + 1, :length], 4, axis=0)
        full = forward(policy, params, jnp.concatenate([prompt, suffix[b]], axis=1))
        np.testing.assert_allclose(cached[b], full[:, length - 1 :], atol=1e-5)


def test_gradients_flow_through_the_shared_prompt_as_through_repeated_ones():
    policy, params = tiny_policy()
    prompts = some_prompts(batch=2)
    suffix = jnp.asarray(np.random.default_rng(0).integers(0, TINY.vocab_size, (2, 3, 2)), jnp.int32)

    def shared(params):
        states, _ = policy.extend(params, policy.prefill(params, prompts), suffix)
        return jnp.sin(policy.logits(params, states)).sum()

    def repeated(params):
        total = 0.0
        for b, length in enumerate(np.asarray(prompts.lengths)):
            prompt = jnp.repeat(prompts.tokens[b : b + 1, :length], 3, axis=0)
            logits = forward(policy, params, jnp.concatenate([prompt, suffix[b]], axis=1))
            total += jnp.sin(logits[:, length:]).sum()
        return total

    for one, other in zip(*(jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (shared, repeated)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, rtol=1e-4)


def test_rows_of_the_head_and_untied_embeddings():
    policy, params = tiny_policy(dataclasses.replace(TINY, tie_embeddings=False))
    hidden = jax.random.normal(jax.random.key(0), (2, TINY.width))
    rows = jnp.array([4, 1, 19])
    np.testing.assert_allclose(policy.logits(params, hidden, rows), (hidden @ params["head"].T)[:, rows], atol=1e-5)


def test_remat_changes_nothing():
    policy, params = tiny_policy()
    again, _ = tiny_policy(dataclasses.replace(TINY, remat="layer"))
    tokens = some_prompts().tokens

    def loss(policy, params):
        return jnp.sin(forward(policy, params, tokens)).sum()

    plain, remat = (jax.jit(jax.grad(lambda p, policy=policy: loss(policy, p)))(params) for policy in (policy, again))
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(remat), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-5)


def test_bfloat16_computation_over_float32_parameters():
    policy, params = tiny_policy(dataclasses.replace(TINY, dtype="bfloat16"))
    exact, _ = tiny_policy()
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokens = some_prompts().tokens
    hidden = policy.hidden(params, tokens)
    assert hidden.dtype == jnp.bfloat16
    logits = forward(policy, params, tokens)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact.forward(params, tokens), atol=0.15)
    assert np.abs(np.asarray(logits - exact.forward(params, tokens))).max() > 1e-4  # it did run in bfloat16


def test_seed_decides_the_parameters():
    one, same, other = (jax.tree.leaves(init(TINY, seed)[1]) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert not all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "model.vocab_size=0"),
        ({"num_kv_heads": 3}, "model.num_heads=4 must be a multiple of model.num_kv_heads=3"),
        ({"head_dim": 7}, "model.head_dim=7 must be even"),
    ],
)
def test_impossible_models_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        init(dataclasses.replace(TINY, **change))


def test_a_linear_maps_product_and_gradient_are_the_plain_ones():
    x, kernel, out = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 5, 8), (8, 3), (2, 5, 3)])
    )
    dimensions = (((2,), (0,)), ((), ()))

    @jax.jit
    def both(x, kernel, out):
        plain, plain_pull = jax.vjp(jnp.matmul, x, kernel)
        ours, our_pull = jax.vjp(lambda x, kernel: rows_times_kernel(x, kernel, dimensions), x, kernel)
        return (plain, *plain_pull(out)), (ours, *our_pull(out))

    for one, other in zip(*both(x, kernel, out), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    half = [array.astype(jnp.bfloat16) for array in (x, kernel, out)]
    for one, other in zip(both(*half)[1], both(*(array.astype(jnp.float32) for array in half))[0], strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other, rtol=2**-8)  # rounded once, at the end
    with pytest.raises(ValueError, match="contracts x's last axis with the kernel's first"):
        rows_times_kernel(x, kernel, (((1,), (0,)), ((), ())))


@pytest.mark.parametrize("num_layers", [1, 2])
def test_unrolled_layers_prefill_as_scanned_ones(num_layers):
    config = dataclasses.replace(TINY, num_layers=num_layers)
    policy, params = init(config, 0)
    scanned, stacked = init(dataclasses.replace(config, layers="scanned"), 0)
    one, other = policy.prefill(params, some_prompts()), scanned.prefill(stacked, some_prompts())
    assert one.keys.shape[0] == num_layers
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
