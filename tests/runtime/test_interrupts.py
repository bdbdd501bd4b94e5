"""Ctrl-C and SIGTERM end a process in one line, in Python and outside of it."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import hashlib, pathlib, sys, threading, time
from wpauc_jax.runtime import interrupts

def at_work(where):
    print("at work", flush=True)
    if where == "python":
        while True:
            time.sleep(0.01)
    if where == "outside":  # in C, as a compilation is: the main thread sees no signal until it is over
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)
    if where == "thread":
        thread = threading.Thread(target=at_work, args=("python",))
        thread.start()
        thread.join()
    if where == "slow end":
        try:
            at_work("python")
        finally:
            pathlib.Path(sys.argv[2]).write_text("slow end")
            time.sleep(60)

with interrupts.Interrupts("go on so", patience=float(sys.argv[3])) as signals:
    try:
        with interrupts.before_leaving(lambda: pathlib.Path(sys.argv[2]).write_text("released")):
            at_work(sys.argv[1])
    except KeyboardInterrupt:
        interrupts.end_now(signals.leave(interrupts.INTERRUPTED_EXIT_CODE))
    except interrupts.Terminated:
        interrupts.end_now(signals.leave(interrupts.TERMINATED_EXIT_CODE))
"""


def end(where, number, note, patience=0.5, again=0):
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, where, str(note), str(patience)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "at work\n"
    for _ in range(1 + again):
        time.sleep(0.1)
        started.send_signal(number)
    _, error = started.communicate(timeout=20)
    return started.returncode, error


@pytest.mark.parametrize("where", ["python", "outside", "thread"])
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted: go on so\n"), (signal.SIGTERM, 143, "ended by SIGTERM: go on so\n")],
)
def test_a_signal_ends_the_process_in_one_line(where, number, code, line, tmp_path):
    assert end(where, number, tmp_path / "note") == (code, line)
    if where == "outside":  # the main thread did not get to its own end
        assert (tmp_path / "note").read_text() == "released"


def test_a_second_one_does_not_wait(tmp_path):
    began = time.monotonic()
    assert end("slow end", signal.SIGINT, tmp_path / "note", patience=60, again=1) == (130, "interrupted: go on so\n")
    assert time.monotonic() - began < 20
    assert (tmp_path / "note").read_text() in ("slow end", "released")
