"""SIGTERM, the notice of pre-emption, as something that a loop can look at."""

import signal
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

T = TypeVar("T")

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start the same command again


class Preempted(SystemExit):
    """SIGTERM came; the state is saved and, uncaught, this ends the process with `PREEMPTED_EXIT_CODE`."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED_EXIT_CODE)


class _InterruptError(Exception):
    """Raised by the signal handler where work may be given up."""


class Termination:
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
