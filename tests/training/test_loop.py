"""The one training loop: its order, its late reading, its faults, and its stops."""

import dataclasses
import signal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toy_run
from wpauc_jax.batches.types import Fed, RowIds
from wpauc_jax.runtime.metric_lines import MetricWriter
from wpauc_jax.runtime.termination import PREEMPTED_EXIT_CODE, Preempted
from wpauc_jax.training.checkpoint import BestCheckpoint, Checkpoints, load_best
from wpauc_jax.training.loop import Plan, spread
from wpauc_jax.training.watch import FaultError


def saved_steps(folder):
    with Checkpoints(folder / "checkpoints", meta=toy_run.META) as checkpoints:
        return checkpoints.steps()


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
        state, metrics = step(state, next(batches).batch)
        losses.append(float(metrics["loss"]))
    toy_run.assert_same_bits(result.state, state)
    assert [line["loss"] for line in toy_run.lines_of(tmp_path)] == losses
    assert [line["step"] for line in toy_run.lines_of(tmp_path)] == list(range(1, 13))
    assert not result.stopped_early and result.best_step == 12  # without validations the last counts as the best


@pytest.mark.parametrize("evals", [0, 8])
def test_no_step_leaves_the_first_parameters_as_the_best(tmp_path, evals):
    plan = Plan(total_steps=0, evals=evals, saves=8, patience=3, select="closeness")
    for _ in range(2):  # done, and found done
        result = toy_run.run(tmp_path, plan=plan)
        assert (result.step, result.best_step, result.stopped_early) == (0, 0, False)
        toy_run.assert_same_bits(result.state.params, toy_run.make_state().params)
        trained, best = load_best(tmp_path / "best", toy_run.make_state().params)
        toy_run.assert_same_bits(trained, toy_run.make_state().params)
        assert best.step == 0
    assert not toy_run.lines_of(tmp_path)
    assert [line["step"] for line in toy_run.lines_of(tmp_path, "toy/valid")] == ([0] if evals else [])


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
        taken.append(batch["y"])
        return jax.device_put(batch)

    def step(state, batch):
        if len(taken) == 4:
            toy_run.sigterm()
        return inner(state, batch)

    with pytest.raises(Preempted):
        toy_run.run(tmp_path, plan=Plan(total_steps=9), evaluate=None, step=step, place=place)
    (saved,) = saved_steps(tmp_path)
    later = iter(toy_run.make_batches())
    with Checkpoints(tmp_path / "checkpoints", meta=toy_run.META) as checkpoints:
        later.set_state(checkpoints.restore(toy_run.make_state()).position)
    assert len(taken) == saved + 1
    np.testing.assert_array_equal(next(later).batch["y"], taken[saved])


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
        toy_run.run(tmp_path, plan=toy_run.SHORT, step=step)


def test_pairs_become_means_and_arrays_stay(tmp_path):
    toy_run.run(tmp_path, plan=toy_run.SHORT)
    fresh = iter(toy_run.make_batches())
    first_batch = next(fresh).batch
    errors = -first_batch["y"]  # of the zero parameters
    small = np.abs(errors) < 0.5
    line = toy_run.lines_of(tmp_path)[0]
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
    fifth = [next(fresh) for _ in range(5)][4].ids.sample.tolist()
    with pytest.raises(FaultError) as caught:
        toy_run.run(tmp_path, plan=dataclasses.replace(toy_run.SHORT, saves=6), step=jax.jit(step))
    assert f"toy: loss is inf in step 5, batch 5; samples {fifth}" in str(caught.value)
    assert "the newest checkpoint, 4, is kept" in str(caught.value)
    assert saved_steps(tmp_path) == [3, 4]  # nothing is saved from step 5 on
    assert [line["step"] for line in toy_run.lines_of(tmp_path)] == [1, 2, 3, 4]


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
    assert [(line["step"], line["score"]) for line in toy_run.lines_of(tmp_path, "toy/valid")] == [
        (2, 0.1),
        (4, 0.5),
        (6, 0.4),
        (8, 0.5),
    ]


def test_what_a_killed_run_found_after_its_last_checkpoint_is_found_anew(tmp_path):
    with BestCheckpoint(tmp_path / "best") as best:
        best.save(5, {"w": jnp.full(toy_run.WIDTH, 9.0), "b": jnp.ones(())}, {"closeness": 9.0})
    result = toy_run.run(tmp_path, plan=dataclasses.replace(toy_run.SHORT, total_steps=4))
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
        toy_run.run(tmp_path, plan=toy_run.SHORT, evaluate=evaluate)


def test_data_that_end_too_soon_are_explained(tmp_path):
    fed = Fed({"x": toy_run.X[:4], "y": toy_run.Y[:4]}, RowIds())
    batches = grain.MapDataset.source([fed] * 2).to_iter_dataset()
    with pytest.raises(ValueError, match="the data ended after step 2; give a pipeline that repeats"):
        toy_run.run(tmp_path, plan=toy_run.SHORT, batches=batches)


def test_another_runs_checkpoint_is_refused_before_anything_is_touched(tmp_path, monkeypatch):
    toy_run.run(tmp_path, plan=toy_run.SHORT)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(toy_run, "META", {"width": 99})
    with pytest.raises(ValueError, match="width: 6 then, 99 now"):
        toy_run.run(tmp_path, plan=toy_run.SHORT)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


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
    toy_run.assert_same_bits(again.state, alone.state)
    assert dataclasses.replace(again, state=None) == dataclasses.replace(alone, state=None)
    for stage in ("toy", "toy/valid"):
        assert [line["step"] for line in toy_run.lines_of(tmp_path / "stopped", stage)] == [
            line["step"] for line in toy_run.lines_of(tmp_path / "alone", stage)
        ]


def test_sigterm_in_a_step_saves_after_it(tmp_path):
    inner = toy_run.shared_step()

    def step(state, batch):
        if int(jax.device_get(state.step)) == 7:
            toy_run.sigterm()
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
            toy_run.sigterm()
            completed.append("never reached: the signal comes before the next line")
        return toy_run.evaluate(params)

    plan = dataclasses.replace(toy_run.PLAN, patience=patience)
    compare_after_sigterm(tmp_path, 3 * (count - 1), plan, evaluate=evaluate)
    assert not completed


def test_it_is_said_what_is_done_before_the_first_step(tmp_path, capsys):
    toy_run.run(tmp_path, plan=dataclasses.replace(toy_run.SHORT, eval_at_start=True))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "toy: validating" and said[1].startswith("toy: step 0: closeness")
    assert said[2] == "toy: compiling the TOY step" and said[3].startswith("toy: 4/24 rows")
    assert not any("validating" in line for line in said[1:])
