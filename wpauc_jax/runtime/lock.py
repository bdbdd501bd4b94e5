"""One writer at a time: a lock of a work directory, which says who holds it.

The lock is the file `.lock` in the directory, with the owner's host, process id and the time at which that process
started. It is made by O_EXCL, which is atomic on local disks and on NFS from version 3 on. The owner also keeps a
`flock` on it, which the kernel drops when the owner dies.

Who finds a lock decides so:
- The owner is on this host and runs, or its `flock` holds: an error that names it.
- The owner is on this host and is gone, or its process id belongs to a process that started at another time: it was
  killed. The lock is taken over, with a line that says so.
- The owner is on another host: an error that says how to remove the lock. Whether that process runs cannot be seen from
  here, not even by `flock`, which some NFS servers grant to everyone.

Where `flock` does not work (some network file systems), two commands that find the lock of a killed one in the very
same millisecond could both take it. Where the directory cannot be written to at all, there is nothing to protect.

Several processes of one run are one owner: process 0 takes the lock, the others wait for its word.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
from collections.abc import Callable, Iterator
from typing import Any

from wpauc_jax.runtime.distributed import is_main_process, main_process_first
from wpauc_jax.runtime.files import READ_ONLY, named_errors, runs
from wpauc_jax.runtime.interrupts import before_leaving

NAME = ".lock"
_TOLD_BY_SYSTEM = pathlib.Path("/proc/self")  # absent on macOS, where a process id alone must do


class LockError(ValueError):
    """Another process writes to the work directory; the message names it and says what to do."""


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process, told apart from a later one with the same id by the time at which it started."""

    host: str
    pid: int
    started: str  # as the system counts it; only to be compared

    def is_gone(self) -> bool:
        """Whether this process of this host has ended."""
        if not _TOLD_BY_SYSTEM.is_dir():
            return not runs(self.pid)
        return started_at(self.pid) != self.started


def this_process() -> Owner:
    """The process that asks."""
    return Owner(platform.node(), os.getpid(), started_at(os.getpid()))


def started_at(pid: int) -> str:
    """When a process of this host started, in the system's own words; empty where there is none, or no /proc."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = (_TOLD_BY_SYSTEM.parent / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot} {fields[19]}"  # a zombie writes nothing any more


@contextlib.contextmanager
def taken(folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """The block is the only writer of `folder`, which is made if needed. Raises LockError where another one writes."""
    with contextlib.ExitStack() as stack:
        with main_process_first("taking the lock of the work directory"):
            if is_main_process():
                stack.enter_context(_taken(folder, say))
        yield


@contextlib.contextmanager
def respected(folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """For a block that only reads `folder`: takes no lock, and raises LockError where another process writes there."""
    with main_process_first("looking at the lock of the work directory"):
        if is_main_process():
            _refuse_if_held(folder / NAME)
    yield


@contextlib.contextmanager
def unlocked(folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    """For a block to which it does not matter who writes in `folder`."""
    yield


@contextlib.contextmanager
def _taken(folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    lock = _Lock(folder)
    with before_leaving(lock.release):
        try:
            lock.take(say)
            yield
        finally:
            lock.release()


class _Lock:
    """The lock of a directory, in whatever state a signal may find it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._path = folder, folder / NAME
        self._made = False  # whether this process made the directory
        self._file: int | None = None
        self._mine = False

    def take(self, say: Callable[[str], None]) -> None:
        """Raises LockError where another process has it."""
        self._made = not self._folder.exists()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with named_errors(self._path):
                while not self._mine:
                    self._file = _opened(self._path)
                    self._judge(say)
                    self._write()
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            _refuse_if_held(self._path)
            say(f"{self._folder} cannot be written to: nothing new will be kept there")

    def release(self) -> None:
        """Removes the lock, if it is this process's."""
        file, self._file = self._file, None
        if file is not None:
            if self._mine and _is_same(file, self._path):  # not what somebody made after this one was deleted
                self._path.unlink()  # while the flock is held: who waits for it then sees that the file is gone
            os.close(file)
        if self._made:
            with contextlib.suppress(OSError):  # a run that was refused leaves no empty folder
                self._folder.rmdir()

    def _judge(self, say: Callable[[str], None]) -> None:
        """Sees whether the lock that is open can be taken; if it has been released, it is opened anew."""
        file = self._file
        assert file is not None
        free = _flocked(file)
        if free and not _is_same(file, self._path):
            os.close(file)
            self._file = None
            return
        owner = _owner(file)
        if not free or (owner and not _is_stale(owner)):
            raise LockError(_refusal(self._path, owner))
        self._mine = True
        if owner:
            say(f"the lock of process {owner.pid}, which did not end in order, is taken over")

    def _write(self) -> None:
        if self._mine and self._file is not None:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, json.dumps(dataclasses.asdict(this_process())).encode(), 0)


def _refuse_if_held(path: pathlib.Path) -> None:
    """Raises LockError where the lock's owner is not known to be gone. What cannot be read names no owner."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return
    owner = _owner(file)
    os.close(file)
    if owner and not _is_stale(owner):
        raise LockError(_refusal(path, owner))


def _opened(path: pathlib.Path) -> int:
    """A descriptor of the lock, which is made if needed."""
    while True:
        with contextlib.suppress(FileExistsError):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR)


def _flocked(file: int) -> bool:
    """False where another process holds the flock. True as well where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _is_same(file: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(file: int) -> Owner | None:
    """Who the lock names; None for an empty or damaged one, which no owner has finished."""
    try:
        content: Any = json.loads(os.pread(file, 4096, 0))
        return Owner(str(content["host"]), int(content["pid"]), str(content["started"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_stale(owner: Owner) -> bool:
    return owner.host == platform.node() and owner.is_gone()


def _refusal(path: pathlib.Path, owner: Owner | None) -> str:
    who = f"process {owner.pid} on {owner.host}" if owner else "another process"
    if owner and owner.host != platform.node():
        return (
            f"{path.parent} is locked by {who}; if nothing runs there any more, delete {path}, "
            "then start the same command again"
        )
    return f"{path.parent} is in use by {who}; one command at a time works in it: wait for its end"
