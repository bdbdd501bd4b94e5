"""A run killed by SIGKILL at any moment and started again ends as if it had never been killed, bit for bit."""

import json
import multiprocessing
import random
import signal

import numpy as np
import pytest

from tests import toy_run
from wpauc_jax.training.checkpoint import Checkpoints, load_best

# Children are forked from a server that has imported the libraries and started nothing: a second saved each time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["jax", "optax", "grain", "orbax.checkpoint", "wpauc_jax.training.loop"])


def run_in_child(folder, moment="never", count=0, delay=0.0, kill_after=None):
    """The exit code of a child that runs and perhaps dies; after `kill_after` seconds it is killed from outside."""
    child = PROCESSES.Process(target=toy_run.run_and_die, args=(str(folder), moment, count, delay))
    child.start()
    child.join(kill_after if kill_after is not None else 300)
    if child.is_alive():
        assert kill_after is not None, "the run hangs"
        child.kill()
        child.join()
    return child.exitcode


def outcome(folder):
    """All that a run leaves behind, less what tells the time."""
    with Checkpoints(folder / "checkpoints", meta=toy_run.META) as checkpoints:
        restored = checkpoints.restore(toy_run.make_state())
    params, found = load_best(folder / "best", toy_run.make_state().params)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("time")
        line.pop("rows_per_s", None)
    arrays = {
        name: [np.asarray(leaf).tobytes() for leaf in toy_run.jax.tree.leaves(tree)]
        for name, tree in (("state", restored.state), ("best", params))
    }
    kept = {"step": restored.step, "record": restored.record, "position": restored.position, "found": found}
    return {**kept, "lines": lines, **arrays}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that was never killed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert run_in_child(folder) == 0
    return folder


@pytest.fixture(scope="module")
def uninterrupted(finished):
    result = outcome(finished)
    assert result["record"]["finished"] and 0 < result["record"]["best_step"] < result["step"] < 24  # it stopped early
    return result


TRIALS, QUICK = 20, 5
# How often each moment comes in a run of its own: 21 steps, saves of the state and of the best, evaluations.
MOMENTS = {"step": 21, "save": 5, "best": 5, "evaluate": 8}


@pytest.mark.parametrize(
    "trial", [pytest.param(trial, marks=[pytest.mark.slow] if trial >= QUICK else []) for trial in range(TRIALS)]
)
def test_killed_at_a_random_moment(tmp_path, uninterrupted, trial):
    """One trial of each five dies at a time that has nothing to do with what the run is doing."""
    draw = random.Random(trial)
    moment = [*MOMENTS, "any time"][trial % 5]
    if moment == "any time":
        code = run_in_child(tmp_path, kill_after=draw.uniform(0.5, 2.5))
        assert code in (-signal.SIGKILL, 0)  # on a fast machine the run may be over by then
    else:
        count, delay = draw.randint(1, MOMENTS[moment]), draw.uniform(0, 0.01)
        assert run_in_child(tmp_path, moment, count, delay) == -signal.SIGKILL
    assert run_in_child(tmp_path) == 0
    assert outcome(tmp_path) == uninterrupted


def test_killed_again_and_again(tmp_path, uninterrupted):
    for moment, count in (("step", 1), ("best", 1), ("save", 1), ("evaluate", 1), ("step", 8), ("save", 2)):
        assert run_in_child(tmp_path, moment, count) == -signal.SIGKILL
    assert run_in_child(tmp_path) == 0
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_started_again_changes_nothing(finished, uninterrupted):
    lines = (finished / "metrics.jsonl").read_bytes()
    assert run_in_child(finished, "step", 1) == 0  # it would die in its first step, but takes none
    assert (finished / "metrics.jsonl").read_bytes() == lines
    assert outcome(finished) == uninterrupted
