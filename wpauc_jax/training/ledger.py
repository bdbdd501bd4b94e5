"""Metrics of the loop's steps. They are read one step late, checked for faults and written."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from wpauc_jax.batches.types import RowIds
from wpauc_jax.runtime.metric_lines import MetricWriter
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.training.feed import Placed
from wpauc_jax.training.watch import FaultError, Watch

_NAMED = 64  # of a batch's samples and users, so many are named in a message


class Ledger:
    """Reads metrics one step late, checks them for faults and writes them."""

    def __init__(
        self, name: str, watch: Watch, writer: MetricWriter, progress: Progress, rows_per_step: int, unit: str
    ) -> None:
        self._name, self._watch, self._writer, self._progress = name, watch, writer, progress
        self._rows_per_step, self._unit = rows_per_step, unit
        self._waiting: tuple[int, Placed, Any] | None = None
        self._clock = time.perf_counter()

    def add(self, done: int, batch: Placed, metrics: Mapping[str, Any]) -> None:
        """Starts the copy to the host; `read` will find it there."""
        jax.tree.map(lambda leaf: leaf.copy_to_host_async(), metrics)
        self._waiting = (done, batch, metrics)

    def restart_clock(self) -> None:
        """Starts the clock anew, so that the rate counts training alone."""
        self._clock = time.perf_counter()

    def read(self) -> None:
        """Writes the metrics that wait. Raises FaultError, which names the step, the batch and the samples."""
        if self._waiting is None:
            return
        (done, batch, metrics), self._waiting = self._waiting, None
        values = {key: _mean(value) for key, value in jax.device_get(dict(metrics)).items()}
        fault = self._watch.fault(values)
        if fault:
            raise FaultError(f"{self._name}: {fault} in step {done}, batch {batch.number}{_who(batch.ids)}", done)
        for warning in self._watch.warnings(values):
            self._progress.note(f"step {done}: warning: {warning}")
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


def _who(ids: RowIds) -> str:
    """Which rows a batch held, if the batch has their ids."""
    named = {"samples": ids.sample, "users": ids.user}
    return "".join(f"; {name} {_listed(numbers)}" for name, numbers in named.items() if numbers is not None)


def _listed(ids: np.ndarray) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{ids[:_NAMED].tolist()}{more}"
