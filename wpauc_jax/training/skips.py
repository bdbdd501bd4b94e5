"""Which batches a run leaves out after rollbacks. A file holds them, so that a resumed run leaves them out, too."""

import json
import pathlib

from wpauc_jax.runtime.files import atomic_path
from wpauc_jax.training.storage import CheckpointError


class Skips:
    """Batches to pass over, by the count of updates after which they would come.

    With its batches passed over, a run is the run on data that never held them. So it does not matter from which
    checkpoint it is taken up again.

    Args:
      path: a JSON file, read if it is there.
      writes: False in all processes but one.

    Raises:
      CheckpointError: the file is damaged.
    """

    def __init__(self, path: pathlib.Path, *, writes: bool = True) -> None:
        self._path, self._writes = path, writes
        self._batches: dict[int, int] = {}
        self.faults: list[str] = []  # what was rolled back, in words
        if path.exists():
            self._batches, self.faults = _read(path)

    def at(self, done: int) -> int:
        """How many batches to pass over before the step after `done` updates."""
        return self._batches.get(done, 0)

    def before(self, done: int) -> int:
        """How many have been passed over when the step after `done` updates gets its batch."""
        return sum(count for after, count in self._batches.items() if after <= done)

    def add(self, step: int, after: int, fault: str) -> None:
        """Update `step` went wrong: leaves out its batch, and all before it that came behind `after` updates."""
        drawn = {done: count for done, count in self._batches.items() if after <= done < step}
        self._batches = {done: count for done, count in self._batches.items() if done not in drawn}
        self._batches[after] = step - after + sum(drawn.values())
        self.faults = [*self.faults, fault]
        if self._writes:
            content = {"skips": self._batches, "faults": self.faults}
            with atomic_path(self._path) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(path: pathlib.Path) -> tuple[dict[int, int], list[str]]:
    """Raises CheckpointError for a damaged file: nothing else knows what was left out."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        batches = {int(after): int(count) for after, count in content["skips"].items()}
        return batches, [str(fault) for fault in content["faults"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}); it says which batches were left out after faults. Delete "
            f"{path.parent} to train the stage anew, or the file alone to go on without leaving any out"
        ) from error
