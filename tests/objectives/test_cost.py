"""The chain reward -> advantage -> TAWin -> loss stays linear in the size of a group."""

import math
import re

import jax
import pytest

from benchmarks.objectives import GROUP, TOKENS, USERS, chain, inputs, intermediate_shapes, share_of_step
from wpauc_jax.objectives import negative_ranks


def test_no_array_of_the_traced_chain_is_larger_than_the_log_probs():
    shapes = intermediate_shapes(chain, *inputs())
    assert (USERS, GROUP, TOKENS) in shapes and (USERS, GROUP) in shapes
    assert max(map(math.prod, shapes)) == USERS * GROUP * TOKENS


def test_no_array_of_the_compiled_chain_is_larger_than_the_log_probs():
    text = jax.jit(chain).lower(*inputs()).compile().as_text()
    sizes = {math.prod(map(int, dims.split(","))) for dims in re.findall(r"\b(?:f32|s32|pred)\[([\d,]+)\]", text)}
    assert max(sizes) == USERS * GROUP * TOKENS


def test_the_walk_finds_a_pairwise_comparison_in_an_inner_function():
    pairwise = jax.jit(lambda scores: (scores[:, :, None] < scores[:, None, :]).sum(-1))
    scores = inputs()[0].sum(-1)
    assert (USERS, GROUP, GROUP) in intermediate_shapes(pairwise, scores)
    assert (USERS, GROUP, GROUP) not in intermediate_shapes(lambda s: negative_ranks(s, s > 1), scores)


def test_share_scales_the_step_by_its_users():
    assert share_of_step(0.5, step_seconds=1.0, step_users=8) == pytest.approx(0.5 / 128)
