"""Batches for the loop, read one ahead."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Placed:
    """A batch on the host and on the device."""

    host: Batch
    placed: Any


class Feed:
    """A Grain iterator read one batch ahead; Grain's checkpoint handler saves the place of the batch not yet taken."""

    def __init__(self, batches: Any, place: Callable[[Batch], Any]) -> None:
        self._iterator = iter(batches)
        self._place = place
        self._ahead: Placed | None = None
        self._before_ahead = b""

    def take(self, done: int) -> Placed:
        """The next batch, for the step after `done` updates. Raises ValueError where the data end."""
        self.prefetch()
        if self._ahead is None:
            raise ValueError(f"the data ended after step {done}; give a pipeline that repeats")
        batch, self._ahead = self._ahead, None
        return batch

    def prefetch(self) -> None:
        """Reads the next batch and starts its way to the device."""
        if self._ahead is None:
            self._before_ahead = self.get_state()
            host = next(self._iterator, None)
            self._ahead = None if host is None else Placed(host, self._place(host))

    def get_state(self) -> bytes:
        """The place of the batch not yet taken."""
        return json.dumps(self._iterator.get_state()).encode() if self._ahead is None else self._before_ahead

    def set_state(self, state: bytes) -> None:
        """Goes to a place that `get_state` told."""
        self._ahead = None
        self._iterator.set_state(json.loads(state))

    def start_prefetch(self) -> None:
        """Asked for by Grain's handler; the iterator below does it."""
        self._iterator.start_prefetch()
