"""Where wall time goes: spans of a program by part, nested ones taken out of those around them. Needs no JAX."""

import collections
import dataclasses
import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Span:
    """Seconds `start` to `end` of one part; `name` says what it worked on."""

    start: float
    end: float
    part: str
    name: str = ""


def own_seconds(spans: Iterable[Span]) -> list[tuple[Span, float]]:
    """Each span with its seconds less those of the spans inside it. A span that sticks out of another is cut there."""
    ordered = sorted(spans, key=lambda span: (span.start, -span.end))
    own = [span.end - span.start for span in ordered]
    open_spans: list[tuple[int, float]] = []  # (number, end)
    for number, span in enumerate(ordered):
        while open_spans and open_spans[-1][1] <= span.start:
            open_spans.pop()
        end = min(span.end, open_spans[-1][1]) if open_spans else span.end
        own[number] = end - span.start
        if open_spans:
            own[open_spans[-1][0]] -= own[number]
        open_spans.append((number, end))
    return list(zip(ordered, own, strict=True))


def by_part(spans: Iterable[Span]) -> dict[str, float]:
    """Own seconds of each part."""
    sums: dict[str, float] = collections.defaultdict(float)
    for span, seconds in own_seconds(spans):
        sums[span.part] += seconds
    return dict(sums)


class Recorder:
    """Spans of the thread that made it. What other threads do runs beside it and costs no wall time of its own."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._thread = threading.get_ident()

    def add(self, seconds: float, part: str, name: str = "") -> None:
        """A span that ends now."""
        if threading.get_ident() == self._thread:
            now = time.perf_counter()
            self.spans.append(Span(now - seconds, now, part, name))

    def watch(self, module: str, path: str, part: str | Callable[..., str]) -> Callable[[], None]:
        """Records every call of the function `path` of a module, as in "Checkpoints.save". Returns how to end that.

        `part` may be a function that is given the call's arguments.
        """
        *owners, last = path.split(".")
        holder: Any = functools.reduce(getattr, owners, importlib.import_module(module))
        function = getattr(holder, last)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                self.add(seconds, part if isinstance(part, str) else part(*args, **kwargs), path)

        setattr(holder, last, timed)
        return lambda: setattr(holder, last, function)
