"""What a state takes on one device, and a first moment in bfloat16."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from tests.worlds import tiny_policy
from wpauc_jax.config import MeshConfig, OptimConfig
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.training.memory import memory_line, memory_table, state_bytes, tree_bytes
from wpauc_jax.training.optim import make_optimizer
from wpauc_jax.training.state import init_state


def state_of(**settings):
    params = tiny_policy()[1]
    optimizer = make_optimizer(OptimConfig(**settings), 10)
    return jax.eval_shape(lambda: init_state(params, optimizer, reference=True)), tree_bytes(params)


def test_two_moments_and_a_reference_beside_the_parameters():
    state, size = state_of()
    found = state_bytes(state)
    assert set(found) == {"parameters", "moments", "reference"}
    assert found["parameters"] == found["reference"] == size
    assert 0 <= found["moments"] - 2 * size <= 64  # and counters


def test_a_first_moment_in_bfloat16_takes_half():
    state, size = state_of(first_moment="bfloat16")
    assert 0 <= state_bytes(state)["moments"] - 3 * size // 2 <= 64


def test_a_first_moment_in_bfloat16_takes_nearly_the_same_step():
    params = tiny_policy()[1]
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.3, leaf.dtype), params)
    steps = []
    for kind in ("parameters", "bfloat16"):
        optimizer = make_optimizer(OptimConfig(first_moment=kind, warmup=0, schedule="constant"), 10)
        step = jax.jit(lambda grads, params, chosen=optimizer: chosen.update(grads, chosen.init(params), params)[0])
        steps.append(jax.tree.leaves(step(grads, params)))
    for one, other in zip(*steps, strict=True):
        assert 0 <= jnp.abs(one - other).max() < 0.01 * jnp.abs(one).max()


def test_what_is_cut_counts_with_its_piece():
    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    cut = NamedSharding(mesh, PartitionSpec("fsdp"))
    leaf = jax.ShapeDtypeStruct((8, 3), jnp.bfloat16, sharding=cut)
    assert tree_bytes({"w": leaf, "whole": jax.ShapeDtypeStruct((5,), jnp.int32)}) == 2 * 3 * 2 + 20


def test_the_table_ends_with_the_whole():
    lines = memory_table({"parameters": 2**30, "moments": 2**31}, 4 * 2**30)
    assert [line.split()[-2] for line in lines] == ["1.000", "2.000", "1.000", "4.000"]


def test_the_line_says_the_sum_and_the_parts():
    line = memory_line("rl", {"parameters": 2**30, "moments": 2**31, "frozen parameters": 3 * 2**20})
    assert line.startswith(
        "rl holds 3.0 GiB on each device: parameters 1.0 GiB, moments 2.0 GiB, frozen parameters 3.0 MiB."
    )
