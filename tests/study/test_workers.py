"""Jobs in order, some at once; failures, a full disk, and the time that is left. No run is started for real."""

import dataclasses
import errno
import os
import threading

import pytest

from wpauc_jax.config import Config
from wpauc_jax.study import workers
from wpauc_jax.study.runs import Job
from wpauc_jax.study.workers import Outcome, Processes, Progress, StudyError, run_jobs


@dataclasses.dataclass(frozen=True)
class Fake(Job):
    done: bool = False

    def is_done(self):
        return self.done


def job(folder, name, base=None, **more):
    return Fake(name, 0, folder / name, Config(), ("all",), "rl", base=base and folder / base, **more)


def run(jobs, start, *, workers=1, failed=None):
    said, told = [], []
    progress = Progress(len(jobs), workers, said.append)
    failed = set() if failed is None else failed
    run_jobs(
        jobs,
        start,
        said.append,
        workers=workers,
        done=lambda job, outcome: told.append((job.name, outcome.error)),
        progress=progress,
        failed=failed,
    )
    return said, told


def test_a_job_waits_for_what_it_builds_on_and_the_done_are_left_alone(tmp_path):
    order = []

    def start(job):
        order.append(job.name)
        return Outcome(1.0)

    jobs = [job(tmp_path, "c", "b"), job(tmp_path, "a", done=True), job(tmp_path, "b", "a"), job(tmp_path, "d", "a")]
    said, told = run(jobs, start)
    assert order == ["b", "c", "d"] and [name for name, _ in told] == order
    assert said == [
        "b, seed 0: all; 1/4 done",
        "c, seed 0: all; 2/4 done, 0:00:02 left",
        "d, seed 0: all; 3/4 done, 0:00:01 left",
    ]


def test_workers_go_on_at_once(tmp_path):
    barrier = threading.Barrier(3, timeout=10)  # breaks unless three are at work together

    def start(job):
        barrier.wait()
        return Outcome(1.0)

    run([job(tmp_path, name) for name in "abcdef"], start, workers=3)


def test_a_failure_takes_what_builds_on_it_along_and_nothing_else(tmp_path):
    def start(job):
        return Outcome(1.0, "loss is nan" if job.name == "a" else "")

    failed = set()
    jobs = [job(tmp_path, "a"), job(tmp_path, "b", "a"), job(tmp_path, "c", "b"), job(tmp_path, "d")]
    said, told = run(jobs, start, failed=failed)
    errors = dict(told)
    assert errors["a"] == "loss is nan" and errors["d"] == ""
    assert "a, has failed" in errors["b"] and "b, has failed" in errors["c"]
    assert failed == {tmp_path / name for name in "abc"}
    assert any("a, seed 0 has failed: loss is nan; the other runs go on" in line for line in said)


def test_a_full_disk_stops_the_study_with_what_is_done(tmp_path):
    started, stopped = [], []

    class Start:
        def __call__(self, job):
            started.append(job.name)
            full = f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'x'"
            return Outcome(1.0, full if job.name == "b" else "")

        def stop(self):
            stopped.append(True)

    with pytest.raises(StudyError, match=r"b, seed 0: .*No space left.*keeps what is done; make room, then start"):
        run([job(tmp_path, name) for name in "abc"], Start())
    assert started == ["a", "b"] and stopped


def test_time_left_counts_the_workers_and_not_the_failures(tmp_path):
    progress = Progress(10, 2, print)
    assert progress.left() is None
    progress.found()
    progress.ends(job(tmp_path, "a"), Outcome(4.0))
    progress.ends(job(tmp_path, "b"), Outcome(0.1, "failed"))
    assert progress.left() == 4.0 * 7 / 2


def a_process(monkeypatch, tmp_path, program):
    """Processes whose runs are this Python program."""
    monkeypatch.setattr(workers, "make_ready", lambda job: job.folder.mkdir(exist_ok=True))
    (tmp_path / "wpauc_jax" / "study").mkdir(parents=True)
    for package in ("wpauc_jax", "wpauc_jax/study"):
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "wpauc_jax" / "study" / "child.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Processes(tmp_path)


def test_a_process_keeps_a_log_and_its_error_is_told(monkeypatch, tmp_path):
    start = a_process(monkeypatch, tmp_path, "import sys; print('step 1'); print('error: no data'); sys.exit(1)")
    outcome = start(job(tmp_path, "a"))
    assert outcome.error == "no data"
    assert (tmp_path / "a" / "run.log").read_text() == "step 1\nerror: no data\n"


def test_a_process_that_dies_says_how(monkeypatch, tmp_path):
    start = a_process(monkeypatch, tmp_path, "import os; print('step 1', flush=True); os.kill(os.getpid(), 9)")
    assert start(job(tmp_path, "a")).error == "was killed by signal 9: step 1"


def test_the_lock_of_a_run_that_ends_is_waited_for(monkeypatch, tmp_path):
    program = (
        "import pathlib, sys\nmark = pathlib.Path('mark')\n"
        "if not mark.exists():\n    mark.touch(); print('error: x is in use by process 1'); sys.exit(1)\n"
    )
    start = a_process(monkeypatch, tmp_path, program)
    monkeypatch.setattr(workers.time, "sleep", lambda seconds: None)
    assert start(job(tmp_path, "a")).error == ""


def test_stop_ends_what_runs(monkeypatch, tmp_path):
    start = a_process(monkeypatch, tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    found = []
    thread = threading.Thread(target=lambda: found.append(start(job(tmp_path, "a"))))
    thread.start()
    while not (tmp_path / "a" / "run.log").exists() or not (tmp_path / "a" / "run.log").read_text():
        thread.join(0.05)
    start.stop()
    thread.join(10)
    assert not thread.is_alive() and "signal 15" in found[0].error
    assert start(job(tmp_path, "b")).error == "interrupted"
