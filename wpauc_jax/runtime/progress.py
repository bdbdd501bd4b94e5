"""Progress: what a run shows on the terminal. How far is it, how fast, and how long will it still take?"""

import math
import sys
import time
from types import TracebackType
from typing import Self, TextIO

import tqdm


class Progress:
    """Shows how far a loop is, its rate and the time left.

    On a terminal a bar; elsewhere (a log file) a plain line for about every tenth of the way. Before the first unit is
    done it says what it does: mostly it compiles.

    Args:
      total: units of work in all.
      label: what is being done.
      start: units done by an earlier run; they count as done but not for the rate.
      unit: the name of a unit, in the plural where it reads better ("users", "it").
      doing: what is done before the first unit is.
      file: where to write; standard error unless given.
      enabled: False on all processes but one, so that one line is written.
    """

    def __init__(
        self,
        total: int,
        label: str,
        start: int = 0,
        *,
        unit: str = "it",
        doing: str = "compiling",
        file: TextIO | None = None,
        enabled: bool = True,
    ) -> None:
        self._file = file or sys.stderr
        self._enabled = enabled
        self._total, self._label, self._unit = total, label, unit
        self._start = self._done = start
        self._began = time.perf_counter()
        self._next_line = _next_tenth(start, total)
        self._bar = (
            tqdm.tqdm(total=total, initial=start, desc=label, unit=f" {unit}", file=self._file, dynamic_ncols=True)
            if self._enabled and self._file.isatty()
            else None
        )
        self._doing = ""
        if start < total:
            self.doing(doing)

    def update(self, n: int = 1, **shown: float) -> None:
        """Counts `n` more units; `shown` are values to display beside them."""
        self._done += n
        self._doing = ""
        text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(n)
        elif self._enabled and self._done >= self._next_line:
            self._next_line = _next_tenth(self._done, self._total)
            self._print_line(text)

    def doing(self, text: str) -> None:
        """Says what is done until the next unit is: on the bar, and in a line of its own before the first unit."""
        if text == self._doing:
            return
        self._doing = text
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._enabled and self._done == self._start:
            print(f"{self._label}: {text}", file=self._file, flush=True)

    def note(self, text: str) -> None:
        """A line of its own, which does not break the bar."""
        if self._bar is not None:
            self._bar.write(f"{self._label}: {text}", file=self._file)
        elif self._enabled:
            print(f"{self._label}: {text}", file=self._file, flush=True)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _print_line(self, text: str) -> None:
        rate = (self._done - self._start) / max(time.perf_counter() - self._began, 1e-9)
        left = max(self._total - self._done, 0) / max(rate, 1e-9)
        share = self._done / max(self._total, 1)
        line = f"{self._label}: {self._done}/{self._total} {self._unit} ({share:.0%}), {rate:.1f} {self._unit}/s"
        line += f", {duration(left)} left" + (f", {text}" if text else "")
        print(line, file=self._file, flush=True)


def _next_tenth(done: int, total: int) -> int:
    """The count at which the next plain line is due: the end comes last, whatever the rounding."""
    tenth = max(total, 1) * (done * 10 // max(total, 1) + 1) / 10
    return max(math.ceil(tenth), done + 1)


def duration(seconds: float) -> str:
    """'1:02:03' for 3,723 seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
