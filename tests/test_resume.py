"""A run killed by SIGKILL at any moment and started again ends as if it had never been killed, bit for bit."""

import json
import multiprocessing
import random
import signal

import numpy as np
import pytest
import toy_run

from wpauc_jax.checkpoint import BestCheckpoint, Checkpoints

# Children are forked from a server that has imported the libraries and started nothing: a second saved each time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["jax", "optax", "grain", "orbax.checkpoint", "wpauc_jax.loop"])


def run_in_child(folder, moment="never", count=0, kill_after=None):
    """The exit code of a child that runs and perhaps dies; `kill_after` seconds it is killed from outside."""
    child = PROCESSES.Process(target=toy_run.run_and_die, args=(str(folder), moment, count))
    child.start()
    child.join(kill_after if kill_after is not None else 60)
    if child.is_alive():
        assert kill_after is not None, "the run hangs"
        child.kill()
        child.join()
    return child.exitcode


def outcome(folder):
    """All that a run leaves behind, less what tells the time."""
    with Checkpoints(folder / "checkpoints", meta=toy_run.META) as checkpoints:
        restored = checkpoints.restore(toy_run.make_state(), iter(toy_run.make_batches()))
    with BestCheckpoint(folder / "best") as best:
        params, found = best.load(toy_run.make_state().params)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("time")
        line.pop("rows_per_s", None)
    arrays = {
        name: [np.asarray(leaf).tobytes() for leaf in toy_run.jax.tree.leaves(tree)]
        for name, tree in (("state", restored.state), ("best", params))
    }
    return {"step": restored.step, "record": restored.record, "found": found, "lines": lines, **arrays}


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


@pytest.mark.parametrize(
    "kills",
    [
        [("step", 1), ("best", 1), ("save", 1), ("evaluate", 1)],
        [("step", 8), ("evaluate", 2), ("best", 1), ("save", 2)],
    ],
    ids=["early", "late"],
)
def test_killed_at_known_moments(tmp_path, uninterrupted, kills):
    for moment, count in kills:
        assert run_in_child(tmp_path, moment, count) == -signal.SIGKILL
    assert run_in_child(tmp_path) == 0
    assert outcome(tmp_path) == uninterrupted


def test_killed_at_random_moments(tmp_path, uninterrupted):
    draw, killed = random.Random(0), 0
    for _ in range(4):
        killed += run_in_child(tmp_path, kill_after=draw.uniform(0.7, 2.0)) == -signal.SIGKILL
    assert killed
    assert run_in_child(tmp_path) == 0
    assert outcome(tmp_path) == uninterrupted


def test_a_finished_run_started_again_changes_nothing(finished, uninterrupted):
    lines = (finished / "metrics.jsonl").read_bytes()
    assert run_in_child(finished, "step", 1) == 0  # it would die in its first step, but takes none
    assert (finished / "metrics.jsonl").read_bytes() == lines
    assert outcome(finished) == uninterrupted
