"""A folder of checkpoints, written with Orbax. Each checkpoint is written whole, sealed with hashes, and checked.

A step's folder is written under a temporary name. It is sealed (`integrity`) and renamed when it is whole. If the run
is killed, a whole checkpoint is left or none. Damage that comes later is found before anything is read.
"""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from wpauc_jax.runtime import integrity

Tree = TypeVar("Tree")

_STEP_METADATA = "_CHECKPOINT_METADATA"  # Orbax writes it once more after the seal; nothing is read from it
_META = "meta.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used or written; the message says which, why, and what to do."""


class CheckpointFolder:
    """An Orbax manager over one folder, with a name for each item."""

    def __init__(self, directory: str | os.PathLike[str], items: Iterable[str], retention: Any) -> None:
        self.directory = pathlib.Path(directory).absolute()
        self._saving = -1
        self._before_seal: Callable[[], object] = lambda: None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=retention,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
            async_options=ocp.AsyncOptions(
                post_finalization_callback=self._seal,
                create_directories_asynchronously=False,  # on a disk that refuses them it would wait for minutes
            ),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix="-".join(self.directory.parts[-2:])  # two managers may write at a time
            ),
        )
        handlers: dict[str, Any] = {item: ocp.StandardCheckpointHandler() for item in items}
        handlers["meta"] = ocp.JsonCheckpointHandler(filename=_META)
        self._orbax = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """The steps of whole checkpoints, oldest first. Waits for one that is being written."""
        self.wait()
        return sorted(self._orbax.all_steps())

    def damage(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint, or None. Reads all of them."""
        return integrity.damage(self.directory / str(step))

    def wait(self) -> None:
        """Returns when what was saved is on disk. Raises CheckpointError where it could not be written."""
        with self._explained():
            self._orbax.wait_until_finished()

    def close(self) -> None:
        """Waits and lets go of the folder."""
        with self._explained():
            self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        with contextlib.suppress(CheckpointError):  # another error is on its way, and it is the one that matters
            self.close()

    def _save(self, step: int, before_seal: Callable[[], object] = lambda: None, **items: Any) -> None:
        self.wait()
        if (
            step in self._orbax.all_steps()
        ):  # Orbax would refuse to overwrite; a kill here leaves the checkpoint before this one
            self._orbax.delete(step)
        self._saving, self._before_seal = step, before_seal
        with self._explained():
            self._orbax.save(step, args=ocp.args.Composite(**items), force=True)

    def _seal(self) -> None:
        """What Orbax calls in the background, in one process, when all is written and the folder has no name yet."""
        self._before_seal()
        (folder,) = self.directory.glob(f"{self._saving}{ocp.utils.TMP_DIR_SUFFIX}*")
        integrity.seal(folder, leave_out=[_STEP_METADATA])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of whatever kind: Orbax hands on what its background threads met
            whole = [step for step in self._orbax.all_steps() if step != self._saving]
            left = f"the last good one is {max(whole)}" if whole else "there is none before it"
            raise CheckpointError(
                f"{self.directory / str(self._saving)} could not be written ({_cause(error)}); {left}. "
                "See that the disk has room and may be written to, then start the same command again."
            ) from error

    def _meta(self, step: int) -> dict[str, Any]:
        return read_meta(self.directory / str(step))

    def _delete(self, steps: Iterable[int]) -> None:
        for step in list(steps):
            self._orbax.delete(step)


def read_meta(folder: pathlib.Path) -> dict[str, Any]:
    """The JSON item of a checkpoint. One process may read it alone."""
    return json.loads((folder / "meta" / _META).read_text(encoding="utf-8"))


def read_arrays(path: pathlib.Path, like: Tree) -> Tree:
    """The arrays at `path` with the shapes, types and shardings of `like`."""
    handler = ocp.StandardCheckpointHandler()
    _check_arrays(path, _shapes(handler.metadata(path).tree), _shapes(like))
    with ocp.Checkpointer(handler) as reader:
        return reader.restore(path, args=ocp.args.StandardRestore(_abstract(like)))


def told_to_all(question: Callable[[], str | None]) -> str | None:
    """The answer of process 0, in every process. They must agree, and it is enough that one reads the files."""
    answer = question() if jax.process_index() == 0 else None
    return answer if not multihost_utils.broadcast_one_to_all(np.int32(bool(answer))) else answer or "see process 0"


def _cause(error: BaseException) -> str:
    """The operating system's word for it where there is one, such as "No space left on device"; else the error's."""
    found = re.search(r"os_error_code='(\d+)'", str(error))  # as tensorstore reports it
    code = error.errno if isinstance(error, OSError) else found and int(found[1])
    return os.strerror(code) if code else str(error)


def _abstract(tree: Tree) -> Tree:
    """Shapes, types and shardings only, so that nothing holds or touches the arrays themselves."""
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def one(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default)

    return jax.tree.map(one, tree)


def _shapes(tree: Any) -> dict[str, str]:
    """Each leaf's dotted name -> its type and shape, as "float32[2, 3]"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _check_arrays(path: pathlib.Path, saved: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    wrong = [f"  {name}: missing, wanted as {wanted[name]}" for name in sorted(wanted.keys() - saved.keys())]
    wrong += [f"  {name}: not wanted, found as {saved[name]}" for name in sorted(saved.keys() - wanted.keys())]
    wrong += [
        f"  {name}: {saved[name]}, wanted as {wanted[name]}"
        for name in sorted(saved.keys() & wanted.keys())
        if saved[name] != wanted[name]
    ]
    if wrong:
        lines = "\n".join(wrong[:20] + ([f"  and {len(wrong) - 20} more"] if len(wrong) > 20 else []))
        raise CheckpointError(
            f"{path} holds other arrays than this model:\n{lines}\n"
            "Set model and optimiser back, or use another work directory."
        )
