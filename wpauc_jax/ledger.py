"""Metrics of the loop's steps: read one step late, checked and written."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from wpauc_jax.feed import Batch
from wpauc_jax.writers import MetricWriter, Progress


class NonFiniteError(FloatingPointError):
    """A loss, gradient norm or validation metric became NaN or infinite."""


class Ledger:
    """Reads metrics one step late, checks them and writes them."""

    def __init__(
        self,
        name: str,
        must_be_finite: Sequence[str],
        writer: MetricWriter,
        progress: Progress,
        rows_per_step: int,
        unit: str,
    ) -> None:
        self._name, self._must_be_finite, self._writer, self._progress = name, must_be_finite, writer, progress
        self._rows_per_step, self._unit = rows_per_step, unit
        self._waiting: tuple[int, Batch, Any] | None = None
        self._clock = time.perf_counter()

    def add(self, done: int, batch: Batch, metrics: Mapping[str, Any]) -> None:
        """Starts the copy to the host; `read` will find it there."""
        jax.tree.map(lambda leaf: leaf.copy_to_host_async(), metrics)
        self._waiting = (done, batch, metrics)

    def restart_clock(self) -> None:
        """Leaves out of the rate what was not training."""
        self._clock = time.perf_counter()

    def read(self) -> None:
        """Writes what waits. Raises NonFiniteError naming step and samples."""
        if self._waiting is None:
            return
        (done, batch, metrics), self._waiting = self._waiting, None
        values = {key: _mean(value) for key, value in jax.device_get(dict(metrics)).items()}
        for key in self._must_be_finite:
            if key in values and not np.all(np.isfinite(values[key])):
                raise NonFiniteError(
                    f"{self._name}: {key} is {values[key]} in step {done}{_who(batch)}. "
                    "A lower learning rate or a tighter max_grad_norm may help; the checkpoint before it is kept."
                )
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


def _who(batch: Batch) -> str:
    """Which rows a batch held, as far as it says so."""
    parts = [f"{key}s {batch[key].tolist()}" for key in ("sample", "user") if key in batch]
    return f"; the batch's {', '.join(parts)}" if parts else ""
