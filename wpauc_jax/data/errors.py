"""What is wrong with data, in words: the error, the rows left out, and excerpts for messages."""

import collections
from collections.abc import Iterable


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the line or the item, and what to do."""


class Rejects:
    """What happens to a row that cannot be used: `data.bad_rows` says whether it is an error or a counted skip."""

    def __init__(self, policy: str = "error"):
        self.policy = policy
        self.counts: collections.Counter[str] = collections.Counter()  # by reason, for the manifest
        self.first: dict[str, str] = {}  # the first row of each reason, in words

    def add(self, label: str, line: int, reason: str, shown: str) -> None:
        """Raises DataError with the file, the line and what stands there, or counts the row under its reason."""
        if self.policy == "error":
            raise DataError(f"{label}, line {line}: {reason}: {shown}; mend it, or set data.bad_rows='skip'")
        self.counts[reason] += 1
        self.first.setdefault(reason, f"{label}, line {line}: {shown}")


def listed(names: Iterable[str]) -> str:
    """Names for a message, as many and as much of them as one can take in."""
    names = [name if len(name) <= 40 else name[:40] + "..." for name in names]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def shown(line: bytes | str, limit: int = 80) -> str:
    """The beginning of a line for a message."""
    text = line if isinstance(line, str) else line[: limit * 4].decode(errors="backslashreplace")
    text = text.rstrip("\r\n")
    return repr(text if len(text) <= limit else text[:limit] + "...")
