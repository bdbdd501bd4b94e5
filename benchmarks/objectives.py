"""What the objectives cost: reward -> advantage -> TAWin -> loss and its gradient, next to an RL step.

    python -m benchmarks.objectives [--step-seconds S --step-users B]

Prints one JSON line: seconds of the chain, the largest array in it, and its share of the RL step. The step's time is
measured by `benchmarks.rl_step.mini_step_seconds() -> (seconds, users)` where that module exists, or given by hand.
It is scaled to the chain's size by users alone: more and longer candidates would only make the step slower.
"""

import argparse
import importlib
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

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


def measured_step() -> tuple[float, int] | None:
    """(seconds, users) of the mini shape's RL step, where its benchmark is there."""
    if importlib.util.find_spec("benchmarks.rl_step") is None:
        return None
    return importlib.import_module("benchmarks.rl_step").mini_step_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-seconds", type=float, help="seconds of an RL step measured elsewhere")
    parser.add_argument("--step-users", type=int, default=8, help="users in that step")
    options = parser.parse_args()
    step = (options.step_seconds, options.step_users) if options.step_seconds else measured_step()
    seconds = chain_seconds()
    largest = max(intermediate_shapes(chain, *inputs()), key=math.prod)
    result: dict[str, Any] = {"chain_seconds": round(seconds, 5), "largest_array": largest}
    if step is not None:
        share = share_of_step(seconds, *step)
        result |= {"step_seconds": step[0], "step_users": step[1], "share_of_step": share, "ok": share < LIMIT}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
