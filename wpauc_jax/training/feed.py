"""Batches for the loop. One batch is always read ahead."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from wpauc_jax.batches.types import RowIds
from wpauc_jax.training.skips import Skips


@dataclasses.dataclass(frozen=True)
class Placed:
    """A batch on the devices, and the ids of its rows on the host."""

    number: int  # in the order of the data, from 1 on
    ids: RowIds
    batch: Any  # what a step takes


class Feed:
    """A Grain iterator read one batch ahead, which knows the place of the batch not yet taken.

    Args:
      batches: a Grain IterDataset or DatasetIterator of `Fed`.
      place: puts what a step takes on the device or devices.
      skips: batches to pass over.
    """

    def __init__(self, batches: Any, place: Callable[[Any], Any], skips: Skips) -> None:
        self._iterator = iter(batches)
        self._place = place
        self._skips = skips
        self._ahead: Placed | None = None
        self._before_ahead: Any = None

    def take(self, done: int) -> Placed:
        """The batch of the step after `done` updates. Raises ValueError where the data end."""
        self.prefetch(done)
        if self._ahead is None:
            raise ValueError(f"the data ended after step {done}; give a pipeline that repeats")
        batch, self._ahead = self._ahead, None
        return batch

    def prefetch(self, done: int) -> None:
        """Reads the batch of the step after `done` updates and starts its way to the device."""
        if self._ahead is None:
            self._before_ahead = self.position()
            for _ in range(self._skips.at(done)):
                next(self._iterator, None)
            fed = next(self._iterator, None)
            number = done + self._skips.before(done) + 1
            self._ahead = None if fed is None else Placed(number, fed.ids, self._place(fed.batch))

    def position(self) -> Any:
        """The position in the data, as JSON values. The batch that is read ahead does not count."""
        return copy.deepcopy(self._iterator.get_state()) if self._ahead is None else self._before_ahead

    def go_to(self, position: Any) -> None:
        """Goes back to such a position."""
        self._ahead = None
        self._iterator.set_state(position)
