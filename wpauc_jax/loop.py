"""The one training loop, for SFT and RL.

The order in an iteration is fixed: evaluate, save, next batch, step, write.
- Evaluate comes before save, so that a checkpoint knows what the validation at its step found.
- Save comes before the iterator moves, so that a resumed run draws the very batch that would have come next. (The loop
  holds one batch ahead; what is saved is the iterator's place before that batch.)
- Write comes last and one step late: the metrics of a step are read while the next one runs, so that reading never
  leaves the device idle. A loss that is not finite stops the run then, before anything is saved from it.

Everything that decides what comes next is in a checkpoint: the state, the iterator's place, and the record of
validations that early stopping looks at. Randomness is a function of the seed and the step. So a run that is killed at
any moment and started again takes the same steps and ends with the same parameters, bit for bit.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import jax

from wpauc_jax.checkpoint import BestCheckpoint, Checkpoints
from wpauc_jax.distributed import is_main_process
from wpauc_jax.feed import Batch, Feed
from wpauc_jax.ledger import Ledger, NonFiniteError
from wpauc_jax.termination import Preempted, Termination
from wpauc_jax.writers import MetricWriter, Progress


class State(Protocol):
    """What the loop asks of a training state: a pytree with a count of updates and parameters."""

    @property
    def step(self) -> jax.Array:
        """int32[], updates done."""

    @property
    def params(self) -> Any:
        """What `evaluate` takes."""


S = TypeVar("S", bound=State)


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
    must_be_finite: tuple[str, ...] = ("loss", "grad_norm")  # metrics that stop the run otherwise

    @functools.cached_property
    def eval_steps(self) -> frozenset[int]:
        """The counts of updates after which to evaluate."""
        start = {0} if self.eval_at_start and self.evals else set()
        return spread(self.total_steps, self.evals) | start

    @functools.cached_property
    def save_steps(self) -> frozenset[int]:
        """The counts of updates after which to save."""
        return spread(self.total_steps, self.saves) | {self.total_steps}


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
    place: Callable[[Batch], Any] = jax.device_put,
) -> FitResult[S]:
    """Trains one stage to its end, going on from the newest checkpoint if there is one.

    Args:
      name: the stage, as it stands in the metric lines; validations are lines of stage "<name>/valid".
      state: the first state. It is donated: do not use it afterwards.
      step: a jitted function (state, batch) -> (state, metrics) which donates its state. Metrics are device scalars or
        small arrays, or (sum, count) pairs of them. It may not move anything between host and device by itself.
      batches: a Grain IterDataset or DatasetIterator of dictionaries of NumPy arrays, long enough for every step.
      plan: when to evaluate, save and stop.
      checkpoints: where resumable states go. Neither this nor `best` is closed.
      best: where the best parameters go.
      writer: where metric lines go.
      evaluate: params -> validation metrics; called where the plan says, between steps. Needed if plan.evals > 0.
      rows_per_step: rows in a batch, for the rate.
      unit: what a row is ("users").
      place: puts a batch on the device or devices.

    Raises:
      NonFiniteError: names the step and the batch's samples.
      CheckpointError: the newest checkpoint is another run's.
      Preempted: SIGTERM came; the state is saved.
    """
    if plan.evals and evaluate is None:
        raise ValueError(f"{name}: plan.evals={plan.evals} needs an evaluate function")
    feed = Feed(batches, place)
    restored = checkpoints.restore(state, feed)
    if restored:
        state, record, done = restored.state, Record(**restored.record), restored.step
    else:
        record, done = Record(), int(jax.device_get(state.step))
    if record.finished:
        return _result(state, done, plan, record)
    writer.rewind(name, done if restored else -1)
    writer.rewind(f"{name}/valid", record.evaluated)
    best.rewind(record.best_step)
    total, start = plan.total_steps * rows_per_step, done * rows_per_step
    with (
        Termination() as stop,
        Progress(total, name, start, unit=unit, enabled=is_main_process()) as progress,
    ):
        if restored:
            progress.note(f"goes on after step {done} of {plan.total_steps}")
        ledger = Ledger(name, plan.must_be_finite, writer, progress, rows_per_step, unit)
        run = _Run(name, plan, evaluate, checkpoints, best, writer, progress, stop, record, done if restored else -1)
        while True:
            if stop.reached() or done in plan.eval_steps or done in plan.save_steps:
                ledger.read()
                if run.evaluate_and_save(state, done, feed):
                    return _result(state, done, plan, run.record)
                ledger.restart_clock()
            batch = feed.take(done)
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, batch.placed)
            done += 1
            if done < plan.total_steps:
                feed.prefetch()
            ledger.read()
            ledger.add(done, batch.host, metrics)


def _result(state: S, done: int, plan: Plan, record: Record) -> FitResult[S]:
    return FitResult(state, done, record.best_step, dict(record.best_metrics), done < plan.total_steps)


@dataclasses.dataclass
class _Run:
    """The evaluate and save parts of an iteration, and the record they keep."""

    name: str
    plan: Plan
    evaluate: Callable[[Any], Mapping[str, float]] | None
    checkpoints: Checkpoints
    best: BestCheckpoint
    writer: MetricWriter
    progress: Progress
    stop: Termination
    record: Record
    saved: int  # the step of the newest checkpoint, -1 without one

    def evaluate_and_save(self, state: State, done: int, feed: Feed) -> bool:
        """Does what is due after `done` updates; True when the stage is finished. Raises Preempted after SIGTERM."""
        evaluated = self._evaluate(state, done)
        exhausted = 0 < self.plan.patience <= self.record.bad_evals
        finished = evaluated and (done >= self.plan.total_steps or exhausted)
        stopping = self.stop.requested
        if finished or ((stopping or done in self.plan.save_steps) and done != self.saved):
            self._save(state, done, feed, finished)
        if finished or stopping:
            self.checkpoints.wait()
        if stopping:
            self.progress.note(f"saved after step {done} on SIGTERM; start the same command again to go on")
            raise Preempted
        return finished

    def _evaluate(self, state: State, done: int) -> bool:
        """False if a validation that is due could not be done because of SIGTERM."""
        if self.evaluate is None or done not in self.plan.eval_steps or done <= self.record.evaluated:
            return True
        metrics = self.stop.interruptible(functools.partial(self.evaluate, state.params))
        if metrics is None:
            return False
        self._select(state, done, {key: float(value) for key, value in metrics.items()})
        return True

    def _save(self, state: State, done: int, feed: Feed, finished: bool) -> None:
        """A checkpoint goes to disk only after what it counts on: the metric lines and the best parameters."""
        if finished:
            if self.record.best_step < 0:
                self.best.save(done, state.params, {})
                self.record = dataclasses.replace(self.record, best_step=done)
            self.record = dataclasses.replace(self.record, finished=True)
        self.writer.sync()
        self.best.wait()
        self.best.prune({record["best_step"] for record in self.checkpoints.records().values()})
        self.checkpoints.save(done, state, feed, dataclasses.asdict(self.record))
        self.saved = done

    def _select(self, state: State, done: int, metrics: dict[str, float]) -> None:
        select = self.plan.select
        if select not in metrics:
            raise ValueError(f"{self.name}: plan.select={select!r} is not measured; choose one of {sorted(metrics)}")
        value = metrics[select]
        if not math.isfinite(value):
            raise NonFiniteError(f"{self.name}: validation {select} is {value} after step {done}")
        better = not self.record.best_metrics or value > self.record.best_metrics[select]
        self.writer.write(f"{self.name}/valid", done, metrics)
        self.progress.note(f"step {done}: {select} {value:.4f}" + (", the best so far" if better else ""))
        if better:
            self.best.save(done, state.params, metrics)
            self.record = Record(evaluated=done, best_step=done, best_metrics=metrics)
        else:
            self.record = dataclasses.replace(self.record, evaluated=done, bad_evals=self.record.bad_evals + 1)
