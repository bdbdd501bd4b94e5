"""The one training loop, for SFT and RL.

An iteration has a fixed order: evaluate, save, take the next batch, step, write.
- The loop evaluates before it saves. So a checkpoint knows what the validation at its step has found.
- It saves before the iterator moves. So a resumed run draws the very batch that would have come next. The loop has
  already read one batch ahead; the position that it saves is the one before that batch.
- It writes last, and one step late. The metrics of a step are read while the next step runs, so reading never leaves
  the device idle. Then it also sees whether a loss is not finite, before anything that follows from it is saved.

A checkpoint holds everything that decides what comes next: the state, the iterator's position, and the validations that
early stopping looks at. Randomness depends on the seed and the step alone. So a run may be killed at any moment. When
it starts again, it takes the same steps and ends with the same parameters, bit for bit.

A rollback works in the same way. The run goes on from a checkpoint before the fault. It takes the good steps again, and
it leaves out the batches that led to the fault.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import jax

from wpauc_jax.config import FaultConfig
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.metric_lines import MetricWriter
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.runtime.termination import Preempted, Termination
from wpauc_jax.training.checkpoint import BestCheckpoint, Checkpoints, Restored
from wpauc_jax.training.feed import Feed
from wpauc_jax.training.ledger import Ledger
from wpauc_jax.training.skips import Skips
from wpauc_jax.training.storage import CheckpointError
from wpauc_jax.training.watch import FaultError, Watch


class State(Protocol):
    """What the loop needs of a training state: a pytree that has a count of updates, and parameters that answer."""

    @property
    def step(self) -> jax.Array:
        """int32[], updates done."""

    @property
    def answering(self) -> Any:
        """The parameters that `evaluate` takes and that are kept as the best."""


S = TypeVar("S", bound=State)
_VALIDATES = "validating"


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a stage evaluates, saves and stops.

    Evaluations and saves are spread evenly over the steps, the last of each at the end. A save at the end is made in
    any case.
    """

    total_steps: int
    evals: int = 0  # validations; 0: none, and the last parameters count as the best
    saves: int = 0  # resumable checkpoints
    patience: int = 0  # validations in a row without a better one before stopping; 0: never stop early
    select: str = ""  # the validation metric, larger is better, by which the best parameters are kept
    eval_at_start: bool = False  # also before the first step, so that training may find nothing better
    faults: FaultConfig = dataclasses.field(default_factory=FaultConfig)

    @functools.cached_property
    def eval_steps(self) -> frozenset[int]:
        """The counts of updates after which to evaluate."""
        start = {0} if (self.eval_at_start or not self.total_steps) and self.evals else set()
        return spread(self.total_steps, self.evals) | start

    @functools.cached_property
    def save_steps(self) -> frozenset[int]:
        """The counts of updates after which to save; where faults are rolled back also before the first."""
        start = {0} if FAULT_ACTIONS[self.faults.action].needs_a_start else set()
        return spread(self.total_steps, self.saves) | {self.total_steps} | start


@dataclasses.dataclass(frozen=True)
class Record:
    """What a stage has found so far; saved with every checkpoint."""

    evaluated: int = -1  # the step of the last validation
    best_step: int = -1
    best_metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    bad_evals: int = 0  # validations since the best one
    finished: bool = False


@dataclasses.dataclass(frozen=True)
class FitResult(Generic[S]):
    """How a stage ended."""

    state: S
    step: int  # updates done
    best_step: int
    best_metrics: dict[str, float]  # of the parameters kept as the best; empty without validations
    stopped_early: bool


def spread(total: int, count: int) -> frozenset[int]:
    """`count` steps spread evenly over 1..total, the last at `total`; fewer where total < count."""
    return frozenset(max(1, round(total * i / count)) for i in range(1, count + 1)) if total else frozenset()


def fit(
    name: str,
    state: S,
    step: Callable[[S, Any], tuple[S, Mapping[str, Any]]],
    batches: Any,
    *,
    plan: Plan,
    checkpoints: Checkpoints,
    best: BestCheckpoint,
    writer: MetricWriter,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    rows_per_step: int = 1,
    unit: str = "it",
    place: Callable[[Any], Any] = jax.device_put,
) -> FitResult[S]:
    """Trains one stage to its end, going on from the newest checkpoint if there is one.

    Args:
      name: the stage, as it stands in the metric lines; validations are lines of stage "<name>/valid".
      state: the first state. It is donated: do not use it afterwards.
      step: a jitted function (state, batch) -> (state, metrics) which donates its state. Metrics are device scalars or
        small arrays, or (sum, count) pairs of them. It may not move anything between host and device by itself.
      batches: a Grain IterDataset or DatasetIterator of `Fed` batches, long enough for every step.
      plan: when to evaluate, save and stop.
      checkpoints: where resumable states go. Neither this nor `best` is closed.
      best: where the best parameters go.
      writer: where metric lines go.
      evaluate: params -> validation metrics; called where the plan says, between steps. Needed if plan.evals > 0.
      rows_per_step: rows in a batch, for the rate.
      unit: what a row is ("users").
      place: puts a batch's part for the step on the device or devices.

    Raises:
      FaultError: a loss is not finite or exploded; names the step and the batch's samples.
      CheckpointError: the newest checkpoint is another run's, none of them is whole, or one cannot be written.
      Preempted: SIGTERM came; the state is saved.
    """
    if plan.evals and evaluate is None:
        raise ValueError(f"{name}: plan.evals={plan.evals} needs an evaluate function")
    skips = Skips(checkpoints.directory / "skipped.json", writes=is_main_process())
    with Termination() as stop:
        stage = _Stage(name, plan, step, evaluate, checkpoints, best, writer, stop, rows_per_step, unit)
        while True:
            feed = Feed(batches, place, skips)
            try:
                return stage.run(state, feed)
            except FaultError as fault:
                FAULT_ACTIONS[plan.faults.action].take(fault, plan.faults, checkpoints, skips)
                stage.notes.append(f"{fault}. Rolled back; the batches that led to it are passed over")
            except BaseException:
                with contextlib.suppress(CheckpointError):  # a save in progress needs the writers, which end now
                    checkpoints.wait()
                raise


def _stop(fault: FaultError, config: FaultConfig, checkpoints: Checkpoints, skips: Skips) -> NoReturn:
    """Raises the fault again. The message adds what the user can do."""
    raise FaultError(
        f"{_help(fault, checkpoints)} faults.action=rollback passes over such batches.", fault.step
    ) from fault


def _roll_back(fault: FaultError, config: FaultConfig, checkpoints: Checkpoints, skips: Skips) -> None:
    """Goes back before the fault: removes later checkpoints and notes which batches to leave out.

    If that is not possible, it raises the fault again. The message adds what the user can do.
    """
    steps, help = checkpoints.steps(), _help(fault, checkpoints)
    after = max(fault.step - config.rollback_steps, 0)
    if len(skips.faults) >= config.max_rollbacks:
        raise FaultError(f"{help} It comes after {len(skips.faults)} rollbacks, as many as allowed.", fault.step)
    if min(steps, default=after + 1) > after:
        raise FaultError(f"{help} To take {config.rollback_steps} steps back, an older one is needed.", fault.step)
    checkpoints.rewind(after)  # this comes first: a kill between the two lines loses nothing
    skips.add(fault.step, after, str(fault))


def _help(fault: FaultError, checkpoints: Checkpoints) -> str:
    steps = checkpoints.steps()
    kept = f"the newest checkpoint, {max(steps)}, is kept" if steps else "there is no checkpoint yet"
    return f"{fault}. A lower learning rate or a tighter max_grad_norm may help; {kept}."


@dataclasses.dataclass(frozen=True)
class FaultAction:
    """What the loop does when a step goes wrong."""

    take: Callable[
        [FaultError, FaultConfig, Checkpoints, Skips], None
    ]  # it raises FaultError if the stage cannot go on
    needs_a_start: bool  # whether the state before the first step is saved, so that one can go back to it


# By `faults.action`.
FAULT_ACTIONS = {
    "stop": FaultAction(_stop, needs_a_start=False),
    "rollback": FaultAction(_roll_back, needs_a_start=True),
}


def _how_it_goes_on(restored: Restored[Any], plan: Plan) -> list[str]:
    changes = "; ".join(restored.changes)
    schedule = f"{changes}: from here on the learning rate follows the schedule of {plan.total_steps} steps"
    goes_on = f"goes on after step {restored.step} of {plan.total_steps}"
    return [*restored.notes, *([schedule] if changes else []), goes_on]


def _result(state: S, done: int, plan: Plan, record: Record) -> FitResult[S]:
    return FitResult(state, done, record.best_step, dict(record.best_metrics), done < plan.total_steps)


@dataclasses.dataclass
class _Stage:
    """What all runs of a stage share. The first run is one; each rollback begins another."""

    name: str
    plan: Plan
    step: Callable[[Any, Any], tuple[Any, Mapping[str, Any]]]
    evaluate: Callable[[Any], Mapping[str, float]] | None
    checkpoints: Checkpoints
    best: BestCheckpoint
    writer: MetricWriter
    stop: Termination
    rows_per_step: int
    unit: str
    notes: list[str] = dataclasses.field(default_factory=list)  # what to tell when the progress bar is there

    @property
    def compiles(self) -> str:
        """What a first step does for most of its time, in words."""
        return f"compiling the {self.name.upper()} step"

    def run(self, state: S, feed: Feed) -> FitResult[S]:
        """Trains from the newest checkpoint, or from `state`, to the end. Raises FaultError if a step goes wrong."""
        plan, name = self.plan, self.name
        restored = self.checkpoints.restore(state, self._best_is_damaged)
        if restored:
            state, record, done = restored.state, Record(**restored.record), restored.step
            feed.go_to(restored.position)
            if done > plan.total_steps:
                raise CheckpointError(
                    f"{name} has taken {done} steps already, more than the {plan.total_steps} asked for now; raise "
                    f"{name}.steps (or {name}.epochs), or use another work directory"
                )
            if restored.changes and done < plan.total_steps:  # more steps than it was to take: the end is not the end
                record = dataclasses.replace(record, finished=False, bad_evals=0)
        else:
            record, done = Record(), int(jax.device_get(state.step))
        if record.finished:
            return _result(state, done, plan, record)
        self.writer.rewind(name, done if restored else -1)
        self.writer.rewind(f"{name}/valid", record.evaluated)
        self.best.rewind(record.best_step)
        rows = (plan.total_steps * self.rows_per_step, done * self.rows_per_step)
        first = _VALIDATES if done in plan.eval_steps and done > record.evaluated else self.compiles
        with Progress(rows[0], name, rows[1], unit=self.unit, doing=first, enabled=is_main_process()) as progress:
            self.notes += _how_it_goes_on(restored, plan) if restored else []
            while self.notes:
                progress.note(self.notes.pop(0))
            keeper = _Keeper(self, progress, record, done if restored else -1)
            ledger = Ledger(name, Watch(plan.faults), self.writer, progress, self.rows_per_step, self.unit)
            return self._steps(state, done, feed, keeper, ledger)

    def _steps(self, state: S, done: int, feed: Feed, keeper: "_Keeper", ledger: Ledger) -> FitResult[S]:
        plan, began = self.plan, done
        while True:
            if self.stop.reached() or done in plan.eval_steps or done in plan.save_steps:
                ledger.read()
                if keeper.evaluate_and_save(state, done, feed):
                    return _result(state, done, plan, keeper.record)
                ledger.restart_clock()
            batch = feed.take(done)
            if done == began:
                keeper.progress.doing(self.compiles)
            with jax.transfer_guard("disallow"):
                state, metrics = self.step(state, batch.batch)
            done += 1
            if done < plan.total_steps:
                feed.prefetch(done)
            ledger.read()
            ledger.add(done, batch, metrics)

    def _best_is_damaged(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with the best parameters that a checkpoint refers to, or None if they are whole."""
        step = record["best_step"]
        fault = self.best.damage(step) if step >= 0 else None
        return f"it needs {self.best.directory / str(step)}, of which {fault}" if fault else None


@dataclasses.dataclass
class _Keeper:
    """The evaluate and save parts of an iteration, and the record they keep."""

    stage: _Stage
    progress: Progress
    record: Record
    saved: int  # the step of the newest checkpoint, -1 without one

    def evaluate_and_save(self, state: State, done: int, feed: Feed) -> bool:
        """Does what is due after `done` updates; True when the stage is finished. Raises Preempted after SIGTERM."""
        plan, stop = self.stage.plan, self.stage.stop
        evaluated = self._evaluate(state, done)
        exhausted = 0 < plan.patience <= self.record.bad_evals
        finished = evaluated and (done >= plan.total_steps or exhausted)
        stopping = stop.requested
        if finished or ((stopping or done in plan.save_steps) and done != self.saved):
            self._save(state, done, feed, finished)
        if finished or stopping:
            self.stage.checkpoints.wait()
        if stopping:
            self.progress.note(f"saved after step {done} on SIGTERM; start the same command again to go on")
            raise Preempted
        return finished

    def _evaluate(self, state: State, done: int) -> bool:
        """Validates if that is due. False if SIGTERM came before the validation was done."""
        evaluate = self.stage.evaluate
        if evaluate is None or done not in self.stage.plan.eval_steps or done <= self.record.evaluated:
            return True
        self.progress.doing(_VALIDATES)
        metrics = self.stage.stop.interruptible(functools.partial(evaluate, state.answering))
        if metrics is None:
            return False
        self._select(state, done, {key: float(value) for key, value in metrics.items()})
        return True

    def _save(self, state: State, done: int, feed: Feed, finished: bool) -> None:
        """Saves a checkpoint. It refers to the best parameters, so it becomes whole only when these are on disk."""
        best, checkpoints = self.stage.best, self.stage.checkpoints
        if finished:
            if self.record.best_step < 0:
                best.save(done, state.answering, {})
                self.record = dataclasses.replace(self.record, best_step=done)
            self.record = dataclasses.replace(self.record, finished=True)
        best.prune({record["best_step"] for record in checkpoints.records().values()})
        record = dataclasses.asdict(self.record)
        checkpoints.save(done, state, feed.position(), record, before_seal=self._reach_the_disk)
        self.saved = done

    def _reach_the_disk(self) -> None:
        self.stage.writer.sync()
        self.stage.best.wait()

    def _select(self, state: State, done: int, metrics: dict[str, float]) -> None:
        name, select = self.stage.name, self.stage.plan.select
        if select not in metrics:
            raise ValueError(f"{name}: plan.select={select!r} is not measured; choose one of {sorted(metrics)}")
        value = metrics[select]
        if not math.isfinite(value):
            raise FaultError(f"{name}: validation {select} is {value} after step {done}", done)
        better = not self.record.best_metrics or value > self.record.best_metrics[select]
        self.stage.writer.write(f"{name}/valid", done, metrics)
        self.progress.note(f"step {done}: {select} {value:.4f}" + (", the best so far" if better else ""))
        if better:
            self.stage.best.save(done, state.answering, metrics)
            self.record = Record(evaluated=done, best_step=done, best_metrics=metrics)
        else:
            self.record = dataclasses.replace(self.record, evaluated=done, bad_evals=self.record.bad_evals + 1)
