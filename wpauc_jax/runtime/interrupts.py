"""Ctrl-C and SIGTERM end a run in one line, whenever they come.

Python raises KeyboardInterrupt in the main thread, once that thread is back in Python. A compilation or a collective
may keep it away for minutes. So a second thread sees every signal at once. It gives the main thread some seconds to put
things away, and then ends the process. Nothing is lost by that: whatever is on disk is whole at every moment.

While a stage trains, `termination` handles SIGTERM and saves first. At all other times SIGTERM acts like Ctrl-C.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
PATIENCE = 5.0  # seconds that the main thread has to put things away

_NAMES = {INTERRUPTED_EXIT_CODE: "interrupted", TERMINATED_EXIT_CODE: "ended by SIGTERM"}
_deeds: list[Callable[[], object]] = []  # what is done before the process ends, the latest first


class Terminated(BaseException):
    """SIGTERM came outside of training; raised in the main thread."""


@contextlib.contextmanager
def before_leaving(deed: Callable[[], object]) -> Iterator[None]:
    """While the block runs, `deed` is done even where a signal ends the process from another thread."""
    _deeds.append(deed)
    try:
        yield
    finally:
        _deeds.remove(deed)


class Interrupts:
    """While it is entered, Ctrl-C and SIGTERM end the process with one line on standard error.

    The main thread is to call `leave` where it catches KeyboardInterrupt or Terminated. Where it does not get there in
    time, or where a second Ctrl-C comes, the process ends without it.

    Where `speaks` is set to False, the line is left to another process of the run.

    Args:
      advice: what the line says after the signal's name.
      patience: seconds that the main thread has.
    """

    def __init__(self, advice: str = "start the same command again to go on", *, patience: float = PATIENCE) -> None:
        self.advice, self.speaks = advice, True
        self._patience = patience
        self._telling, self._told = threading.Lock(), False
        self._again = threading.Event()
        self._waiting = False
        self._previous: Any = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._received, self._sent = os.pipe()
        os.set_blocking(self._sent, False)
        self._previous = signal.set_wakeup_fd(self._sent, warn_on_full_buffer=False)
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is None:
            return
        signal.set_wakeup_fd(self._previous)
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, self._before)
        os.close(self._sent)  # the thread then reads the end

    def leave(self, code: int) -> int:
        """Says the one line, once; gives back `code`. From the main thread: no later signal is heeded.

        Another thread may be saying it. This one then waits until the line is out, because the process ends next.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
        if self._telling.acquire(timeout=1.0):  # a standard error that nobody reads must not keep the process alive
            try:
                self._tell(code)
            finally:
                self._telling.release()
        return code

    def _tell(self, code: int) -> None:
        if self._told or not self.speaks:
            return
        self._told = True
        with contextlib.suppress(OSError, ValueError):
            line = f"{_NAMES[code]}: {self.advice}"
            print(f"\n{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)

    def _on_sigterm(self, *_: object) -> None:
        raise Terminated

    def _watch(self) -> None:
        while received := os.read(self._received, 1):
            number = received[0]
            in_training = number == signal.SIGTERM and signal.getsignal(signal.SIGTERM) != self._on_sigterm
            if number not in (signal.SIGINT, signal.SIGTERM) or in_training:
                continue
            if self._waiting:
                self._again.set()
            else:
                self._waiting = True
                threading.Thread(target=self._end, args=(128 + number,), name="ending", daemon=True).start()

        os.close(self._received)

    def _end(self, code: int) -> None:
        """Ends the process, unless the main thread has done so in the meantime."""
        self._again.wait(self._patience)
        self.leave(code)
        end_now(code)


def end_now(code: int) -> None:
    """Ends the process without waiting for its threads, after what `before_leaving` was told."""
    for deed in reversed(_deeds):
        with contextlib.suppress(Exception):
            deed()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
