"""Files that are whole or absent: nothing half-written is ever left under a final name."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which replaces `path` when the block ends without an exception.

    The folder is made if needed; the temporary name keeps `path`'s suffix, by which some writers choose a format.
    After an exception the temporary file is gone and an older `path` is untouched.
    """
    final = pathlib.Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.with_name(f".{final.stem}.{os.getpid()}{final.suffix}")
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
