"""Any mesh of eight simulated devices computes what one device does, and cuts what it says it cuts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wpauc_jax import models
from wpauc_jax.batches.types import PromptBatch, RlBatch, SftBatch, TitleTaskBatch
from wpauc_jax.config import ConfigError, LoraConfig, MeshConfig, ModelConfig, RlConfig, SftConfig
from wpauc_jax.decode import Ranker
from wpauc_jax.decode.scoring import trie_for
from wpauc_jax.evaluation.evaluate import make_search
from wpauc_jax.runtime import sharding
from wpauc_jax.training.rl import make_rl_step
from wpauc_jax.training.sft import make_sft_step
from wpauc_jax.training.state import init_state

MODEL = ModelConfig(
    vocab_size=64, num_layers=2, width=40, num_heads=8, num_kv_heads=4, head_dim=6, ffn_width=56, init_std=0.2
)
GATHERED = dataclasses.replace(MODEL, gather="step")
RL = RlConfig(group_size=5, target_k=3, kl_coef=0.1, inject_target="if_missing")
B, T, BEAMS = 8, 17, 9
# Adam divides by the gradient's size: with its usual epsilon a gradient of 1e-9 of pure rounding moves a weight as far
# as any other. This epsilon keeps the comparison about the gradients.
OPTIMIZER = optax.adam(1e-2, eps=1e-3)


@functools.cache
def sequences() -> list[tuple[int, ...]]:
    rng = np.random.default_rng(0)
    paths = [(3 + a, 11 + b, 27 + c) for a in range(7) for b in range(11) for c in range(13)]
    return [path for path in paths if rng.random() < 0.3]


def rl_batch() -> RlBatch:
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, T + 1, B).astype(np.int32)
    tokens = rng.integers(1, MODEL.vocab_size, (B, T)).astype(np.int32)
    tokens[np.arange(T) >= lengths[:, None]] = 0
    return RlBatch(PromptBatch(tokens, lengths), rng.integers(0, len(sequences()), B).astype(np.int32))


def sft_batch() -> SftBatch:
    """Five items of three tokens behind a first token, the first item no target; and rows of an alignment task."""
    items = np.random.default_rng(2).integers(0, len(sequences()), (B, 5)).astype(np.int32)
    tokens = np.concatenate([np.ones((B, 1)), np.array(sequences())[items].reshape(B, -1)], axis=1)
    targets = np.where(np.arange(5) > 0, items, -1)
    answers = np.where(np.arange(4) < 4 - (np.arange(B) % 2)[:, None], tokens[:, 2:6], -1)
    task = TitleTaskBatch(
        tokens=tokens[:, ::-1].astype(np.int32),
        starts=np.arange(3, 3 + B, dtype=np.int32),
        answers=answers.astype(np.int32),
    )
    return SftBatch(
        tokens=tokens.astype(np.int32),
        segments=np.ones(tokens.shape, np.int32),
        items=targets.astype(np.int32),
        starts=np.tile(np.arange(0, 15, 3, dtype=np.int32), (B, 1)),
        tasks={"title_to_id": task},
    )


def mesh_of(data: int, fsdp: int, tensor: int) -> jax.sharding.Mesh:
    return sharding.make_mesh(MeshConfig(data, fsdp, tensor), jax.devices()[: data * fsdp * tensor])


def make_ranker(policy, scoring: str = "constrained") -> Ranker:
    return Ranker(policy, sharding.place_whole(trie_for(sequences(), scoring)), scoring)


def make_step(kind: str, policy, rl: RlConfig, scoring: str):
    ranker = make_ranker(policy, scoring)
    if kind == "rl":
        return make_rl_step(ranker, OPTIMIZER, rl, seed=0), rl_batch()
    return make_sft_step(ranker, OPTIMIZER, SftConfig(title_to_id=0.5)), sft_batch()


@functools.cache
def train(
    mesh: tuple[int, int, int], kind: str, rl: RlConfig = RL, scoring: str = "constrained", model: ModelConfig = MODEL
):
    """Three steps on one batch: (the state on the host, each step's metrics, the state's shardings)."""
    with jax.set_mesh(mesh_of(*mesh)):
        policy, params = models.init(model, 0)
        step, batch = make_step(kind, policy, rl, scoring)
        state = init_state(params, OPTIMIZER, reference=kind == "rl")
        placed, metrics = sharding.place_batch(batch), []
        for _ in range(3):
            state, told = step(state, placed)
            metrics.append(jax.device_get(told))
        return jax.device_get(state), metrics, jax.tree.map(lambda leaf: leaf.sharding.spec, state)


ONE = (1, 1, 1)
MESHES = [(8, 1, 1), (1, 8, 1), (2, 2, 2)]
MORE_MESHES = [pytest.param(mesh, marks=pytest.mark.slow) for mesh in [(2, 1, 4), (1, 2, 4), (4, 2, 1), (4, 1, 2)]]


@pytest.mark.parametrize("kind", ["sft", "rl"])
@pytest.mark.parametrize("mesh", MESHES + MORE_MESHES)
def test_training_on_any_mesh_equals_one_device(mesh, kind):
    state, metrics, _ = train(mesh, kind)
    expected_state, expected_metrics, _ = train(ONE, kind)
    for found, wanted in zip(metrics, expected_metrics, strict=True):
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), found, wanted)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0), state, expected_state)


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_parameters_that_are_gathered_once_a_step_train_like_one_device(kind):
    state, _, specs = train((2, 2, 2), kind, model=GATHERED)
    assert specs == train((2, 2, 2), kind)[2]  # at rest nothing is whole
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0), state, train(ONE, kind)[0])


def test_what_is_gathered_is_sent_in_the_computations_type_and_its_gradient_comes_back_as_the_parameter():
    """Arrays that fsdp does not cut stay as they are."""
    with jax.set_mesh(mesh_of(2, 2, 2)):
        _, params = models.init(MODEL, 0)

        @jax.jit
        def gathered(params):
            return sharding.gather_parameters(params, "bfloat16")

        whole = gathered(params)
        loss = jax.jit(jax.grad(lambda params: sum(leaf.sum() for leaf in jax.tree.leaves(gathered(params)))))
        gradient = loss(params)
    kernel = whole["layers"]["0"]["attention"]["q"]["kernel"]
    assert any("fsdp" in own.sharding.spec for own in jax.tree.leaves(params))
    assert (kernel.dtype, tuple(kernel.sharding.spec)) == (jnp.bfloat16, (None, "tensor"))
    assert whole["norm"]["scale"].dtype == jnp.float32
    for back, own in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
        assert back.dtype == own.dtype
        assert "fsdp" not in own.sharding.spec or back.sharding.is_equivalent_to(own.sharding, own.ndim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rl", "scoring"),
    [
        (dataclasses.replace(RL, negatives="sample"), "constrained"),
        (dataclasses.replace(RL, negatives="random"), "constrained"),
        (RL, "vocab"),
    ],
)
def test_every_kind_of_group_on_a_mesh_equals_one_device(rl, scoring):
    """Random draws are a function of the row, not of the device it lies on."""
    state, _, _ = train((2, 2, 2), "rl", rl, scoring)
    expected, _, _ = train(ONE, "rl", rl, scoring)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=0), state, expected)


@functools.cache
def search(mesh: tuple[int, int, int]):
    with jax.set_mesh(mesh_of(*mesh)):
        policy, params = models.init(MODEL, 0)
        return jax.device_get(make_search(make_ranker(policy), num_beams=BEAMS)(params, rl_batch().prompts))


@pytest.mark.parametrize("mesh", MESHES + MORE_MESHES)
def test_evaluation_on_any_mesh_equals_one_device(mesh):
    found, wanted = search(mesh), search(ONE)
    np.testing.assert_array_equal(found.items, wanted.items)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)


def test_every_array_of_the_state_lies_where_its_name_says():
    """Parameters, both moments and the reference; what a step returns lies as what it was given."""
    _, _, specs = train((2, 2, 2), "rl")
    wanted = {"embed": ("tensor", "fsdp"), "kernel": ("fsdp", "tensor"), "out": ("tensor", "fsdp")}
    for tree in (specs.params, specs.opt_state[0].mu, specs.opt_state[0].nu, specs.ref_params):
        assert tuple(tree["embed"]) == wanted["embed"] and not any(tree["norm"]["scale"])
        assert len(tree["layers"]) == MODEL.num_layers
        for layer in tree["layers"].values():
            for name in ("q", "k", "v"):
                assert tuple(layer["attention"][name]["kernel"]) == wanted["kernel"]
                assert tuple(layer["attention"][name]["bias"]) == ("tensor",)
            for name in ("gate", "up"):
                assert tuple(layer["mlp"][name]["kernel"]) == wanted["kernel"]
            assert tuple(layer["attention"]["out"]["kernel"]) == tuple(layer["mlp"]["down"]["kernel"]) == wanted["out"]
            assert not any(layer["mlp_norm"]["scale"])
    assert not specs.step


def test_every_parameter_and_every_logical_axis_is_known():
    for change in ({}, {"layers": "scanned"}, {"tie_embeddings": False, "lora": LoraConfig(rank=2)}):
        policy, shapes = models.make_policy(dataclasses.replace(MODEL, **change))
        shapes.map(lambda path, leaf, axes: None)  # raises where an array has no axes, or another number of them
        assert {axis for axes in policy.axes.values() for axis in axes} <= set(sharding.RULES)
    with jax.set_mesh(mesh_of(2, 2, 2)), pytest.raises(KeyError, match=r"layers.new.kernel .* has no logical axes"):
        sharding.state_specs({"layers": {"new": {"kernel": jnp.zeros((2, 3, 4))}}})


def test_stacked_layers_have_one_axis_more():
    with jax.set_mesh(mesh_of(2, 2, 2)):
        _, shapes = models.make_policy(dataclasses.replace(MODEL, layers="scanned"))
        kernel = sharding.state_specs(shapes)["layers"]["attention"]["q"]["kernel"]
    assert tuple(kernel) == (None, "fsdp", "tensor")


@pytest.mark.parametrize("shape", [(4,), (2, 2, 3, 4)])
def test_a_parameter_of_another_rank_is_not_taken_for_a_known_one(shape):
    with jax.set_mesh(mesh_of(2, 2, 2)), pytest.raises(KeyError, match=r"q.kernel .* has no logical axes"):
        sharding.state_specs({"layers": {"q": {"kernel": jnp.zeros(shape)}}})


def test_a_group_never_straddles_data_shards():
    """Each device holds whole groups: all G candidates of its own users, with their keys and values."""
    with jax.set_mesh(mesh_of(2, 2, 2)):
        policy, params = models.init(MODEL, 0)

        @jax.jit
        def groups(params, batch, tokens_BGS):
            prompts = models.Prompts(batch.prompts.tokens, batch.prompts.lengths)
            return policy.extend(params, policy.prefill(params, prompts), tokens_BGS)

        batch = sharding.place_batch(rl_batch())
        tokens = sharding.place_batch(np.ones((B, 5, 2), np.int32))
        hidden, suffix = groups(params, batch, tokens)
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(2, 5, 2)}
    assert {shard.data.shape for shard in hidden.addressable_shards} == {(2, 5, 2, 40)}
    for side in suffix:  # [L, B, G, S, K, H]: users over data and fsdp, key heads over tensor
        assert {shard.data.shape for shard in side.addressable_shards} == {(2, 2, 5, 2, 2, 6)}


def test_rows_of_a_batch_cover_every_device():
    with jax.set_mesh(mesh_of(2, 2, 2)):
        assert sharding.batch_rows(8).tolist() == list(range(8))
        placed = sharding.place_batch(np.arange(8))
    assert sorted(shard.data.tolist() for shard in placed.addressable_shards) == [
        rows for rows in ([0, 1], [2, 3], [4, 5], [6, 7]) for _ in range(2)
    ]


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (MeshConfig(3, 2, 2), "mesh.data=3 x mesh.fsdp=2 x mesh.tensor=2 is 12 devices, but there are 8"),
        (MeshConfig(0, 3, 2), "mesh.fsdp=3 x mesh.tensor=2 does not divide the 8 devices"),
    ],
)
def test_a_mesh_of_another_size_is_refused(mesh, message):
    with pytest.raises(ConfigError, match=message):
        sharding.make_mesh(mesh)


def test_a_mesh_takes_what_the_other_axes_leave():
    assert dict(sharding.make_mesh(MeshConfig(0, 2, 2)).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize(
    ("change", "batch", "message"),
    [
        ({"num_kv_heads": 1}, 8, r"model.num_kv_heads=1 does not divide into 2 parts: mesh.tensor=2 .*'kv_heads'"),
        ({"vocab_size": 63}, 8, r"model.vocab_size=63 .*'vocab'; the next size that does is 64"),
        ({"width": 41}, 8, r"model.width=41 .* mesh.fsdp=2 .*'embed'"),
        ({"ffn_width": 55}, 8, r"model.ffn_width=55 .* mesh.tensor=2 .*'ffn'"),
        ({}, 6, r"rl.batch_size=6 does not divide into 4 parts: mesh.data=2 x mesh.fsdp=2 .*'batch'.* is 8"),
    ],
)
def test_a_size_that_does_not_divide_is_named(change, batch, message):
    with jax.set_mesh(mesh_of(2, 2, 2)):
        sharding.check_sizes(MODEL, {"rl.batch_size": 8})
        with pytest.raises(ConfigError, match=message):
            sharding.check_sizes(dataclasses.replace(MODEL, **change), {"rl.batch_size": batch})
