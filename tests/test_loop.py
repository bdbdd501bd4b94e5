"""The one training loop: its order, its late reading, its faults, and its stops."""

import dataclasses
import json
import os
import signal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_run

from wpauc_jax.checkpoint import BestCheckpoint, Checkpoints, load_best
from wpauc_jax.config import FaultConfig
from wpauc_jax.loop import Plan, spread
from wpauc_jax.termination import PREEMPTED_EXIT_CODE, Preempted
from wpauc_jax.watch import FaultError
from wpauc_jax.writers import MetricWriter, read_metrics

SHORT = Plan(total_steps=6, evals=2, saves=3, select="closeness")


def lines_of(folder, stage="toy"):
    return read_metrics(folder / "metrics.jsonl", stage)


def saved_steps(folder):
    with Checkpoints(folder / "checkpoints", meta=toy_run.META) as checkpoints:
        return checkpoints.steps()


def assert_same_bits(left, right):
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), left, right)


def test_spread_is_even_and_ends_at_the_end():
    assert spread(24, 8) == {3, 6, 9, 12, 15, 18, 21, 24}
    assert spread(10, 3) == {3, 7, 10}
    assert spread(3, 8) == {1, 2, 3}
    assert spread(5, 0) == spread(0, 5) == frozenset()


def test_the_loop_computes_what_plain_steps_compute(tmp_path):
    plan = Plan(total_steps=12, saves=3)
    result = toy_run.run(tmp_path, plan=plan, evaluate=None)
    step, state, batches = toy_run.make_step(), toy_run.make_state(), iter(toy_run.make_batches())
    losses = []
    for _ in range(12):
        state, metrics = step(state, next(batches))
        losses.append(float(metrics["loss"]))
    assert_same_bits(result.state, state)
    assert [line["loss"] for line in lines_of(tmp_path)] == losses
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(1, 13))
    assert not result.stopped_early and result.best_step == 12  # without validations the last counts as the best


def test_order_is_evaluate_save_batch_step_and_metrics_come_one_step_late(tmp_path, monkeypatch):
    events = []
    inner, write = toy_run.shared_step(), MetricWriter.write

    def step(state, batch):
        events.append("step")
        return inner(state, batch)

    def place(batch):
        events.append("batch")
        return jax.device_put(batch)

    def evaluate(params):
        events.append("evaluate")
        return toy_run.evaluate(params)

    def recorded_write(self, stage, step, values):
        events.append(f"write {stage} {step}")
        write(self, stage, step, values)

    monkeypatch.setattr(MetricWriter, "write", recorded_write)
    plan = Plan(total_steps=4, evals=2, saves=2, select="closeness", eval_at_start=True)

    def on_save(step):
        events.append(f"save {step}")

    toy_run.run(tmp_path, plan=plan, step=step, evaluate=evaluate, on_save=on_save, place=place)
    assert events == [
        *("evaluate", "write toy/valid 0"),
        *("batch", "step", "batch"),  # the second batch is placed while the first step runs
        *("step", "batch", "write toy 1"),  # the first step's metrics are read while the second runs
        *("write toy 2", "evaluate", "write toy/valid 2", "save 2"),
        *("step", "batch", "step", "write toy 3"),
        *("write toy 4", "evaluate", "write toy/valid 4", "save 4"),
    ]


def test_a_checkpoint_holds_the_place_of_the_next_batch_though_one_is_read_ahead(tmp_path):
    inner, taken = toy_run.shared_step(), []

    def place(batch):
        taken.append(batch["sample"])
        return jax.device_put(batch)

    def step(state, batch):
        if len(taken) == 4:
            sigterm()
        return inner(state, batch)

    with pytest.raises(Preempted):
        toy_run.run(tmp_path, plan=Plan(total_steps=9), evaluate=None, step=step, place=place)
    (saved,) = saved_steps(tmp_path)
    later = iter(toy_run.make_batches())
    with Checkpoints(tmp_path / "checkpoints", meta=toy_run.META) as checkpoints:
        later.set_state(checkpoints.restore(toy_run.make_state()).position)
    assert len(taken) == saved + 1
    np.testing.assert_array_equal(next(later)["sample"], taken[saved])


def test_one_compilation_for_a_run_with_evaluations_and_saves_and_for_a_resumed_one(tmp_path):
    first, second = toy_run.make_step(), toy_run.make_step()

    def dies_at_9(state, batch):
        if int(jax.device_get(state.step)) == 9:
            raise KeyboardInterrupt
        return first(state, batch)

    with pytest.raises(KeyboardInterrupt):
        toy_run.run(tmp_path, step=dies_at_9)
    result = toy_run.run(tmp_path, step=second)
    assert result.step > 9
    assert first._cache_size() == second._cache_size() == 1


def test_a_step_that_moves_data_by_itself_is_refused(tmp_path):
    inner = toy_run.shared_step()

    def step(state, batch):
        return inner(state, {**batch, "x": np.asarray(toy_run.X[:4])})  # a NumPy array handed to a compiled function

    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        toy_run.run(tmp_path, plan=SHORT, step=step)


def test_pairs_become_means_and_arrays_stay(tmp_path):
    toy_run.run(tmp_path, plan=SHORT)
    fresh = iter(toy_run.make_batches())
    first_batch = next(fresh)
    errors = -first_batch["y"]  # of the zero parameters
    small = np.abs(errors) < 0.5
    line = lines_of(tmp_path)[0]
    np.testing.assert_allclose(line["absolute_errors"], np.abs(errors), rtol=1e-6)
    if small.any():
        np.testing.assert_allclose(line["small_error"], errors[small].mean(), rtol=1e-6)
    else:
        assert line["small_error"] is None


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_samples(tmp_path):
    inner = toy_run.make_step()

    def step(state, batch):
        poisoned = {**batch, "y": batch["y"] * jnp.where(state.step == 4, jnp.inf, 1.0)}
        return inner(state, poisoned)

    fresh = iter(toy_run.make_batches())
    fifth = [next(fresh) for _ in range(5)][4]["sample"].tolist()
    with pytest.raises(FaultError) as caught:
        toy_run.run(tmp_path, plan=dataclasses.replace(SHORT, saves=6), step=jax.jit(step))
    assert f"toy: loss is inf in step 5, batch 5; samples {fifth}" in str(caught.value)
    assert "the newest checkpoint, 4, is kept" in str(caught.value)
    assert saved_steps(tmp_path) == [3, 4]  # nothing is saved from step 5 on
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4]


def test_the_best_is_kept_and_patience_stops(tmp_path):
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.9])  # an equal score is not a better one
    seen = []

    def evaluate(params):
        seen.append(np.asarray(params["w"]).copy())
        return {"score": next(scores)}

    plan = Plan(total_steps=10, evals=5, saves=2, patience=2, select="score")
    result = toy_run.run(tmp_path, plan=plan, evaluate=evaluate)
    assert result.stopped_early and result.step == 8
    assert (result.best_step, result.best_metrics) == (4, {"score": 0.5})
    params, found = load_best(tmp_path / "best", toy_run.make_state().params)
    assert (found.step, found.metrics) == (4, {"score": 0.5})
    np.testing.assert_array_equal(params["w"], seen[1])
    assert [(line["step"], line["score"]) for line in lines_of(tmp_path, "toy/valid")] == [
        (2, 0.1),
        (4, 0.5),
        (6, 0.4),
        (8, 0.5),
    ]


def test_what_a_killed_run_found_after_its_last_checkpoint_is_found_anew(tmp_path):
    with BestCheckpoint(tmp_path / "best") as best:
        best.save(5, {"w": jnp.full(toy_run.WIDTH, 9.0), "b": jnp.ones(())}, {"closeness": 9.0})
    result = toy_run.run(tmp_path, plan=dataclasses.replace(SHORT, total_steps=4))
    assert load_best(tmp_path / "best", toy_run.make_state().params)[1].step == result.best_step < 5


def test_no_patience_means_to_the_end(tmp_path):
    scores = iter([0.5, 0.4, 0.3, 0.2, 0.1])
    plan = Plan(total_steps=10, evals=5, select="score")
    result = toy_run.run(tmp_path, plan=plan, evaluate=lambda _: {"score": next(scores)})
    assert result.step == 10 and not result.stopped_early and result.best_step == 2


@pytest.mark.parametrize(
    ("evaluate", "error", "message"),
    [
        (lambda _: {"recall@5": 0.5}, ValueError, r"select='closeness' is not measured; choose one of \['recall@5'\]"),
        (lambda _: {"closeness": float("nan")}, FaultError, "validation closeness is nan after step 3"),
        (None, ValueError, "plan.evals=2 needs an evaluate function"),
    ],
)
def test_faulty_validation_is_explained(tmp_path, evaluate, error, message):
    with pytest.raises(error, match=message):
        toy_run.run(tmp_path, plan=SHORT, evaluate=evaluate)


def test_data_that_end_too_soon_are_explained(tmp_path):
    row = {"x": toy_run.X[0], "y": toy_run.Y[0]}
    batches = grain.MapDataset.source([row] * 8).batch(4).to_iter_dataset()
    with pytest.raises(ValueError, match="the data ended after step 2; give a pipeline that repeats"):
        toy_run.run(tmp_path, plan=SHORT, batches=batches)


def test_another_runs_checkpoint_is_refused_before_anything_is_touched(tmp_path, monkeypatch):
    toy_run.run(tmp_path, plan=SHORT)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(toy_run, "META", {"width": 99})
    with pytest.raises(ValueError, match="width: 6 then, 99 now"):
        toy_run.run(tmp_path, plan=SHORT)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def sigterm():
    os.kill(os.getpid(), signal.SIGTERM)


def compare_after_sigterm(tmp_path, expected_step, plan=toy_run.PLAN, **hooks):
    """Stops a run by SIGTERM, checks what it leaves, goes on, and compares with a run that was left alone."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as caught:
        toy_run.run(tmp_path / "stopped", plan=plan, **hooks)
    assert caught.value.code == PREEMPTED_EXIT_CODE == 75
    assert signal.getsignal(signal.SIGTERM) is handler
    assert saved_steps(tmp_path / "stopped")[-1] == expected_step
    again = toy_run.run(tmp_path / "stopped", plan=plan)
    alone = toy_run.run(tmp_path / "alone", plan=plan)
    assert_same_bits(again.state, alone.state)
    assert dataclasses.replace(again, state=None) == dataclasses.replace(alone, state=None)
    for stage in ("toy", "toy/valid"):
        assert [line["step"] for line in lines_of(tmp_path / "stopped", stage)] == [
            line["step"] for line in lines_of(tmp_path / "alone", stage)
        ]


def test_sigterm_in_a_step_saves_after_it(tmp_path):
    inner = toy_run.shared_step()

    def step(state, batch):
        if int(jax.device_get(state.step)) == 7:
            sigterm()
        return inner(state, batch)

    compare_after_sigterm(tmp_path, 8, step=step)


@pytest.mark.parametrize(
    ("count", "patience"), [(3, 3), (8, 3), (9, 0)], ids=["on the way", "where patience ends", "at the end"]
)
def test_sigterm_gives_up_an_evaluation_and_the_resumed_run_does_it_again(tmp_path, count, patience):
    calls, completed = [], []

    def evaluate(params):
        calls.append(params)
        if len(calls) == count:
            sigterm()
            completed.append("never reached: the signal comes before the next line")
        return toy_run.evaluate(params)

    plan = dataclasses.replace(toy_run.PLAN, patience=patience)
    compare_after_sigterm(tmp_path, 3 * (count - 1), plan, evaluate=evaluate)
    assert not completed


ROLLBACK = FaultConfig(action="rollback")


def poisoned(*numbers, value=np.nan):
    """Batches of the toy run, of which those of the given numbers (from 1 on) bring a loss that is not finite."""
    inner, samples = toy_run.shared_step(), []
    fresh = iter(toy_run.make_batches())
    for number in range(1, max(numbers) + 1):
        batch = next(fresh)
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
            for line in lines_of(folder, stage):
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
    assert_same_bits(result.state, clean.state)
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
                    sigterm()
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
            sigterm()
        return inner(state, batch)

    with pytest.raises(Preempted):
        toy_run.run(tmp_path / "broken", plan=plan, step=step, place=hooks["place"])
    result = toy_run.run(tmp_path / "broken", plan=plan)
    clean = toy_run.run(tmp_path / "clean", plan=plan, batches=without(7))
    assert_same_bits(result.state, clean.state)


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
        toy_run.run(tmp_path, plan=SHORT, **poisoned(5, value=1e4))


def test_rolling_back_costs_nothing_where_nothing_goes_wrong(tmp_path):
    """The steps, the reads and the writes are those of a run that would stop; one save more, before the first step."""
    events = {}
    for action in ("stop", "rollback"):
        seen = events[action] = []
        inner = toy_run.make_step()

        def step(state, batch, inner=inner, seen=seen):
            seen.append("step")
            return inner(state, batch)

        plan = dataclasses.replace(SHORT, faults=FaultConfig(action=action))
        toy_run.run(tmp_path / action, plan=plan, step=step, on_save=lambda at, seen=seen: seen.append(f"save {at}"))
        assert inner._cache_size() == 1
    assert events["rollback"] == ["save 0", *events["stop"]]
