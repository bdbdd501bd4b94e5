"""A small real training run, linear regression by AdamW on a shuffled Grain pipeline, for the tests of the loop."""

import dataclasses
import functools
import os
import pathlib
import signal
import threading
import time
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from wpauc_jax.batches.types import Fed, RowIds
from wpauc_jax.runtime.metric_lines import MetricWriter, read_metrics
from wpauc_jax.training.checkpoint import BestCheckpoint, Checkpoints
from wpauc_jax.training.loop import Plan, fit

ROWS, WIDTH, BATCH = 50, 6, 4
PLAN = Plan(total_steps=24, evals=8, saves=5, patience=3, select="closeness", eval_at_start=True)
SHORT = Plan(total_steps=6, evals=2, saves=3, select="closeness")
META = {"width": WIDTH}
OPTIMIZER = optax.adamw(0.03)
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(ROWS, WIDTH)).astype(np.float32)
Y = X @ np.linspace(-1, 1, WIDTH, dtype=np.float32)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    params: dict[str, jax.Array]
    opt_state: Any

    @property
    def answering(self):
        return self.params


def make_batches(seed=3):
    def fed(rows):
        return Fed({"x": X[rows], "y": Y[rows]}, RowIds(sample=rows))

    numbers = grain.MapDataset.source(np.arange(ROWS)).seed(seed).shuffle().repeat().batch(BATCH)
    return numbers.map(fed).to_iter_dataset()


def make_state():
    params = {"w": jnp.zeros(WIDTH), "b": jnp.zeros(())}
    return State(jnp.zeros((), jnp.int32), params, OPTIMIZER.init(params))


def make_step():
    """A fresh jitted step, so that a test can count its compilations."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch):
        def mean_loss(params):
            errors = batch["x"] @ params["w"] + params["b"] - batch["y"]
            return jnp.mean(errors**2), errors

        (loss, errors), grads = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        small = jnp.abs(errors) < 0.5
        metrics = {
            "loss": loss,
            "small_error": (jnp.where(small, errors, 0.0).sum(), small.sum()),
            "absolute_errors": jnp.abs(errors),
        }
        return State(state.step + 1, params, opt_state), metrics

    return step


@functools.cache
def shared_step():
    """The same step for all tests that do not count compilations."""
    return make_step()


def evaluate(params):
    """A metric that is best on the way, so that the run stops early."""
    norm = float(jnp.linalg.norm(params["w"]))
    return {"closeness": -abs(norm - 0.4), "norm": norm}


def run(folder, *, plan=PLAN, step=None, evaluate=evaluate, batches=None, on_save=None, place=jax.device_put):
    """Trains or goes on in `folder`; `on_save(step)` is called as a save of a resumable checkpoint begins."""
    folder = pathlib.Path(folder)
    with (
        Checkpoints(folder / "checkpoints", reach=plan.faults.rollback_steps, meta=META) as checkpoints,
        BestCheckpoint(folder / "best") as best,
        MetricWriter(folder / "metrics.jsonl") as writer,
    ):
        if on_save:
            save = checkpoints.save

            def hooked(step, *args, **options):
                on_save(step)
                save(step, *args, **options)

            checkpoints.save = hooked
        return fit(
            "toy",
            make_state(),
            step or shared_step(),
            batches or make_batches(),
            plan=plan,
            checkpoints=checkpoints,
            best=best,
            writer=writer,
            evaluate=evaluate,
            rows_per_step=BATCH,
            unit="rows",
            place=place,
        )


def lines_of(folder, stage="toy"):
    return read_metrics(folder / "metrics.jsonl", stage)


def assert_same_bits(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def run_and_die(folder, moment, count, delay=0.0):
    """Runs until the `count`-th `moment`, then kills this very process: SIGKILL leaves no time for anything.

    Moments: "step" (dispatched, not finished), "evaluate" (half done), "save" and "best" (a folder half written),
    "never"; the kill comes `delay` seconds after. Slowed a little, so that it falls within what it is to interrupt.
    """
    passed = {"step": 0, "evaluate": 0, "save": 0}

    def reach(name):
        passed[name] += 1
        if moment == name and passed[name] == count:
            if name == "save":
                _kill_once_writing(pathlib.Path(folder) / "checkpoints", 1, delay)
            else:
                _kill_after(delay)

    inner = make_step()

    def step(state, batch):
        out = inner(state, batch)
        reach("step")
        time.sleep(0.01)
        return out

    def slow_evaluate(params):
        metrics = evaluate(params)
        time.sleep(0.02)
        reach("evaluate")
        time.sleep(0.02)
        return metrics

    if moment == "best":
        _kill_once_writing(pathlib.Path(folder) / "best", count, delay)
    run(folder, step=step, evaluate=slow_evaluate, on_save=lambda _: reach("save"))


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_after(delay):
    if delay:
        threading.Timer(delay, _kill).start()
    else:
        _kill()


def _kill_once_writing(folder, count, delay):
    """Kills this process as soon as the `count`-th half-written checkpoint is seen in `folder`, or a little later."""

    def watch():
        seen = set()
        while True:
            seen |= {path.name for path in folder.glob("*tmp*")}
            if len(seen) >= count:
                time.sleep(delay)
                _kill()
            time.sleep(0.0005)

    threading.Thread(target=watch, daemon=True).start()
