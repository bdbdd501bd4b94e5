"""Jobs one after another, or some at once, each in a process of its own; what failed, and how long it still takes."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from wpauc_jax.runtime.interrupts import before_leaving
from wpauc_jax.runtime.progress import duration
from wpauc_jax.study.runs import Job, command, make_ready

Say = Callable[[str], None]
_PATIENCE = 4.0  # seconds that a run has to save itself when the study is interrupted
_IN_USE = "is in use by process"  # the words of a lock that a run of an earlier start holds while it ends
_WAITS = 15  # how often such a run is waited for, two seconds each


class StudyError(RuntimeError):
    """The study cannot go on; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    seconds: float
    error: str = ""  # empty: all is well


class Start(Protocol):
    """Does a job, and tells what became of it."""

    def __call__(self, job: Job) -> Outcome: ...  # noqa: D102


class Processes:
    """Starts jobs as processes. `stop` ends those that run.

    Args:
      folder: the study's directory, where compiled programs are kept for the runs that follow.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": str(folder.resolve() / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            **os.environ,
        }

    def __call__(self, job: Job) -> Outcome:
        """Runs it to its end. What it says is added to run.log in its folder."""
        began = time.monotonic()
        for _ in range(_WAITS):
            error = self._once(job)
            if _IN_USE not in error or self._stopped:
                break
            time.sleep(2)
        return Outcome(time.monotonic() - began, error)

    def stop(self) -> None:
        """Asks all runs to save and end; those that do not in time are killed."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0))
            process.kill()

    def _once(self, job: Job) -> str:
        try:
            make_ready(job)
        except OSError as error:
            return str(error)
        modes, arguments = ",".join(job.modes), command(job)[:-1]
        words = [sys.executable, "-m", "wpauc_jax.study.child", str(os.getpid()), modes, *arguments]
        with self._lock:
            if self._stopped:
                return "interrupted"
            process = subprocess.Popen(
                words,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C goes to the study, which lets its runs save
            )
            self._running.add(process)
        try:
            last = _kept(process, job.folder / "run.log")
        finally:
            with self._lock:
                self._running.discard(process)
        code = process.wait()
        if code == 0:
            return ""
        said = [line for line in last if line.startswith("error: ")]
        return said[-1].removeprefix("error: ") if said else _ended(code, last)


def _kept(process: "subprocess.Popen[str]", log: pathlib.Path) -> list[str]:
    """The last lines that a process says, all of which go to the file `log` as far as the disk takes them."""
    last: collections.deque[str] = collections.deque(maxlen=40)
    assert process.stdout is not None
    with contextlib.ExitStack() as stack:
        file = None
        with contextlib.suppress(OSError):
            file = stack.enter_context(log.open("a", encoding="utf-8"))
        for line in process.stdout:
            last.append(line.rstrip("\n"))
            with contextlib.suppress(OSError, ValueError):
                if file is not None:
                    file.write(line)
                    file.flush()
        stack.pop_all()
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
    return list(last)


def _ended(code: int, last: Sequence[str]) -> str:
    spoken = [line.strip() for line in last if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{how}{': ' + spoken[-1] if spoken else ''}"


def run_jobs(
    jobs: Sequence[Job],
    start: Start,
    say: Say,
    *,
    workers: int,
    done: Callable[[Job, Outcome], None],
    progress: "Progress",
    failed: set[pathlib.Path],
) -> None:
    """Does the jobs that are not done, `workers` at once, each after the run that it builds on.

    `done` is told of every job that was run. `failed` holds the folders of runs that failed before, and gets more. A
    job that builds on one of them fails as well, without being started. Raises StudyError where the disk is full.
    """
    waiting = []
    for job in jobs:
        if job.is_done():
            progress.found()
        else:
            waiting.append(job)
    running: dict[concurrent.futures.Future[Outcome], Job] = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool, _stopping(start):
        while waiting or running:
            at_work = {job.folder for job in running.values()}
            for job in list(waiting):
                before = at_work | {other.folder for other in waiting if other is not job}
                if job.base in failed:
                    waiting.remove(job)
                    outcome = Outcome(0.0, f"the run that it builds on, {job.base}, has failed")
                    _settle(job, outcome, done, progress, failed, say)
                elif len(running) < workers and job.base not in before and job.folder not in at_work:
                    waiting.remove(job)
                    progress.begins(job)
                    running[pool.submit(start, job)] = job
                    at_work.add(job.folder)
            ready, _ = concurrent.futures.wait(running, 0.2, concurrent.futures.FIRST_COMPLETED)
            for future in ready:
                job = running.pop(future)
                _settle(job, future.result(), done, progress, failed, say)


def _settle(
    job: Job,
    outcome: Outcome,
    done: Callable[[Job, Outcome], None],
    progress: "Progress",
    failed: set[pathlib.Path],
    say: Say,
) -> None:
    if os.strerror(errno.ENOSPC) in outcome.error:
        raise StudyError(
            f"{job.title}: {outcome.error}. The study stops here and keeps what is done; make room, then start the "
            "same command again"
        )
    if outcome.error:
        failed.add(job.folder)
        say(f"{job.title} has failed: {outcome.error}; the other runs go on, {job.folder / 'run.log'} says more")
    done(job, outcome)
    progress.ends(job, outcome)


@contextlib.contextmanager
def _stopping(start: Start) -> Iterator[None]:
    """Where the block is left early, by a signal or an error, what runs is stopped first."""
    stop = getattr(start, "stop", lambda: None)
    with before_leaving(stop):
        try:
            yield
        except BaseException:
            stop()
            raise


class Progress:
    """Which run goes on, how many are done, and how long the rest takes, from the runs that this start has done.

    Args:
      total: jobs in all.
      workers: how many go on at once.
      say: where a line goes.
    """

    def __init__(self, total: int, workers: int, say: Say) -> None:
        self._total, self._workers, self._say = total, workers, say
        self._done = 0
        self._seconds: list[float] = []

    def found(self) -> None:
        """A job that an earlier start has done."""
        self._done += 1

    def begins(self, job: Job) -> None:
        """A job starts."""
        left = self.left()
        time_left = f", {duration(left)} left" if left is not None else ""
        self._say(f"{job.title}: {', '.join(job.modes)}; {self._done}/{self._total} done{time_left}")

    def ends(self, job: Job, outcome: Outcome) -> None:
        """A job has ended, one way or the other."""
        self._done += 1
        if not outcome.error:
            self._seconds.append(outcome.seconds)

    def left(self) -> float | None:
        """Seconds until the end, as far as the runs done can tell."""
        if not self._seconds:
            return None
        mean = sum(self._seconds) / len(self._seconds)
        return mean * (self._total - self._done) / min(self._workers, max(self._total - self._done, 1))
