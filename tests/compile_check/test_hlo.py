"""Collectives, loops and memory traffic read from programs whose costs are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.runtime import test_sharding as world
from wpauc_jax import models
from wpauc_jax.compile_check import hlo
from wpauc_jax.config import ModelConfig
from wpauc_jax.runtime import sharding
from wpauc_jax.training.state import init_state

LOOP = """HloModule jit_f, entry_computation_layout={()->f32[8]{0}}, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4,8], f32[24,4,8])) -> (s32[], f32[4,8], f32[24,4,8]) {
  %p = (s32[], f32[4,8]{1,0:T(8,128)S(1)}, f32[24,4,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,8]{1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %w = f32[24,4,8]{2,1,0} get-tuple-element(%p), index=2
  %slice = f32[1,4,8]{2,1,0} dynamic-slice(%w, %i), dynamic_slice_sizes={1,4,8}
  %all-gather.1 = f32[16,8]{1,0:T(8,128)S(1)} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %reduced = f32[4,8]{1,0:T(8,128)S(1)} fusion(%all-gather.1), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %out = (s32[], f32[4,8]{1,0:T(8,128)S(1)}, f32[24,4,8]{2,1,0}) tuple(%i, %reduced, %w)
}

%all-reduce-scatter.1 (q: f32[16,8]) -> f32[4,8] {
  %q = f32[16,8]{1,0} parameter(0)
  %all-reduce.1 = f32[16,8]{1,0} all-reduce(%q), channel_id=2, replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = f32[4,8]{1,0} dynamic-slice(%all-reduce.1, %zero, %zero), dynamic_slice_sizes={4,8}
}

%condition (r: (s32[], f32[4,8], f32[24,4,8])) -> pred[] {
  %r = (s32[], f32[4,8]{1,0}, f32[24,4,8]{2,1,0}) parameter(0)
  %j = s32[] get-tuple-element(%r), index=0
  %limit = s32[] constant(24)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (s: f32[24,4,8]) -> f32[4,8] {
  %s = f32[24,4,8]{2,1,0} parameter(0)
  %start = s32[] constant(0)
  %first = f32[4,8]{1,0} constant({...})
  %state = (s32[], f32[4,8]{1,0}, f32[24,4,8]{2,1,0}) tuple(%start, %first, %s)
  %while.1 = (s32[], f32[4,8]{1,0}, f32[24,4,8]{2,1,0}) while(%state), condition=%condition, body=%body
  %last = f32[4,8]{1,0} get-tuple-element(%while.1), index=1
  ROOT %total = f32[4,8]{1,0} all-reduce(%last), channel_id=3, replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
}
"""


def test_collectives_count_as_often_as_their_loop_runs():
    found = {one.kind: one for one in hlo.collectives(LOOP)}
    assert {kind: (one.arrays, one.size, one.devices, one.count) for kind, one in found.items()} == {
        "all-gather": (((16, 8),), 512, 4, 24),
        "reduce-scatter": (((16, 8),), 512, 4, 24),
        "all-reduce": (((4, 8),), 128, 2, 1),
    }


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("{{0,1,2},{3,4,5}}", 3),
        ("mesh['a'=2,'b'=4] {'a'}", 2),
        ("mesh['a'=2,'b'=4], device_ids=([2,4]T(1,0)) {'a','b'}", 8),
        ("mesh['a'=2,'b'=8] {'b':(2)4}", 4),
    ],
)
def test_groups_are_read_in_every_way_they_are_written(groups, devices):
    (found,) = hlo.collectives(
        f"HloModule jit_f, num_partitions=16\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n  %x = f32[8]{{0}} parameter(0)\n"
        f"  ROOT %y = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add\n}}\n"
    )
    assert found.devices == devices


def test_memory_traffic_counts_slices_of_a_stack_and_nothing_in_vector_memory():
    in_loop = 2 * 128 + 4  # the slice is read and written; the loop's comparison
    once = 2 * 128  # the last all-reduce
    assert hlo.memory_traffic(LOOP) == pytest.approx(24 * in_loop + once, rel=0.05)


SPLIT = """HloModule jit_f, entry_computation_layout={()->bf16[16,8]{1,0}}, num_partitions=4

%start (p: bf16[4,8]) -> (bf16[4,8], bf16[16,8]) {
  %p = bf16[4,8] parameter(0)
  %all-gather.1 = bf16[16,8] all-gather(%p), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %started = (bf16[4,8], bf16[16,8]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%slice_one (q: f32[24,6,5], i: s32[]) -> f32[6,5] {
  %q = f32[24,6,5] parameter(0)
  %i = s32[] parameter(1)
  %layer = f32[1,6,5] dynamic-slice(%q, %i), dynamic_slice_sizes={1,6,5}
  ROOT %flat = f32[6,5] bitcast(%layer)
}

%async_collective_fusion (r: bf16[4,8], s: bf16[16,8], t: f32[24,6,5], j: s32[]) -> (bf16[4,8], bf16[16,8], f32[6,5]) {
  %r = bf16[4,8] parameter(0)
  %s = bf16[16,8] parameter(1)
  %t = f32[24,6,5] parameter(2)
  %j = s32[] parameter(3)
  %all-gather.2 = bf16[16,8] all-gather(%r), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
  %w = f32[6,5] fusion(%t, %j), kind=kLoop, calls=%slice_one
  %twice = f32[6,5]{:S(1)} add(%w, %w)
  ROOT %out = (bf16[4,8], bf16[16,8], f32[6,5]{:S(1)}) tuple(%r, %s, %twice)
}

%done (u: bf16[4,8], v: bf16[16,8]) -> bf16[16,8] {
  %u = bf16[4,8] parameter(0)
  %v = bf16[16,8] parameter(1)
  %all-gather.3 = bf16[16,8] all-gather(%u), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}
  ROOT %whole = bf16[16,8] custom-call(%u, %v, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%body (c: (s32[], bf16[4,8], bf16[16,8], f32[24,6,5])) -> (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) {
  %c = (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) parameter(0)
  %k = s32[] get-tuple-element(%c), index=0
  %x = bf16[4,8] get-tuple-element(%c), index=1
  %y = bf16[16,8] get-tuple-element(%c), index=2
  %z = f32[24,6,5] get-tuple-element(%c), index=3
  %beside = (bf16[4,8], bf16[16,8], f32[6,5]{:S(1)}) fusion(%x, %y, %z, %k), calls=%async_collective_fusion
  ROOT %next = (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) tuple(%k, %x, %y, %z)
}

%condition (d: (s32[], bf16[4,8], bf16[16,8], f32[24,6,5])) -> pred[] {
  %d = (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) parameter(0)
  %l = s32[]{:S(2)} get-tuple-element(%d), index=0
  %limit = s32[]{:S(1)} constant(24)
  ROOT %less = pred[]{:S(1)} compare(%limit, %limit), direction=LT
}

ENTRY %main (e: bf16[4,8], f: f32[24,6,5]) -> bf16[16,8] {
  %e = bf16[4,8] parameter(0)
  %f = f32[24,6,5] parameter(1)
  %zero = s32[] constant(0)
  %begun = (bf16[4,8], bf16[16,8]) fusion(%e), calls=%start
  %part = bf16[4,8] get-tuple-element(%begun), index=0
  %all = bf16[16,8] get-tuple-element(%begun), index=1
  %first = (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) tuple(%zero, %part, %all, %f)
  %loop = (s32[], bf16[4,8], bf16[16,8], f32[24,6,5]) while(%first), condition=%condition, body=%body
  %g = bf16[4,8] get-tuple-element(%loop), index=1
  %h = bf16[16,8] get-tuple-element(%loop), index=2
  ROOT %end = bf16[16,8] fusion(%g, %h), calls=%done
}
"""


def test_a_collective_that_goes_on_beside_a_loop_counts_once():
    (found,) = hlo.collectives(SPLIT)
    assert (found.kind, found.arrays, found.devices, found.count) == ("all-gather", ((16, 8),), 4, 1)


def test_memory_traffic_counts_what_passes_by_once_and_slices_in_fusions_of_fusions():
    gathered = (4 + 16) * 8 * 2 + 4 * 8 * 2  # read and written by the start, which gives back what it reads
    slices = 24 * (6 * 5 * 4 + 4)  # one layer of the stack and the counter, each time
    assert hlo.memory_traffic(SPLIT) == gathered + slices


def test_flops_of_a_scan_and_its_gradient():
    def loss(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    traced = jax.jit(jax.grad(loss)).trace(jnp.ones((5, 8, 8)), jnp.ones((3, 8)))
    assert hlo.matmul_flops(traced.jaxpr) == 3 * 5 * 2 * 3 * 8 * 8  # forward, to x, to w


def test_a_programs_own_collectives_are_read():
    mesh = world.mesh_of(2, 2, 2)
    with jax.set_mesh(mesh):
        x = jax.device_put(np.ones((8, 4), np.float32), jax.NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
        compiled = jax.jit(functools.partial(jnp.sum, axis=0)).lower(x).compile()
    (found,) = hlo.collectives(compiled.as_text())
    assert (found.kind, found.arrays, found.size, found.devices, found.count) == ("all-reduce", ((4,),), 16, 4, 1)


@functools.cache
def step_collectives(
    mesh: tuple[int, int, int], kind: str, scoring: str, model: ModelConfig = world.MODEL
) -> list[hlo.Collective]:
    with jax.set_mesh(world.mesh_of(*mesh)):
        policy, params = models.init(model, 0)
        step, batch = world.make_step(kind, policy, world.RL, scoring)
        state = init_state(params, world.OPTIMIZER, reference=kind == "rl")
        return hlo.collectives(step.lower(state, sharding.place_batch(batch)).compile().as_text())


MESH = (2, 2, 2)


@pytest.mark.parametrize("scoring", ["constrained", pytest.param("vocab", marks=pytest.mark.slow)])
def test_a_step_gathers_parameters_and_nothing_else(scoring):
    """No logits, no groups, no users: what is gathered has the shape of a parameter, cut over tensor or not.

    Sizes are all different: 5 candidates, 7, 11 and 13 live rows, 8 users, 17 tokens, 64 rows of the table.
    """
    model = world.MODEL
    heads, kv = model.num_heads * model.head_dim, model.num_kv_heads * model.head_dim
    widths = {size // parts for size in (heads, kv, model.ffn_width, model.vocab_size) for parts in (1, 2)}
    widths |= {7, 11, 13}  # live rows of the table at each depth
    moved = [one for one in step_collectives(MESH, "rl", scoring) if one.kind != "all-reduce"]
    assert moved
    for one in moved:
        assert one.kind in ("all-gather", "reduce-scatter"), one
        for shape in one.arrays:
            matrix = [size for size in shape if size > 1]
            assert model.width in matrix and len(matrix) == 2, one
            matrix.remove(model.width)
            assert matrix[0] in widths, one


def test_parameters_can_be_gathered_once_a_step():
    """Policy and reference each once: what is gathered is as large as two copies of what fsdp cuts."""
    _, shapes = models.make_policy(world.MODEL)
    cut = [leaf.size * leaf.dtype.itemsize // MESH[2] for leaf in jax.tree.leaves(shapes) if leaf.ndim == 2]
    found = step_collectives(MESH, "rl", "constrained", world.GATHERED)
    gathered = [one for one in found if one.kind == "all-gather"]
    assert {one.count for one in gathered} == {1}
    assert sum(one.size for one in gathered) == 2 * sum(cut)


def test_logits_are_not_summed_over_devices():
    """Over tensor, activations [..., D] are; over data and fsdp, gradients."""
    model = world.MODEL
    for one in step_collectives(MESH, "rl", "constrained"):
        for shape in one.arrays:
            if len(shape) >= 3 and max(shape) > 1:
                assert model.width in shape or shape[-1] == 1 or (len(shape) == 3 and shape[0] == model.num_layers), one


@pytest.mark.slow
def test_data_parallel_steps_only_sum():
    for kind in ("sft", "rl"):
        assert {one.kind for one in step_collectives((8, 1, 1), kind, "constrained")} == {"all-reduce"}
