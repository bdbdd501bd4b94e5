"""Is training still sound? A fault ends the run or takes it back; a warning is only printed."""

import collections
import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from wpauc_jax.config import FaultConfig

MUST_BE_FINITE = ("loss", "grad_norm")

_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_LEAST_DEVIATION = 0.01  # of the median: what any loss may wobble by


class FaultError(FloatingPointError):
    """A loss, gradient norm or validation metric is not finite, or a loss exploded; the message says where.

    `step` is the update that went wrong.
    """

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Watch:
    """Looks at each step's metrics on the host, in the order of the steps. It keeps the last `faults.window` of them.

    Args:
      config: the limits.
    """

    def __init__(self, config: FaultConfig) -> None:
        self._config = config
        self._losses: collections.deque[float] = collections.deque(maxlen=config.window)
        self._hits: collections.deque[tuple[float, float]] = collections.deque(maxlen=config.window)
        self._quiet: dict[str, int] = {"spike": 0, "dead": 0}  # steps for which a warning is not given again

    def fault(self, values: Mapping[str, Any]) -> str | None:
        """What is wrong with a step's metrics, in words; None where nothing is."""
        for key in MUST_BE_FINITE:
            if key in values and not np.all(np.isfinite(values[key])):
                return f"{key} is {values[key]}"
        limit = self._config.max_loss
        if limit and "loss" in values and abs(values["loss"]) > limit:
            return f"loss is {values['loss']:.6g}, beyond faults.max_loss={limit:g}"
        return None

    def warnings(self, values: Mapping[str, Any]) -> list[str]:
        """What the user should look at, in words. The same warning comes at most once in `faults.window` steps."""
        self._quiet = {kind: max(steps - 1, 0) for kind, steps in self._quiet.items()}
        found = {"spike": self._spike(values), "dead": self._dead(values)}
        given = {kind: text for kind, text in found.items() if text and not self._quiet[kind]}
        self._quiet |= dict.fromkeys(given, self._config.window)
        return list(given.values())

    def _spike(self, values: Mapping[str, Any]) -> str | None:
        if "loss" not in values or not self._config.spike:
            return None
        loss, seen = float(values["loss"]), self._losses
        text = None
        # A spike is above all of the window, so the median is not looked for at most steps.
        if len(seen) == seen.maxlen and loss > max(seen):
            median = statistics.median(seen)
            deviation = _MAD_TO_SIGMA * statistics.median(abs(x - median) for x in seen)
            above = (loss - median) / max(deviation, _LEAST_DEVIATION * abs(median), 1e-12)
            if above > self._config.spike:
                text = (
                    f"loss {loss:.4g} is {above:.0f} deviations above the median {median:.4g} of the last {len(seen)} "
                    "steps; if it stays so, lower the learning rate or max_grad_norm"
                )
        seen.append(loss)
        return text

    def _dead(self, values: Mapping[str, Any]) -> str | None:
        if not {"dead_groups", "hit_rate"} <= values.keys() or not self._config.dead:
            return None
        self._hits.append((float(values["dead_groups"]), float(values["hit_rate"])))
        dead, hits = np.mean(self._hits, axis=0)
        if len(self._hits) < self._config.window or dead < self._config.dead:
            return None
        return (
            f"{dead:.1%} of the last {len(self._hits)} steps' groups taught nothing (their target was found in "
            f"{hits:.1%}); train SFT longer, enlarge rl.group_size or set rl.inject_target=if_missing"
        )
