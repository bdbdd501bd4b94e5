"""How data are said to be wrong: the error, the rows that are left out, and excerpts for messages."""

import collections
from collections.abc import Iterable

_BEFORE, _AFTER = 30, 50  # signs of an excerpt around a place


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the line or the item, and what to do."""


class Rejects:
    """What happens to a row that cannot be used: `data.bad_rows` says whether it is an error or a counted skip."""

    def __init__(self, policy: str = "error"):
        self.policy = policy
        self._handle = POLICIES[policy]
        self.counts: collections.Counter[str] = collections.Counter()  # by reason, for the manifest
        self.first: dict[str, str] = {}  # the first row of each reason, in words

    def add(self, label: str, line: int, reason: str, shown: str, hint: str = "") -> None:
        """Raises DataError with the file, the line, what stands there and the hint, or counts the row."""
        self._handle(self, label, line, reason, shown, hint)

    def _raise(self, label: str, line: int, reason: str, shown: str, hint: str) -> None:
        behind = f" ({hint})" if hint else ""
        raise DataError(f"{label}, line {line}: {reason}: {shown}{behind}; mend it, or set data.bad_rows='skip'")

    def _count(self, label: str, line: int, reason: str, shown: str, hint: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, f"{label}, line {line}: {shown}")


POLICIES = {"error": Rejects._raise, "skip": Rejects._count}  # by data.bad_rows


def listed(names: Iterable[str]) -> str:
    """Names for a message, as many and as much of them as one can take in."""
    names = [name if len(name) <= 40 else name[:40] + "..." for name in names]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def shown(line: bytes | str, limit: int = 80) -> str:
    """The beginning of a line, or a field, for a message."""
    text = line if isinstance(line, str) else line[: limit * 4].decode(errors="backslashreplace")
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")


def shown_around(line: bytes, place: int) -> str:
    """What stands around a byte of a line, for a message."""
    first, last = max(place - _BEFORE, 0), place + _AFTER
    text = line[first:last].decode(errors="backslashreplace").rstrip("\r\n")
    return repr(("..." if first else "") + text + ("..." if last < len(line.rstrip()) else ""))
