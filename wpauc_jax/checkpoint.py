"""Checkpoints with Orbax: all that a killed run needs to go on, and the best parameters found.

`Checkpoints` holds the last few resumable states: the training state, the data iterator's place, and a JSON item with
what the run is (settings, hashes) and what it has found so far. `BestCheckpoint` holds the best parameters by a
validation metric. Each step's folder is written under a temporary name and renamed when whole, so a kill leaves either
a whole checkpoint or one that the next run ignores and removes.
"""

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import jax
import orbax.checkpoint as ocp
from grain.checkpoint import CheckpointHandler, CheckpointRestore, CheckpointSave

State = TypeVar("State")


class _Absent:
    """Stands for a field that is not there."""

    def __repr__(self) -> str:
        return "absent"


_ABSENT = _Absent()


class CheckpointError(ValueError):
    """A checkpoint that this run cannot use; the message says which, why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A resumable checkpoint, read back."""

    step: int  # updates done
    state: State
    record: dict[str, Any]  # what the loop had found by then, exactly as it was saved


@dataclasses.dataclass(frozen=True)
class Best:
    """The best parameters so far: where and how good."""

    step: int
    metrics: dict[str, float]


class _Manager:
    """An Orbax manager over one folder, with a name for each item. The writer of a folder also tidies it."""

    def __init__(
        self, directory: str | os.PathLike[str], handlers: dict[str, Any], *, keep: int | None, read_only: bool
    ) -> None:
        self.directory = pathlib.Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, create=not read_only, read_only=read_only
        )
        self._orbax = ocp.CheckpointManager(self.directory, options=options, item_handlers=handlers)
        if not read_only:
            for step in set(self._orbax.all_steps()) - set(self.steps()):
                logging.getLogger(__name__).warning("removed %s: half-written", self.directory / str(step))
                self._orbax.delete(step)

    def steps(self) -> list[int]:
        """The steps of whole checkpoints, oldest first. Waits for one that is being written."""
        self.wait()
        return sorted(step for step in self._orbax.all_steps() if self._is_whole(step))

    def wait(self) -> None:
        """Returns when what was saved is on disk. Raises what went wrong while it was written."""
        self._orbax.wait_until_finished()

    def close(self) -> None:
        self._orbax.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _save(self, step: int, **items: Any) -> None:
        if step in self._orbax.all_steps():  # Orbax would refuse; a kill in between leaves the checkpoint before it
            self._orbax.delete(step)
        self._orbax.save(step, args=ocp.args.Composite(**items), force=True)

    def _restore(self, step: int, **items: Any) -> Any:
        return self._orbax.restore(step, args=ocp.args.Composite(**items))

    def _arrays(self, step: int, item: str, like: State) -> State:
        """Item `item` of checkpoint `step` with the shapes, types and shardings of `like`."""
        path = self.directory / str(step) / item
        saved = self._orbax.item_metadata(step)[item]
        _check_arrays(path, _shapes(saved.tree), _shapes(like))
        return self._restore(step, **{item: ocp.args.StandardRestore(_abstract(like))})[item]

    def _meta(self, step: int) -> dict[str, Any]:
        return self._restore(step, meta=ocp.args.JsonRestore())["meta"]

    def _delete(self, steps: Iterable[int]) -> None:
        for step in list(steps):
            self._orbax.delete(step)

    def _is_whole(self, step: int) -> bool:
        folder = self.directory / str(step)
        return (folder / "_CHECKPOINT_METADATA").exists() and (folder / "meta").is_dir()


class Checkpoints(_Manager):
    """The last few resumable states of one stage of a run.

    Args:
      directory: this stage's folder; made if needed.
      keep: how many to keep. Two, so that one is whole while the next is written.
      meta: what the run is, as plain JSON values: settings, catalogue hash, data hash. A checkpoint of a run with
        another `meta` is refused. Leave out what a resumed run may change.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2, meta: Mapping[str, Any]) -> None:
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "data": CheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        }
        super().__init__(directory, handlers, keep=keep, read_only=False)
        self._run = json.loads(json.dumps(meta))  # as it will be read back: tuples become lists

    def save(self, step: int, state: Any, iterator: Any, record: Mapping[str, Any] | None = None) -> None:
        """Saves in the background. `state` may be donated to the next step as soon as this returns.

        A checkpoint that an earlier run left at `step` is replaced; one object saves a step once.

        Args:
          step: updates done.
          state: a pytree of arrays.
          iterator: a Grain iterator, or another object with its get_state.
          record: JSON values to find again in `Restored.record`.
        """
        self._save(
            step,
            state=ocp.args.StandardSave(state),
            data=CheckpointSave(iterator),
            meta=ocp.args.JsonSave({"run": self._run, "record": dict(record or {})}),
        )

    def restore(self, state_like: State, iterator: Any) -> Restored[State] | None:
        """The newest whole checkpoint, and `iterator` moved to its place; None where there is none.

        Args:
          state_like: a pytree of arrays or `jax.ShapeDtypeStruct`s; only its shapes, types and shardings are read, so
            its buffers may already be donated.
          iterator: a Grain iterator over the same data.

        Raises:
          CheckpointError: the checkpoint is another run's, or holds other arrays.
        """
        steps = self.steps()
        if not steps:
            return None
        step = steps[-1]
        meta = self._meta(step)
        self._check_run(step, meta["run"])
        state = self._arrays(step, "state", state_like)
        self._restore(step, data=CheckpointRestore(iterator))
        return Restored(step, state, meta["record"])

    def records(self) -> dict[int, dict[str, Any]]:
        """The record of each whole checkpoint by its step, oldest first. Waits for one that is being written."""
        return {step: self._meta(step)["record"] for step in self.steps()}

    def _check_run(self, step: int, saved: Mapping[str, Any]) -> None:
        before, now = _flat(saved), _flat(self._run)
        changes = _changes(before, now, sorted(before | now))
        if changes:
            lines = "\n".join(f"  {change}" for change in changes)
            raise CheckpointError(
                f"{self.directory / str(step)} was written by another run than this one:\n{lines}\n"
                "Use another work directory, or set these back."
            )


class BestCheckpoint(_Manager):
    """The best parameters by a validation metric, as (params, metrics, step).

    A better set is written beside the older one. The older goes when `prune` says that no resumable checkpoint counts
    on it any more, so at every moment some whole set is on disk; the newest is the best.
    """

    def __init__(self, directory: str | os.PathLike[str], *, read_only: bool = False) -> None:
        handlers = {"params": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
        super().__init__(directory, handlers, keep=None, read_only=read_only)

    def save(self, step: int, params: Any, metrics: Mapping[str, float]) -> None:
        """Saves in the background; `wait` returns when it is on disk."""
        self._save(
            step, params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave({"step": step, "metrics": dict(metrics)})
        )

    def rewind(self, step: int) -> None:
        """Removes what a killed run found beyond `step`: the resumed run finds it again. -1 removes all."""
        self._delete(best for best in self._orbax.all_steps() if best > step)

    def prune(self, keep: Collection[int]) -> None:
        """Removes all but the sets of steps `keep` and the newest."""
        self._delete(best for best in self.steps()[:-1] if best not in keep)

    def latest(self) -> Best | None:
        """Which set is the best so far; None where there is none."""
        steps = self.steps()
        return Best(**self._meta(steps[-1])) if steps else None

    def load(self, params_like: State) -> tuple[State, Best]:
        """The best parameters with the shapes, types and shardings of `params_like`.

        Raises:
          FileNotFoundError: there are none yet.
          CheckpointError: they are another model's; every missing, unknown or mis-shaped weight is named.
        """
        best = self.latest()
        if best is None:
            raise FileNotFoundError(f"no trained parameters in {self.directory}; train this stage first")
        return self._arrays(best.step, "params", params_like), best


def load_params(directory: str | os.PathLike[str], params_like: State) -> State:
    """The best parameters kept in `directory`, for evaluation or recommendation. Raises as `BestCheckpoint.load`."""
    if not pathlib.Path(directory).is_dir():
        raise FileNotFoundError(f"no trained parameters in {directory}; train this stage first")
    with BestCheckpoint(directory, read_only=True) as best:
        return best.load(params_like)[0]


def changed_settings(directory: str | os.PathLike[str], meta: Mapping[str, Any]) -> list[str]:
    """How the newest resumable checkpoint in `directory` differs from `meta`, a line for each field that `meta` has.

    None where they agree, or where there is no checkpoint.
    """
    if not pathlib.Path(directory).is_dir():
        return []
    handlers = {"meta": ocp.JsonCheckpointHandler()}
    with _Manager(directory, handlers, keep=None, read_only=True) as manager:
        steps = manager.steps()
        if not steps:
            return []
        saved = manager._meta(steps[-1])["run"]
    now = _flat(json.loads(json.dumps(meta)))  # as it was written: tuples become lists
    return _changes(_flat(saved), now, sorted(now))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [
        f"{name}: {before.get(name, _ABSENT)!r} then, {now.get(name, _ABSENT)!r} now"
        for name in names
        if before.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]


def _abstract(tree: State) -> State:
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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out
