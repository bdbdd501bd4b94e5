"""A faulty step: rolled back, its batches passed over, as if the data had never held them."""

import dataclasses
import json

import grain
import jax
import numpy as np
import pytest

from tests import toy_run
from wpauc_jax.config import FaultConfig
from wpauc_jax.runtime.termination import Preempted
from wpauc_jax.training.watch import FaultError

ROLLBACK = FaultConfig(action="rollback")


def poisoned(*numbers, value=np.nan):
    """Batches of the toy run, of which those of the given numbers (from 1 on) bring a loss that is not finite."""
    inner, samples = toy_run.shared_step(), []
    fresh = iter(toy_run.make_batches())
    for number in range(1, max(numbers) + 1):
        batch = next(fresh).batch
        if number in numbers:
            samples.append(batch["x"].tobytes())

    def place(batch):
        bad = batch["x"].tobytes() in samples
        return jax.device_put({**batch, "y": batch["y"] * np.float32(value if bad else 1.0)})

    return {"step": inner, "place": place}


def without(*numbers):
    """The toy run's data as if the batches of the given numbers had never been in it."""
    fresh = iter(toy_run.make_batches())
    kept = [batch for number in range(1, 60) for batch in [next(fresh)] if number not in numbers]
    return grain.MapDataset.source(kept).to_iter_dataset()


def assert_same_course(left, right):
    """Two folders' runs are the same, but for the numbers of their batches and for time."""
    for stage in ("toy", "toy/valid"):
        lines = [[], []]
        for folder, out in zip((left, right), lines, strict=True):
            for line in toy_run.lines_of(folder, stage):
                out.append({key: value for key, value in line.items() if key not in ("time", "rows_per_s")})
        assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("steps", "bad", "never"),
    [
        (1, [7], [7]),
        (1, [1], [1]),  # the very first step
        (1, [7, 8], [7, 8]),  # the batch that takes its place is bad, too
        (3, [9], [7, 8, 9]),
        (3, [2], [1, 2]),  # fewer steps than are to be taken back
        (3, [9, 11], [6, 7, 8, 9, 10, 11]),  # the second fault lies in the steps after the first rollback
        (8, [12], [5, 6, 7, 8, 9, 10, 11, 12]),  # further back than the newest checkpoint, at 10
    ],
)
def test_a_rolled_back_run_is_the_run_on_data_without_those_batches(tmp_path, capsys, steps, bad, never):
    plan = dataclasses.replace(toy_run.PLAN, faults=dataclasses.replace(ROLLBACK, rollback_steps=steps))
    result = toy_run.run(tmp_path / "poisoned", plan=plan, **poisoned(*bad))
    told = capsys.readouterr().err
    clean = toy_run.run(tmp_path / "clean", plan=plan, batches=without(*never))
    toy_run.assert_same_bits(result.state, clean.state)
    assert (result.best_step, result.best_metrics) == (clean.best_step, clean.best_metrics)
    assert_same_course(tmp_path / "poisoned", tmp_path / "clean")
    assert told.count("Rolled back") == len(bad)
    for number in bad:
        assert f"batch {number}; samples" in told


def test_a_rolled_back_run_that_is_stopped_and_resumed_is_the_same(tmp_path):
    plan = dataclasses.replace(toy_run.PLAN, faults=dataclasses.replace(ROLLBACK, rollback_steps=3))
    for folder, moments in (("broken", (5, 6, 8)), ("alone", ())):
        for moment in moments:  # before the fault at step 7, in the steps that are taken again, and after them
            hooks = poisoned(7)
            inner, taken = hooks["step"], []

            def step(state, batch, inner=inner, taken=taken, moment=moment):
                taken.append(int(jax.device_get(state.step)))
                if taken[-1] == moment and (moment < 7 or max(taken) > 7):
                    toy_run.sigterm()
                return inner(state, batch)

            with pytest.raises(Preempted):
                toy_run.run(tmp_path / folder, plan=plan, **{**hooks, "step": step})
        result = toy_run.run(tmp_path / folder, plan=plan, **poisoned(7))
    assert_same_course(tmp_path / "broken", tmp_path / "alone")
    (tmp_path / "alone" / "checkpoints" / "skipped.json").rename(tmp_path / "skipped.json")
    assert json.loads((tmp_path / "skipped.json").read_text())["skips"] == {"4": 3}
    assert result.step > 7


def test_a_fault_that_does_not_come_again_is_skipped_all_the_same_by_a_resumed_run(tmp_path):
    """As of a bit that flipped in the chip: the file remembers what the data cannot tell again."""
    plan = dataclasses.replace(toy_run.PLAN, faults=ROLLBACK)
    hooks = poisoned(7)
    inner = hooks["step"]

    def step(state, batch):
        if int(jax.device_get(state.step)) == 8:
            toy_run.sigterm()
        return inner(state, batch)

    with pytest.raises(Preempted):
        toy_run.run(tmp_path / "broken", plan=plan, step=step, place=hooks["place"])
    result = toy_run.run(tmp_path / "broken", plan=plan)
    clean = toy_run.run(tmp_path / "clean", plan=plan, batches=without(7))
    toy_run.assert_same_bits(result.state, clean.state)


def test_rollbacks_have_an_end_and_what_cannot_be_taken_back_is_said(tmp_path):
    plan = dataclasses.replace(toy_run.PLAN, faults=dataclasses.replace(ROLLBACK, max_rollbacks=2))
    with pytest.raises(FaultError, match=r"step 5, batch 7;.*It comes after 2 rollbacks, as many as allowed"):
        toy_run.run(tmp_path / "many", plan=plan, **poisoned(5, 6, 7))
    stopping = dataclasses.replace(toy_run.PLAN, patience=0)
    with pytest.raises(FaultError, match=r"the newest checkpoint, 10, is kept.*faults.action=rollback passes over"):
        toy_run.run(tmp_path / "late", plan=stopping, **poisoned(12))
    far = dataclasses.replace(stopping, faults=dataclasses.replace(ROLLBACK, rollback_steps=12))
    with pytest.raises(FaultError, match="To take 12 steps back, an older one is needed"):
        toy_run.run(tmp_path / "late", plan=far, **poisoned(12))
    near = dataclasses.replace(stopping, faults=ROLLBACK)  # what a user does who is stopped by a fault
    assert toy_run.run(tmp_path / "late", plan=near, **poisoned(12)).step == 24


def test_an_exploding_loss_is_a_fault(tmp_path):
    with pytest.raises(FaultError, match=r"loss is .*e\+\d+, beyond faults.max_loss=1000 in step 5, batch 5; samples"):
        toy_run.run(tmp_path, plan=toy_run.SHORT, **poisoned(5, value=1e4))


def test_rolling_back_costs_nothing_where_nothing_goes_wrong(tmp_path):
    """The steps, the reads and the writes are those of a run that would stop; one save more, before the first step."""
    events = {}
    for action in ("stop", "rollback"):
        seen = events[action] = []
        inner = toy_run.make_step()

        def step(state, batch, inner=inner, seen=seen):
            seen.append("step")
            return inner(state, batch)

        plan = dataclasses.replace(toy_run.SHORT, faults=FaultConfig(action=action))
        toy_run.run(tmp_path / action, plan=plan, step=step, on_save=lambda at, seen=seen: seen.append(f"save {at}"))
        assert inner._cache_size() == 1
    assert events["rollback"] == ["save 0", *events["stop"]]
