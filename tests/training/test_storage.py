"""Damaged checkpoints are found and passed over; full and read-only disks are explained and spoil nothing."""

import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from unittest import mock

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import strategies as st

from tests import toy_run
from tests.training.test_checkpoint import META, POSITION, assert_same, make_state
from wpauc_jax.runtime import integrity
from wpauc_jax.training.checkpoint import BestCheckpoint, Checkpoints, load_best
from wpauc_jax.training.loop import Plan
from wpauc_jax.training.storage import CheckpointError

# Orbax dates this file once more after the checkpoint is sealed, and this one says that it did; neither is read.
NOT_SEALED = ("_CHECKPOINT_METADATA", "commit_success.txt")


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> pathlib.Path:
    """A folder with checkpoints 1 and 2, and best parameters 2."""
    folder = tmp_path_factory.mktemp("sound")
    with Checkpoints(folder / "checkpoints", meta=META) as checkpoints, BestCheckpoint(folder / "best") as best:
        for step in (1, 2):
            checkpoints.save(step, make_state(step), POSITION, {"best_step": step})
            best.save(step, make_state(step).params, {"ndcg@10": 0.5})
    return folder


@functools.cache
def files_of(folder: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def flip(path: pathlib.Path, at: float, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)


DAMAGES = {
    "flip": flip,
    "truncate": lambda path, at, bit: os.truncate(path, int(at * path.stat().st_size)),
    "grow": lambda path, at, bit: path.write_bytes(path.read_bytes() + bytes([bit])),
    "delete": lambda path, at, bit: path.unlink(),
}


@contextlib.contextmanager
def damaged(sound: pathlib.Path, item: str, data: st.DataObject, files: list[str]):
    """A copy of `item` of the sound folder with one of step 2's `files` damaged: yields the copy and the file."""
    name = data.draw(st.sampled_from(files))
    kind = data.draw(st.sampled_from(sorted(DAMAGES)))
    at, bit = data.draw(st.floats(0, 1, exclude_max=True)), data.draw(st.integers(0, 7))
    copy = sound.parent / "damaged"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound / item, copy)
    DAMAGES[kind](copy / "2" / name, at, bit)
    yield copy, name


def sealed_files(folder: pathlib.Path) -> list[str]:
    return [name for name in files_of(folder) if name not in NOT_SEALED]


@hypothesis.settings(max_examples=60)
@hypothesis.given(data=st.data())
def test_any_damage_to_any_file_is_found_named_and_passed_over(sound, data):
    files = sealed_files(sound / "checkpoints" / "2")
    with damaged(sound, "checkpoints", data, files) as (copy, name), Checkpoints(copy, meta=META) as checkpoints:
        restored = checkpoints.restore(make_state())
        assert_same(restored.state, make_state(1))
        assert restored.step == 1 and restored.record == {"best_step": 1}
        (note,) = restored.notes
        assert str(copy / "2") in note and (name in note or name == "hashes.json")
        assert checkpoints.steps() == [1]


@hypothesis.settings(max_examples=20)
@hypothesis.given(data=st.data())
def test_what_is_not_sealed_is_not_read(sound, data):
    with damaged(sound, "checkpoints", data, [*NOT_SEALED]) as (copy, _), Checkpoints(copy, meta=META) as checkpoints:
        restored = checkpoints.restore(make_state())
        assert restored.step == 2 and restored.notes == ()
        assert_same(restored.state, make_state(2))


@hypothesis.settings(max_examples=30)
@hypothesis.given(data=st.data())
def test_damaged_best_parameters_are_named_not_used(sound, data):
    files = sealed_files(sound / "best" / "2")
    with damaged(sound, "best", data, files) as (copy, name):
        with pytest.raises(CheckpointError) as caught:
            load_best(copy, make_state().params)
        assert f"{copy / '2'} is damaged" in str(caught.value)
        assert name in str(caught.value) or name == "hashes.json"


def test_every_file_is_sealed_but_what_is_not_read(sound):
    """The list of files above is not empty by mistake: arrays, tree and record are all in it."""
    sealed = sealed_files(sound / "checkpoints" / "2")
    assert {"hashes.json", "meta/meta.json", "state/_METADATA", "state/manifest.ocdbt"} <= set(sealed)
    assert any(name.startswith("state/d/") for name in sealed)
    assert {name for name in files_of(sound / "checkpoints" / "2") if name not in sealed} == set(NOT_SEALED)


def test_where_all_are_damaged_nothing_is_removed_and_the_error_says_what_to_do(sound, tmp_path):
    shutil.copytree(sound / "checkpoints", tmp_path / "checkpoints")
    for step in ("1", "2"):
        flip(tmp_path / "checkpoints" / step / "meta" / "meta.json", 0.5, 0)
    with (
        Checkpoints(tmp_path / "checkpoints", meta=META) as checkpoints,
        pytest.raises(
            CheckpointError, match=rf"(?s)2 is damaged: meta.*1 is damaged: meta.*delete {tmp_path} to start"
        ),
    ):
        checkpoints.restore(make_state())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_checkpoint_whose_best_parameters_are_damaged_is_passed_over(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    plan = dataclasses.replace(toy_run.PLAN, patience=0)
    expected = toy_run.run(whole, plan=plan)

    def dies(step):
        if step == 19:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy_run.run(broken, plan=plan, on_save=dies)
    newest = max((broken / "best").iterdir(), key=lambda path: int(path.name))
    flip(newest / "params" / "manifest.ocdbt", 0.9, 3)
    again = toy_run.run(broken, plan=plan)
    assert_same(again.state, expected.state)
    assert (again.best_step, again.best_metrics) == (expected.best_step, expected.best_metrics)


@contextlib.contextmanager
def mounted(folder: pathlib.Path):
    """A file system of 4 MiB at `folder`; False where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: pathlib.Path) -> None:
    """Writes until the disk is full."""
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_explained_and_the_run_goes_on_when_there_is_room(tmp_path, monkeypatch):
    expected = toy_run.run(tmp_path / "alone")
    with mounted(tmp_path / "small") as is_small, monkeypatch.context() as patch:

        def on_save(step):
            if step != 10:
                return
            if is_small:
                fill(tmp_path / "small" / "ballast")
            else:
                failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                patch.setattr(integrity, "seal", mock.Mock(side_effect=failure))

        with pytest.raises((CheckpointError, OSError), match="No space left on device") as caught:
            toy_run.run(tmp_path / "small", on_save=on_save)
        assert re.search(r"metrics\.jsonl|(checkpoints/10|best/\d+) could not be written", str(caught.value))
        patch.undo()
        (tmp_path / "small" / "ballast").unlink(missing_ok=not is_small)
        with Checkpoints(tmp_path / "small" / "checkpoints", meta=toy_run.META) as checkpoints:
            assert checkpoints.restore(toy_run.make_state()).step == 5
        assert_same(toy_run.run(tmp_path / "small").state, expected.state)


def test_a_full_disk_is_named_by_a_checkpoint(tmp_path):
    with mounted(tmp_path / "small") as is_small:
        if not is_small:
            pytest.skip("needs the right to mount a file system; the test above injects the error where there is none")
        with pytest.raises(CheckpointError) as caught, Checkpoints(tmp_path / "small", meta=META) as checkpoints:
            checkpoints.save(1, make_state(1), POSITION)
            checkpoints.wait()
            fill(tmp_path / "small" / "ballast")
            checkpoints.save(2, make_state(2), POSITION)
        assert f"{tmp_path / 'small' / '2'} could not be written (No space left on device)" in str(caught.value)
        assert "the last good one is 1" in str(caught.value)
        (tmp_path / "small" / "ballast").unlink()
        with Checkpoints(tmp_path / "small", meta=META) as checkpoints:
            assert_same(checkpoints.restore(make_state()).state, make_state(1))


def test_a_read_only_folder_is_explained_and_left_alone(tmp_path):
    expected = toy_run.run(tmp_path / "alone")
    folder = tmp_path / "folder"
    with mounted(folder) as is_mounted:
        if not is_mounted and os.geteuid() == 0:
            pytest.skip("root writes anywhere, and may not mount a read-only file system here")

        def dies(step):
            if step == 10:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            toy_run.run(folder, on_save=dies)
        make_read_only(folder, is_mounted, True)
        before = {name: (folder / name).read_bytes() for name in files_of.__wrapped__(folder)}
        with pytest.raises(OSError, match=rf"(Read-only file system|Permission denied): '{folder}/metrics.jsonl'"):
            toy_run.run(folder)
        message = r"6 could not be written \((Read-only file system|Permission denied)\); the last good one is 5"
        with (
            pytest.raises(CheckpointError, match=message),
            Checkpoints(folder / "checkpoints", meta=toy_run.META) as checkpoints,
        ):
            assert checkpoints.restore(toy_run.make_state()).step == 5
            checkpoints.save(6, toy_run.make_state(), POSITION)
        assert before == {name: (folder / name).read_bytes() for name in files_of.__wrapped__(folder)}
        make_read_only(folder, is_mounted, False)
        assert_same(toy_run.run(folder).state, expected.state)


def make_read_only(folder: pathlib.Path, is_mounted: bool, read_only: bool) -> None:
    if is_mounted:
        subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(folder)], check=True)
        return
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o500 if path.is_dir() else 0o400) if read_only else 0o700)


class Stuck:
    """A write that is not done before `release` is set."""

    def __init__(self, release: threading.Event) -> None:
        self._release = release

    def result(self, timeout=None):
        if not self._release.wait(30):
            raise TimeoutError("the steps waited for the storage")


def test_steps_go_on_while_the_storage_does_not_answer(tmp_path, monkeypatch):
    """At step 4 both the best parameters and a checkpoint are saved; their writes end when step 9 has begun."""
    release, taken = threading.Event(), []
    original = ocp.StandardCheckpointHandler.async_save

    async def async_save(self, *args, **kwargs):
        return [*(await original(self, *args, **kwargs)), Stuck(release)]

    inner = toy_run.make_step()

    def step(state, batch):
        taken.append(int(jax.device_get(state.step)))
        if taken[-1] == 8:
            assert not [path for path in (tmp_path / "checkpoints").iterdir() if path.name.isdecimal()]
            release.set()
        return inner(state, batch)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "async_save", async_save)
    for due in ("eval_steps", "save_steps"):
        monkeypatch.setattr(Plan, due, frozenset({4, 12}))
    result = toy_run.run(tmp_path, plan=Plan(total_steps=12, evals=2, select="norm"), step=step)
    assert taken == list(range(12)) and result.step == 12
    assert load_best(tmp_path / "best", toy_run.make_state().params)[1].step == result.best_step


RESHARD = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P, SingleDeviceSharding
from wpauc_jax.runtime import integrity
from wpauc_jax.training.checkpoint import Checkpoints

def state(sharding, seed):
    value = jax.random.normal(jax.random.key(seed), (8, 16))
    return {"w": jax.device_put(value, sharding), "step": jnp.int32(seed)}

def mesh(data, tensor):
    axes = ("data", "tensor")
    return NamedSharding(jax.make_mesh((data, tensor), axes, axis_types=(AxisType.Auto,) * 2), P(*axes))

layouts = [mesh(4, 2), mesh(2, 4), SingleDeviceSharding(jax.devices()[0]), mesh(8, 1)]
with Checkpoints(sys.argv[1], meta={}) as checkpoints:
    for step, layout in enumerate(layouts, start=1):
        checkpoints.save(step, state(layout, step), {"next_index": step})
        checkpoints.wait()
        for other in layouts:
            restored = checkpoints.restore(state(other, 0))
            assert restored.state["w"].sharding == other, restored.state["w"].sharding
            assert np.asarray(restored.state["w"]).tobytes() == np.asarray(state(layout, step)["w"]).tobytes()
            assert bool(restored.notes) == (other != layout)
            print(*restored.notes)
"""


def test_a_checkpoint_of_another_mesh_is_read_bit_for_bit_and_said(tmp_path):
    flags = os.environ.get("XLA_FLAGS", "")  # with others the same draws may have other bits
    done = subprocess.run(
        [sys.executable, "-c", RESHARD, str(tmp_path / "eight")],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (
        "checkpoint 1 was written by 1 process with 8 devices (mesh data 4, tensor 2) and goes on with "
        "1 process with 8 devices (mesh data 2, tensor 4)"
    ) in done.stdout
    with Checkpoints(tmp_path / "eight", meta={}) as checkpoints:  # and in this process, without a mesh
        restored = checkpoints.restore({"w": jnp.zeros((8, 16)), "step": jnp.int32(0)})
    (note,) = restored.notes
    assert note.startswith("checkpoint 4 was written by 1 process with 8 devices (mesh data 8, tensor 1) and goes on")
    assert note.endswith(f"with 1 process with {jax.device_count()} device{'s' if jax.device_count() > 1 else ''}")
    np.testing.assert_array_equal(restored.state["w"], jax.random.normal(jax.random.key(4), (8, 16)))
