"""Metric lines: what a run writes to disk about each step, as JSON, and hands to a tracker."""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np

from wpauc_jax.runtime.files import atomic_path, named_errors
from wpauc_jax.runtime.trackers import Tracker

Value = float | int | list[Any] | None


class MetricWriter:
    """Appends metrics as JSON lines, one object a line: {"stage": ..., "step": ..., "time": ..., name: value, ...}.

    `step` counts the updates done, `time` is in seconds since 1970. Values are numbers or nested lists; a value that
    is not finite is written as null, since JSON has no other word for it.

    A killed run may leave half a last line: it is cut off when the file is opened. A resumed run does steps again that
    were already written: `rewind` drops their lines, so that each step is in the file once.

    Args:
      path: the file; its folder is made if needed.
      tracker: gets the numbers of each line as well; it is closed with the file.
      enabled: False on all processes but one, so that lines are written once.
    """

    def __init__(self, path: str | os.PathLike[str], *, tracker: Tracker | None = None, enabled: bool = True) -> None:
        self._path = pathlib.Path(path)
        self._enabled = enabled
        self._tracker = tracker
        if enabled:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _cut_half_line(self._path)
            self._file = self._path.open("a", encoding="utf-8")

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Adds one line: `values` are numbers or arrays on the host."""
        if not self._enabled:
            return
        plain = {name: _plain(value) for name, value in values.items()}
        line = {"stage": stage, "step": step, "time": round(time.time(), 3), **plain}
        with named_errors(self._path):
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        if self._tracker:
            numbers = {name: value for name, value in plain.items() if isinstance(value, int | float)}
            self._tracker.write(stage, step, numbers)

    def rewind(self, stage: str, step: int) -> None:
        """Drops the lines of `stage` beyond `step`; -1 drops all of them. Other stages' lines stay."""
        if not self._enabled:
            return
        self._file.close()
        lines = _whole_lines(self._path, _tell)
        kept = [text for line, text in lines if not (line["stage"] == stage and line["step"] > step)]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        if self._tracker:
            self._tracker.rewind(stage, step)

    def sync(self) -> None:
        """Returns when every line has reached the disk, where it survives even a machine that stops."""
        if self._enabled:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._enabled:
            with contextlib.suppress(OSError):  # `write` has raised this error; only what it could not write is missing
                self._file.close()
        if self._tracker:
            self._tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def read_metrics(
    path: str | os.PathLike[str], stage: str | None = None, *, say: Callable[[str], object] | None = None
) -> list[dict[str, Any]]:
    """The lines of a metrics file as dictionaries, of one stage or of all.

    What the file lacks is derived, and no reason to stop: of a missing file and of lines that hold no metrics it is
    said in a line, by `say` or else on standard error, and they are left out.
    """
    return [line for line, _ in _whole_lines(pathlib.Path(path), say or _tell) if stage in (None, line["stage"])]


def _plain(value: Any) -> Value:
    """A number or array as what JSON can hold."""
    value = np.asarray(value).tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else _finite(value)


def _finite(value: float | int) -> float | int | None:
    return value if math.isfinite(value) else None


def _cut_half_line(path: pathlib.Path) -> None:
    """Cuts off what a killed writer left after the last line break."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)


def _whole_lines(path: pathlib.Path, say: Callable[[str], object]) -> list[tuple[dict[str, Any], str]]:
    """Each line that holds metrics, parsed and as it stands."""
    kept, bad = [], []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                line = _parsed(text)
                if line is None:
                    bad.append(number)
                else:
                    kept.append((line, text))
    except FileNotFoundError:
        say(f"{path} is missing: there are no training curves")
    if bad:
        say(
            f"{path}: {len(bad)} of {len(kept) + len(bad)} lines hold no metrics (the first is line {bad[0]}); left out"
        )
    return kept


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("stage"), str) or type(line.get("step")) is not int:
        return None
    values = (value for name, value in line.items() if name != "stage")
    return line if all(value is None or isinstance(value, int | float | list) for value in values) else None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
