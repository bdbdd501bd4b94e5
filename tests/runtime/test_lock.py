"""One writer at a time, and a lock that nobody holds any more is no obstacle."""

import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from wpauc_jax.runtime import lock
from wpauc_jax.runtime.lock import LockError, respected, started_at, taken, this_process, unlocked

OWNER = """
import pathlib, sys, time
from wpauc_jax.runtime.lock import taken
with taken(pathlib.Path(sys.argv[1]), print):
    print("taken", flush=True)
    sys.stdin.read()
"""


def another(folder):
    """A process that holds the lock of `folder` until its standard input ends."""
    started = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout.readline() == "taken\n"
    return started


def write_lock(folder, **changes):
    folder.mkdir(exist_ok=True)
    mine = this_process()
    owner = {"host": mine.host, "pid": mine.pid, "started": mine.started} | changes
    (folder / ".lock").write_text(json.dumps(owner))


def test_a_lock_names_its_owner_and_goes_with_it(tmp_path):
    folder = tmp_path / "new" / "run"
    with taken(folder, pytest.fail):
        told = json.loads((folder / ".lock").read_text())
        assert told == {"host": platform.node(), "pid": os.getpid(), "started": started_at(os.getpid())}
        (folder / "work").write_text("")
    assert [path.name for path in folder.iterdir()] == ["work"]
    with pytest.raises(RuntimeError), taken(tmp_path / "refused", pytest.fail):
        raise RuntimeError
    assert not (tmp_path / "refused").exists()  # a run that was refused leaves no empty folder


def test_two_writers_and_readers(tmp_path):
    """The second ends with one line, the first does not notice; the third, after a kill, takes over with a line."""
    first = another(tmp_path)
    for kind in (taken, respected):
        message = f"^{tmp_path} is in use by process {first.pid}.*wait for its end$"
        with pytest.raises(LockError, match=message), kind(tmp_path, pytest.fail):
            raise AssertionError
    with unlocked(tmp_path, pytest.fail):
        pass
    first.stdin.close()
    assert first.wait(20) == 0 and not (tmp_path / ".lock").exists()
    with respected(tmp_path, pytest.fail):
        assert not (tmp_path / ".lock").exists()

    killed = another(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.wait(20)
    with respected(tmp_path, pytest.fail):
        pass
    told = []
    with taken(tmp_path, told.append):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert told == [f"the lock of process {killed.pid}, which did not end in order, is taken over"]
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("changes", [{"pid": 2**22 + 3}, {"started": "another time"}, {"pid": -1}])
def test_an_owner_that_is_gone_is_told_from_a_later_process_with_its_id(tmp_path, changes):
    write_lock(tmp_path, **changes)
    told = []
    with taken(tmp_path, told.append):
        assert "is taken over" in told[0]


def test_an_owner_that_runs_holds_its_lock_even_where_flock_does_not_work(tmp_path, monkeypatch):
    monkeypatch.setattr("wpauc_jax.runtime.lock._flocked", lambda file: True)
    write_lock(tmp_path)
    with pytest.raises(LockError, match="is in use by process"), taken(tmp_path, pytest.fail):
        raise AssertionError


def test_without_proc_a_process_id_must_do(tmp_path, monkeypatch):
    monkeypatch.setattr("wpauc_jax.runtime.lock._TOLD_BY_SYSTEM", tmp_path / "no" / "proc")
    assert started_at(os.getpid()) == ""
    write_lock(tmp_path, started="")
    with pytest.raises(LockError, match="is in use by process"), taken(tmp_path, pytest.fail):
        raise AssertionError
    write_lock(tmp_path, pid=2**22 + 3, started="")
    told = []
    with taken(tmp_path, told.append):
        assert "is taken over" in told[0]


def test_an_owner_on_another_host_is_not_judged(tmp_path):
    write_lock(tmp_path, host="elsewhere", pid=2**22 + 3)
    for kind in (taken, respected):
        with (
            pytest.raises(LockError, match=r"locked by process \d+ on elsewhere; .* delete .*\.lock, then start"),
            kind(tmp_path, pytest.fail),
        ):
            raise AssertionError
    assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', "[" * 5000])
def test_a_lock_that_was_never_written_to_its_end_has_no_owner(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with taken(tmp_path, pytest.fail):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_somebody_deleted_and_another_made_is_not_removed(tmp_path):
    with taken(tmp_path, pytest.fail):
        (tmp_path / ".lock").unlink()
        write_lock(tmp_path, host="elsewhere")
    assert (tmp_path / ".lock").exists()


@pytest.mark.parametrize("moment", ["_opened", "_flocked", "_owner", "this_process"])
def test_a_signal_while_the_lock_is_taken_leaves_none(tmp_path, monkeypatch, moment):
    do = getattr(lock, moment)

    def interrupted(*arguments):
        found = do(*arguments)
        if moment == "_opened":
            os.close(found)
            (tmp_path / "run" / ".lock").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(lock, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), taken(tmp_path / "run", pytest.fail):
        raise AssertionError
    left = list(tmp_path.rglob(".lock"))
    assert not left or (moment in ("_flocked", "_owner") and not left[0].read_text())
    monkeypatch.undo()
    with taken(tmp_path / "run", pytest.fail):
        pass
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_a_directory_that_cannot_be_written_to_needs_no_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wpauc_jax.runtime.lock._opened", refuse)
    told = []
    with taken(tmp_path, told.append):
        assert told == [f"{tmp_path} cannot be written to: nothing new will be kept there"]
    write_lock(tmp_path, host="elsewhere")  # another user's
    with pytest.raises(LockError, match="elsewhere"), taken(tmp_path, told.append):
        raise AssertionError
