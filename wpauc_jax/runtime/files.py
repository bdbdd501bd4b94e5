"""Files that are whole or absent: nothing half-written is ever left under a final name."""

import contextlib
import os
import pathlib
import shutil
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
        with named_errors(final):
            yield temporary
            temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`, which becomes `path` when the block ends without an exception.

    After an exception nothing is left. Raises FileExistsError where there is something at `path` already.
    """
    final = pathlib.Path(path)
    if final.exists():
        raise FileExistsError(f"{final} exists; name another folder, or delete this one")
    temporary = final.with_name(f".{final.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives an OSError that names no file, as of a full disk, the name of `path`."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise
