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
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, Self, TypeVar

import jax
import numpy as np

from wpauc_jax.checkpoint import BestCheckpoint, Checkpoints
from wpauc_jax.writers import MetricWriter, Progress

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start the same command again

Batch = Mapping[str, np.ndarray]


class State(Protocol):
    """What the loop asks of a training state: a pytree with a count of updates and parameters."""

    @property
    def step(self) -> jax.Array:
        """int32[], updates done."""

    @property
    def params(self) -> Any:
        """What `evaluate` takes."""


S = TypeVar("S", bound=State)
T = TypeVar("T")


class NonFiniteError(FloatingPointError):
    """A loss, gradient norm or validation metric became NaN or infinite."""


class Preempted(SystemExit):
    """SIGTERM came; the state is saved and, uncaught, this ends the process with `PREEMPTED_EXIT_CODE`."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED_EXIT_CODE)


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
    feed = _Feed(batches, place)
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
    rows = (plan.total_steps * rows_per_step, done * rows_per_step)
    with _Termination() as stop, Progress(rows[0], name, rows[1], unit=unit) as progress:
        if restored:
            progress.note(f"goes on after step {done} of {plan.total_steps}")
        ledger = _Ledger(name, plan, writer, progress, rows_per_step, unit)
        run = _Run(name, plan, evaluate, checkpoints, best, writer, progress, stop, record, done if restored else -1)
        while True:
            if stop.requested or done in plan.eval_steps or done in plan.save_steps:
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
    stop: "_Termination"
    record: Record
    saved: int  # the step of the newest checkpoint, -1 without one

    def evaluate_and_save(self, state: State, done: int, feed: "_Feed") -> bool:
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

    def _save(self, state: State, done: int, feed: "_Feed", finished: bool) -> None:
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


@dataclasses.dataclass(frozen=True)
class _Placed:
    """A batch on the host and on the device."""

    host: Batch
    placed: Any


class _Feed:
    """A Grain iterator read one batch ahead; Grain's checkpoint handler saves the place of the batch not yet taken."""

    def __init__(self, batches: Any, place: Callable[[Batch], Any]) -> None:
        self._iterator = iter(batches)
        self._place = place
        self._ahead: _Placed | None = None
        self._before_ahead = b""

    def take(self, done: int) -> _Placed:
        self.prefetch()
        if self._ahead is None:
            raise ValueError(f"the data ended after step {done}; give a pipeline that repeats")
        batch, self._ahead = self._ahead, None
        return batch

    def prefetch(self) -> None:
        if self._ahead is None:
            self._before_ahead = self.get_state()
            host = next(self._iterator, None)
            self._ahead = None if host is None else _Placed(host, self._place(host))

    def get_state(self) -> bytes:
        return json.dumps(self._iterator.get_state()).encode() if self._ahead is None else self._before_ahead

    def set_state(self, state: bytes) -> None:
        self._ahead = None
        self._iterator.set_state(json.loads(state))

    def start_prefetch(self) -> None:
        self._iterator.start_prefetch()


class _Ledger:
    """Reads metrics one step late, checks them and writes them."""

    def __init__(
        self, name: str, plan: Plan, writer: MetricWriter, progress: Progress, rows_per_step: int, unit: str
    ) -> None:
        self._name, self._plan, self._writer, self._progress = name, plan, writer, progress
        self._rows_per_step, self._unit = rows_per_step, unit
        self._waiting: tuple[int, Batch, Any] | None = None
        self._clock = time.perf_counter()

    def add(self, done: int, batch: Batch, metrics: Mapping[str, Any]) -> None:
        """Starts the copy to the host; `read` will find it there."""
        jax.tree.map(lambda leaf: leaf.copy_to_host_async(), metrics)
        self._waiting = (done, batch, metrics)

    def restart_clock(self) -> None:
        """Leaves out of the rate what was not training."""
        self._clock = time.perf_counter()

    def read(self) -> None:
        """Writes what waits. Raises NonFiniteError naming step and samples."""
        if self._waiting is None:
            return
        (done, batch, metrics), self._waiting = self._waiting, None
        values = {key: _mean(value) for key, value in jax.device_get(dict(metrics)).items()}
        for key in self._plan.must_be_finite:
            if key in values and not np.all(np.isfinite(values[key])):
                raise NonFiniteError(
                    f"{self._name}: {key} is {values[key]} in step {done}{_who(batch)}. "
                    "A lower learning rate or a tighter max_grad_norm may help; the checkpoint before it is kept."
                )
        now = time.perf_counter()
        rate = self._rows_per_step / max(now - self._clock, 1e-9)
        self._clock = now
        self._writer.write(self._name, done, values | {f"{self._unit}_per_s": round(rate, 2)})
        shown = {"loss": float(values["loss"])} if "loss" in values else {}
        self._progress.update(self._rows_per_step, **shown)


def _mean(value: Any) -> np.ndarray:
    """A (sum, count) pair's mean, in double precision; NaN where nothing was counted."""
    if not isinstance(value, tuple):
        return np.asarray(value)
    total, count = (np.asarray(part, np.float64) for part in value)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count != 0)


def _who(batch: Batch) -> str:
    """Which rows a batch held, as far as it says so."""
    parts = [f"{key}s {batch[key].tolist()}" for key in ("sample", "user") if key in batch]
    return f"; the batch's {', '.join(parts)}" if parts else ""


class _InterruptError(Exception):
    """Raised by the signal handler where work may be given up."""


class _Termination:
    """SIGTERM, the notice of pre-emption, as a flag that the loop looks at between steps.

    An evaluation may last longer than the notice: it is given up at once, and done again by the resumed run.
    Signals reach the main thread only; in another thread the loop runs without this.
    """

    def __init__(self) -> None:
        self.requested = False
        self._may_interrupt = False
        self._previous: Any = None
        self._in_main = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._in_main:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_main:
            signal.signal(signal.SIGTERM, self._previous)

    def interruptible(self, work: Callable[[], T]) -> T | None:
        """The result of `work`, or None if SIGTERM came before its end."""
        try:
            self._may_interrupt = not self.requested
            result = work() if self._may_interrupt else None
            self._may_interrupt = False  # inside the try: the handler may raise until here
        except _InterruptError:
            return None
        return result

    def _handle(self, *_: object) -> None:
        self.requested = True
        if self._may_interrupt:
            self._may_interrupt = False
            raise _InterruptError
