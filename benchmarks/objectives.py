"""What the objectives cost: reward -> advantage -> TAWin -> loss and its gradient, next to an RL step.

    python -m benchmarks.objectives

Prints one JSON line: seconds of the chain, the largest array in it, and its share of the mini shape's RL step
(`benchmarks.rl_step`), measured in the same run and scaled to the chain's size by users alone: more and longer
candidates would only make the step slower.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from benchmarks.rl_step import mini_step_seconds
from wpauc_jax.objectives import tawin_loss

USERS, GROUP, TOKENS = 1024, 64, 8
LIMIT = 0.02  # of the RL step


def chain(logps: jax.Array, items: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(loss, gradient) from token log-probs [B, G, C], candidates' item ids [B, G] and targets [B]."""

    def loss(logps: jax.Array) -> jax.Array:
        rewards = (items == targets[:, None]).astype(jnp.float32)
        scores = jax.lax.stop_gradient(logps.sum(-1))
        return tawin_loss(logps, rewards, scores=scores, anchor=2, ref_logps=logps * 0.9, kl_coef=1e-3)[0]

    return jax.value_and_grad(loss)(logps)


def inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    logps = -jax.random.exponential(keys[0], (USERS, GROUP, TOKENS))
    items = jax.vmap(lambda key: jax.random.permutation(key, 4 * GROUP)[:GROUP])(jax.random.split(keys[1], USERS))
    return logps, items, jax.random.randint(keys[2], (USERS,), 0, 4 * GROUP)


def intermediate_shapes(function: Callable[..., Any], *args: jax.Array) -> set[tuple[int, ...]]:
    """Shapes of all arrays that a function makes when traced, inner functions' included."""
    return {
        variable.aval.shape
        for jaxpr in _nested(jax.make_jaxpr(function)(*args).jaxpr)
        for equation in jaxpr.eqns
        for variable in equation.outvars
        if hasattr(variable.aval, "shape")
    }


def _nested(jaxpr: Any) -> Iterator[Any]:
    yield jaxpr
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            yield from _nested(inner)


def chain_seconds(repeats: int = 20) -> float:
    """Median seconds of one call, after compilation."""
    compiled, args = jax.jit(chain), inputs()
    jax.block_until_ready(compiled(*args))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def share_of_step(seconds: float, step_seconds: float, step_users: int) -> float:
    """The chain's time over that of an RL step, scaled by users to the chain's batch."""
    return seconds / (step_seconds * USERS / step_users)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    step_seconds, step_users = mini_step_seconds()
    seconds = chain_seconds()
    share = share_of_step(seconds, step_seconds, step_users)
    largest = max(intermediate_shapes(chain, *inputs()), key=math.prod)
    result = {"chain_seconds": round(seconds, 5), "largest_array": largest, "step_seconds": step_seconds}
    print(json.dumps(result | {"step_users": step_users, "share_of_step": share, "ok": share < LIMIT}))


if __name__ == "__main__":
    main()
