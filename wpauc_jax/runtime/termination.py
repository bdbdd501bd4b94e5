"""SIGTERM announces that a machine will be taken away. Here it becomes a flag that a loop can look at."""

import itertools
import signal
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

import jax
from jax.experimental import multihost_utils

T = TypeVar("T")

PREEMPTED_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start the same command again


_places = itertools.count()  # where processes may stop together, over all stages of a run


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

    Several processes must stop at one step, and none may leave an evaluation that the others are in. There JAX catches
    the signal, wherever it comes first, and its coordination service names a step that all will reach.
    """

    def __init__(self) -> None:
        self.requested = False
        self._may_interrupt = False
        self._previous: Any = None
        self._several = jax.process_count() > 1
        self._handles = not self._several and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def reached(self) -> bool:
        """Whether to stop here: the same answer in every process, where all ask equally often."""
        if self._several and multihost_utils.reached_preemption_sync_point(next(_places)):
            self.requested = True
        return self.requested

    def interruptible(self, work: Callable[[], T]) -> T | None:
        """The result of `work`, or None if SIGTERM came before its end."""
        if self._several:
            return work()
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
