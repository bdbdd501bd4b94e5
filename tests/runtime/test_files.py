"""A file is whole or absent; what is no plain file is written to as it is."""

import os
import pathlib
import stat
import subprocess
import sys
import threading

import pytest

from wpauc_jax.runtime.files import atomic_folder, atomic_path, is_same_file, scratch_folder

GONE = 2**22 + 7  # above the largest process id of Linux


def write(path, text="new"):
    with atomic_path(path) as temporary:
        temporary.write_text(text)
        return temporary


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == path.parent and temporary.suffix == ".txt"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_one_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="half way"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half way")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_scratch_folder_goes_and_so_does_a_killed_processs(tmp_path):
    left = tmp_path / f".fetch.{GONE}"
    left.mkdir()
    (left / "half").write_text("ne")
    with scratch_folder(tmp_path, "fetch", 0o700) as folder:
        assert list(tmp_path.iterdir()) == [folder] and stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "a").write_text("new")
    assert not list(tmp_path.iterdir())


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    target, link, second = tmp_path / "real" / "a.txt", tmp_path / "link.txt", tmp_path / "second.txt"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to("real/a.txt")
    second.symlink_to(link)
    assert write(second).parent == target.parent
    assert (second.is_symlink(), link.is_symlink(), target.read_text()) == (True, True, "new")
    dangling = tmp_path / "dangling.txt"
    dangling.symlink_to("real/b.txt")
    write(dangling)
    assert dangling.is_symlink() and (tmp_path / "real" / "b.txt").read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop"):
        write(tmp_path / "loop")


def test_a_pipe_and_a_device_are_written_to(tmp_path):
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe, "x" * 200_000)  # more than a pipe holds
    reader.join()
    assert read == ["x" * 200_000] and stat.S_ISFIFO(pipe.lstat().st_mode)
    write("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    link = tmp_path / "null"
    link.symlink_to("/dev/null")
    write(link)
    assert link.is_symlink()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write("/dev/full")
    with pytest.raises(RuntimeError), atomic_path(pipe):
        raise RuntimeError  # and nothing waits for a reader


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_gets_it_behind_what_was_printed(tmp_path, name, kind):
    program = (
        "from wpauc_jax.runtime.files import atomic_path\n"
        "print('before')\n"
        f"with atomic_path({name!r}) as path: path.write_text('the content\\n')\n"
        "print('after')\n"
    )
    with open(tmp_path / "out", "w+") as file:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=file if kind == "file" else subprocess.PIPE, text=True, check=True
        )
    assert (done.stdout or (tmp_path / "out").read_text()) == "before\nthe content\nafter\n"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name), atomic_path(tmp_path):
        raise AssertionError("before any work is done")


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "recommendations.jsonl"
    here = write(path)  # .recommendations.HOST.PID.jsonl
    host = here.name.split(".")[2]
    left = [f".recommendations.{host}.{GONE}.jsonl", f".recommendations.{GONE}.jsonl"]  # of now, of earlier versions
    kept = [
        f".recommendations.{host}.{os.getppid()}.jsonl",  # this one still runs
        f".recommendations.0ther0.{GONE}.jsonl",  # whether this one runs is not to be seen from here
        f".recommendations.{host}.{GONE}.npz",
        f".other.{host}.{GONE}.jsonl",
        ".recommendations.jsonl",
    ]
    for name in (*left, *kept):
        (tmp_path / name).write_text("half")
    write(path)
    assert {one.name for one in tmp_path.iterdir()} == {path.name, *kept}
    for name in (f".export.{GONE}", f".export.{host}.{GONE}"):
        (tmp_path / name / "inside").mkdir(parents=True)
    with atomic_folder(tmp_path / "export") as folder:
        (folder / "a").write_text("a")
    assert {one.name for one in tmp_path.iterdir()} == {path.name, "export", *kept}


def test_a_writer_that_is_killed_leaves_nothing_once_the_next_has_written(tmp_path):
    path = tmp_path / "a.out"
    program = (
        "import os, sys; from wpauc_jax.runtime.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('ha'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
    write(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_no_trouble(tmp_path):
    for name in ("n" * 250 + ".txt", "é" * 120 + ".txt"):
        write(tmp_path / name)
        assert (tmp_path / name).read_text() == "new"


def test_file_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.txt")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "b").write_text("b")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.txt", "folder", "folder/b")]
    assert modes == [0o640, 0o750, 0o640]


def test_one_file_by_two_paths_is_seen(tmp_path):
    one, link, hard = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    one.write_text("")
    link.symlink_to(one)
    os.link(one, hard)
    assert is_same_file(one, link) and is_same_file(hard, one)
    assert not is_same_file(one, pathlib.Path("/dev/null")) and not is_same_file("/dev/null", "/dev/null")
    assert not is_same_file(one, tmp_path / "absent")
