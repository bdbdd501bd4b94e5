"""Files that are whole or absent. Nothing half-written is ever left under a final name."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

_OPEN_FILE = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")  # what this process has open; /dev/stdout leads to one
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)  # what a place that cannot be written to answers
_SHORT = 200  # bytes of a name that a temporary name keeps; a file system allows 255


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, which replaces `path` when the block ends without an exception.

    The folder is made if needed; the temporary name keeps `path`'s suffix, by which some writers choose a format.
    After an exception the temporary file is gone and an older `path` is untouched. What a killed process left of an
    earlier try is removed.

    A symbolic link stays, and the file to which it leads is replaced. A pipe or a device, as /dev/stdout and /dev/null
    are, gets the content written to it when the block has ended.
    """
    final = pathlib.Path(path)
    with named_errors(final):
        way = _way_in(final)
        if way is None:
            final = pathlib.Path(os.path.realpath(final))
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _beside(final) if way is None else _through(final, way) as temporary:
        yield temporary


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary folder beside `path`, which becomes `path` when the block ends without an exception.

    After an exception nothing is left. What a killed process left of an earlier try is removed. Raises FileExistsError
    where there is something at `path` already.
    """
    final = pathlib.Path(path)
    if final.exists():
        raise FileExistsError(f"{final} exists; name another folder, or delete this one")
    final.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(final.parent, final.name) as temporary, named_errors(final):
        yield temporary
        temporary.rename(final)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike[str], name: str, mode: int = 0o777) -> Iterator[pathlib.Path]:
    """Yields an empty hidden folder in `parent`, which is gone when the block ends.

    What a killed process left of one by the same name is removed.
    """
    _sweep(pathlib.Path(parent), name, "")
    folder = _temporary(pathlib.Path(parent), name, "", os.getpid())
    folder.mkdir(mode)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one plain file, so that writing the one would destroy the other."""
    try:
        first, second = os.stat(one), os.stat(other)
    except OSError:
        return False
    return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)


def runs(pid: int) -> bool:
    """Whether a process of this host has this id."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Gives an OSError that names no file, as of a full disk, the name of `path`."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object that is derived from elsewhere: empty for a file that is missing or damaged."""
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


@contextlib.contextmanager
def unless_read_only(path: str | os.PathLike[str], say: Callable[[str], None]) -> Iterator[None]:
    """For what can be made anew: where `path` cannot be written to at all, that is said, and no error."""
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        say(f"{path} cannot be written ({os.strerror(error.errno)}): it is left as it is")


@contextlib.contextmanager
def _beside(final: pathlib.Path) -> Iterator[pathlib.Path]:
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final.parent, final.stem, final.suffix)
    temporary = _temporary(final.parent, final.stem, final.suffix, os.getpid())
    try:
        with named_errors(final):
            yield temporary
            temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _through(target: pathlib.Path, way: str | int) -> Iterator[pathlib.Path]:
    """Collects what the block writes, and then writes it to a pipe or device, or to what is open already."""
    with scratch_folder(tempfile.gettempdir(), "wpauc_jax", 0o700) as folder:
        temporary = folder / f"content{target.suffix}"
        yield temporary
        sys.stdout.flush()  # what was printed before stands before it
        with named_errors(target), temporary.open("rb") as source:
            out = os.dup(way) if isinstance(way, int) else os.open(way, os.O_WRONLY | os.O_APPEND)
            try:
                while block := memoryview(source.read(2**20)):
                    while block:
                        block = block[os.write(out, block) :]  # a pipe may take a part only
            finally:
                os.close(out)


def _way_in(path: pathlib.Path) -> str | int | None:
    """How to write to what is no plain file: its path, or the number of the open file that it is; None otherwise."""
    for _ in range(40):  # as many symbolic links as Linux follows
        absolute = os.path.abspath(path)
        if found := _OPEN_FILE.fullmatch(absolute):
            return int(found[1])
        try:
            mode = os.lstat(absolute).st_mode
        except FileNotFoundError:
            return None
        if not stat.S_ISLNK(mode):
            return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else absolute
        path = pathlib.Path(os.path.dirname(absolute), os.readlink(absolute))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _temporary(folder: pathlib.Path, stem: str, suffix: str, pid: int) -> pathlib.Path:
    """The temporary name of this host's process `pid`: .STEM.HOST.PID.SUFFIX, which others on the disk leave alone."""
    short = os.fsdecode(os.fsencode(stem)[:_SHORT])
    return folder / f".{short}.{_host()}.{pid}{suffix}"


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _sweep(folder: pathlib.Path, stem: str, suffix: str) -> None:
    """Removes what processes of this host that are gone have left of a file or folder."""
    short = os.fsdecode(os.fsencode(stem)[:_SHORT])
    pattern = re.compile(rf"\.{re.escape(short)}\.(?:{_host()}\.)?(\d+){re.escape(suffix)}")
    with contextlib.suppress(OSError):  # another process sweeps as well, or may not
        for left in list(folder.iterdir()):
            found = pattern.fullmatch(left.name)
            if found and not runs(int(found[1])):
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)
