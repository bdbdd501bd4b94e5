"""Published samples become the time line of each user. A sample is a history and the item that came next.

The samples of a user overlap, because a history is the end of what the samples before it hold. The time line has each
interaction once. Its samples and their histories are the published ones. Interactions that only the history of the
first sample knows are for training.
"""

import dataclasses
from collections.abc import Callable, Iterable

import polars as pl

from wpauc_jax.data.errors import DataError


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample as its file has it. `place` names file and line."""

    place: str
    number: int  # in the order of the files
    split: int
    user: str
    history: list[str]
    target: str
    times: list[int] | None  # of the history and then of the target


# How publishers order a user's samples within a split: by time, the latest first, or anyhow.
_ORDERS: tuple[Callable[[list[Sample]], list[Sample]], ...] = (
    lambda samples: samples,
    lambda samples: samples[::-1],
    lambda samples: sorted(samples, key=lambda sample: len(sample.history)),
)


def time_lines(samples: Iterable[Sample]) -> tuple[pl.DataFrame, list[str]]:
    """Every user's interactions once, as RawData has them, and what to say of them.

    Raises DataError for a history that does not continue the user's samples before.
    """
    of_user: dict[str, list[Sample]] = {}
    longest = 0
    for sample in samples:
        of_user.setdefault(sample.user, []).append(sample)
        longest = max(longest, len(sample.history))
    out: list[tuple[str, str, int, int]] = []
    unseen = 0
    for user, mine in of_user.items():
        unseen += _add(user, mine, longest, out)
    schema = {"user": pl.String, "item": pl.String, "time": pl.Int64, "split": pl.Int8}
    note = (
        f"{unseen:,} interactions stand only in the history of a valid or test sample: they are training interactions"
    )
    return pl.DataFrame(out, schema=schema, orient="row"), [note] if unseen else []


def _add(user: str, samples: list[Sample], longest: int, out: list[tuple[str, str, int, int]]) -> int:
    """Appends a user's interactions; how many of them no sample of training holds or predicts."""
    fault = None
    for order in _ORDERS:
        ordered = [s for split in range(3) for s in order([s for s in samples if s.split == split])]
        try:
            rows = _rows(user, ordered, longest)
        except DataError as error:
            fault = fault or error
            continue
        out += rows
        return len(ordered[0].history) if ordered[0].split else 0
    assert fault is not None
    raise fault


def _rows(user: str, samples: list[Sample], longest: int) -> list[tuple[str, str, int, int]]:
    """A user's interactions from samples in the order of time. Without times that of a sample is its number."""
    numbers = sorted(sample.number for sample in samples)
    line: list[str] = []
    rows: list[tuple[str, str, int, int]] = []
    for number, sample in zip(numbers, samples, strict=True):
        if not line:
            line = list(sample.history)
            times = sample.times or [0] * len(line)
            rows += [(user, item, time, 0) for item, time in zip(line, times[: len(line)], strict=True)]
        elif line[-longest:] != sample.history:
            raise DataError(
                f"{sample.place}: the history of user {user!r} does not continue the rows before it; the files belong "
                "to different data sets, or their order was changed"
            )
        line.append(sample.target)
        rows.append((user, sample.target, sample.times[-1] if sample.times else number, sample.split))
    return rows
