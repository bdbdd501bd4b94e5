"""All that a killed run needs to go on, and the best parameters found.

`Checkpoints` holds the last few resumable states: the training state, and a JSON item with the data's position, what
the run is (settings, hashes) and what it has found so far. `BestCheckpoint` holds the best parameters by a validation
metric. How a folder of either is written and checked is in `storage`.
"""

import dataclasses
import functools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import orbax.checkpoint as ocp

from wpauc_jax.config.recorded import differences
from wpauc_jax.runtime import integrity
from wpauc_jax.training.storage import CheckpointError, CheckpointFolder, read_arrays, read_meta, told_to_all

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Restored(Generic[State]):
    """A resumable checkpoint, read back."""

    step: int  # updates done
    state: State
    position: Any  # the data iterator's, exactly as it was saved
    record: dict[str, Any]  # what the loop had found by then, exactly as it was saved
    notes: tuple[str, ...] = ()  # what the user should know: damaged checkpoints passed over, other devices than before
    changes: tuple[str, ...] = ()  # how the run is another one now, where it may be


@dataclasses.dataclass(frozen=True)
class Best:
    """The best parameters so far: where and how good."""

    step: int
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Retention(ocp.checkpoint_managers.PreservationPolicy):
    """Which checkpoints stay: the newest `keep`, and the newest from which `reach` steps can be taken back."""

    keep: int
    reach: int

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: ocp.checkpoint_managers.PreservationContext
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        dropped = self.dropped(steps)
        return [step not in dropped for step in steps]

    def dropped(self, steps: Sequence[int]) -> set[int]:
        """Those that do not stay."""
        kept = set(sorted(steps)[-self.keep :])
        return set(steps) - kept - {max((step for step in steps if step <= max(steps) + 1 - self.reach), default=-1)}


class Checkpoints(CheckpointFolder):
    """The last few resumable states of one stage of a run.

    Args:
      directory: this stage's folder; made if needed.
      keep: how many to keep. Two, so that one is whole while the next is written and one is left if it is damaged.
      reach: how many steps it must be possible to take back: an older checkpoint is kept for it where it is needed.
      meta: what the run is, as plain JSON values: settings, catalog hash, data hash. A checkpoint of a run with
        another `meta` is refused: see `config.recorded`. Leave out what a resumed run may change without a word.
      may_change: dotted names of `meta` that may be others than in the checkpoint; `Restored.changes` tells.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 2,
        reach: int = 1,
        meta: Mapping[str, Any],
        may_change: Collection[str] = (),
    ) -> None:
        self._retention = _Retention(keep, reach)
        super().__init__(directory, ["state"], self._retention)
        self._may_change = may_change
        self._run = json.loads(json.dumps(meta))  # as it will be read back: tuples become lists
        self._records: dict[int, dict[str, Any]] = {}

    def save(
        self,
        step: int,
        state: Any,
        position: Any,
        record: Mapping[str, Any] | None = None,
        *,
        before_seal: Callable[[], object] = lambda: None,
    ) -> None:
        """Saves in the background. `state` may be donated to the next step as soon as this returns.

        Returns as soon as `state` is copied, unless the save before this one is not done yet. A checkpoint that an
        earlier run left at `step` is replaced; one object saves a step once.

        Args:
          step: updates done.
          state: a pytree of arrays.
          position: where the data iterator stands, as JSON values, the same in every process.
          record: JSON values to find again in `Restored.record`.
          before_seal: called in the background before the checkpoint counts as whole: it waits for what this
            checkpoint counts on.
        """
        self._records[step] = dict(record or {})
        meta = {"run": self._run, "record": self._records[step], "position": position, "devices": _devices(state)}
        self._save(step, before_seal, state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))

    def restore(
        self, state_like: State, unusable: Callable[[Mapping[str, Any]], str | None] = lambda record: None
    ) -> Restored[State] | None:
        """The newest whole checkpoint; None where there is none. Damaged ones after it are removed and noted.

        Args:
          state_like: a pytree of arrays or `jax.ShapeDtypeStruct`s; only its shapes, types and shardings are read, so
            its buffers may already be donated. The checkpoint may come from another mesh or number of processes.
          unusable: record -> why this checkpoint cannot be used though it is whole, or None.

        Raises:
          CheckpointError: the checkpoint is another run's, holds other arrays, or all there are are damaged.
        """
        faults: list[str] = []
        for step in reversed(self.steps()):
            fault = told_to_all(functools.partial(self._fault, step, unusable))
            if not fault:
                return self._restore(step, state_like, faults)
            faults.append(f"{self.directory / str(step)} is damaged: {fault}")
        if faults:
            raise CheckpointError(
                "\n".join(faults) + f"\nThere is no other; delete {self.directory.parent} to start this stage anew."
            )
        return None

    def records(self) -> dict[int, dict[str, Any]]:
        """The record of each checkpoint that this object restored or saved. Waits for one that is being written."""
        return {step: self._records[step] for step in self.steps()}

    def rewind(self, step: int) -> None:
        """Removes what is beyond `step`, the newest first, so that a kill leaves no gap."""
        self._delete(later for later in reversed(self.steps()) if later > step)

    def _restore(self, step: int, state_like: State, faults: list[str]) -> Restored[State]:
        meta = self._meta(step)
        self._check_run(step, meta["run"])
        changes = differences(meta["run"], self._run)  # such as may be
        state = read_arrays(self.directory / str(step) / "state", state_like)
        self.rewind(step)
        self._delete(self._retention.dropped(self.steps()))  # a run that was killed after a save may have left them
        self._read_older_records(step)
        self._records[step] = meta["record"]
        notes = [f"{fault}; it is removed, and the one before used" for fault in faults]
        before, now = meta["devices"], _devices(state_like)
        if before != now:
            notes.append(f"checkpoint {step} was written by {_worded(before)} and goes on with {_worded(now)}")
        return Restored(step, state, meta["position"], meta["record"], tuple(notes), tuple(changes))

    def _fault(self, step: int, unusable: Callable[[Mapping[str, Any]], str | None]) -> str | None:
        return self.damage(step) or unusable(self._meta(step)["record"])

    def _read_older_records(self, step: int) -> None:
        """Of the older checkpoints; one that a kill left half removed goes."""
        for older in [one for one in self.steps() if one < step]:
            if told_to_all(functools.partial(integrity.damage, self.directory / str(older), under="meta/")):
                self._delete([older])
            else:
                self._records[older] = self._meta(older)["record"]

    def _check_run(self, step: int, saved: Mapping[str, Any]) -> None:
        changes = differences(saved, self._run, leave_out=self._may_change)
        if changes:
            lines = "\n".join(f"  {change}" for change in changes)
            raise CheckpointError(
                f"{self.directory / str(step)} was written by another run than this one:\n{lines}\n"
                "Use another work directory, or set these back."
            )


class BestCheckpoint(CheckpointFolder):
    """The best parameters by a validation metric, as (params, metrics, step).

    A better set is written beside the older one. The older goes when `prune` says that no resumable checkpoint counts
    on it any more, so at every moment some whole set is on disk; the newest is the best.

    Args:
      directory: this stage's folder; made if needed.
      trained_with: what the parameters depend on, as JSON values; `trained_with` gives it back.
    """

    def __init__(self, directory: str | os.PathLike[str], *, trained_with: Mapping[str, Any] | None = None) -> None:
        super().__init__(directory, ["params"], ocp.checkpoint_managers.preservation_policy.PreserveAll())
        self._trained_with = {"trained_with": trained_with} if trained_with else {}

    def save(self, step: int, params: Any, metrics: Mapping[str, float]) -> None:
        """Saves in the background; `wait` returns when it is on disk."""
        meta = {"step": step, "metrics": dict(metrics), **self._trained_with}
        self._save(step, params=ocp.args.StandardSave(params), meta=ocp.args.JsonSave(meta))

    def rewind(self, step: int) -> None:
        """Removes what a killed run found beyond `step`: the resumed run finds it again. -1 removes all."""
        self._delete(best for best in self.steps() if best > step)

    def prune(self, keep: Collection[int]) -> None:
        """Removes all but the sets of steps `keep` and the newest, which may still be on its way to the disk."""
        self._delete(best for best in sorted(self._orbax.all_steps())[:-1] if best not in keep)


def load_best(directory: str | os.PathLike[str], params_like: State) -> tuple[State, Best]:
    """The best parameters kept in `directory`, with the shapes, types and shardings of `params_like`.

    Only reads: a run that writes there is not disturbed.

    Raises:
      FileNotFoundError: there are none yet.
      CheckpointError: they are damaged, or another model's; every missing, unknown or mis-shaped weight is named.
    """
    folder = _newest(directory)
    if folder is None:
        raise FileNotFoundError(f"no trained parameters in {directory}; train this stage first")
    fault = told_to_all(lambda: integrity.damage(folder))
    if fault:
        raise CheckpointError(f"{folder} is damaged: {fault}; {_way_back(folder)}")
    meta = read_meta(folder)
    return read_arrays(folder / "params", params_like), Best(meta["step"], meta["metrics"])


def load_params(directory: str | os.PathLike[str], params_like: State) -> State:
    """The parameters of `load_best` alone."""
    return load_best(directory, params_like)[0]


def best_seal(directory: str | os.PathLike[str]) -> str | None:
    """What tells the best parameters in `directory` from any others: the hash of their files' hashes; or None."""
    newest = _newest(directory)
    return integrity.fingerprint(newest) if newest else None


def trained_with(stage: pathlib.Path) -> dict[str, Any]:
    """What the best parameters of a stage's folder were trained with, as `BestCheckpoint` was told.

    Versions before kept only the identity of the run, and only beside the resumable states: then {"identity": ...}.
    Empty where nothing says it.
    """
    best, newest = _newest(stage / "best"), _newest(stage / "checkpoints")
    if best and not integrity.damage(best, under="meta/"):
        meta = read_meta(best)
        if "trained_with" in meta:
            return meta["trained_with"]
    if newest and not integrity.damage(newest, under="meta/"):
        return {"identity": read_meta(newest)["run"]}
    return {}


def holds_steps(directory: str | os.PathLike[str]) -> bool:
    """Whether there are checkpoints, or best parameters, in `directory`, whole or not."""
    return _newest(directory) is not None


def finished_step(
    directory: str | os.PathLike[str],
    best: str | os.PathLike[str],
    meta: Mapping[str, Any],
    *,
    leave_out: Collection[str] = (),
) -> int | None:
    """The step at which the stage of this `meta` has come to its end, if its best parameters in `best` are sound.

    None otherwise. Differences by the names `leave_out` do not count. Reads no state: a stage that is at its end has no
    use for it.
    """
    step, found = _newest_meta(directory)
    if found is None or differences(found["run"], meta, leave_out=leave_out) or not _has_ended(found["record"], best):
        return None
    return step


def finished_record(directory: str | os.PathLike[str], best: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a stage that has come to its end and whose best parameters are sound; None otherwise.

    It has "best_step", and "best_metrics", the validation of these parameters.
    """
    _, found = _newest_meta(directory)
    return found["record"] if found is not None and _has_ended(found["record"], best) else None


def _newest_meta(directory: str | os.PathLike[str]) -> tuple[int, dict[str, Any] | None]:
    """The step and the meta of the newest checkpoint; None where there is none whose meta is sound."""
    newest = _newest(directory)
    if newest is None or integrity.damage(newest, under="meta/"):
        return 0, None
    return int(newest.name), read_meta(newest)


def _has_ended(record: Mapping[str, Any], best: str | os.PathLike[str]) -> bool:
    return bool(record.get("finished")) and not integrity.damage(pathlib.Path(best) / str(record["best_step"]))


def drop_leftovers(directory: str | os.PathLike[str], *, keep: int = 2, reach: int = 1) -> None:
    """Removes what `Checkpoints` with these numbers would not have kept.

    For a stage at its end, which opens its checkpoints no more: a kill right after the last save may have left older
    ones, whole or half removed.
    """
    steps = {int(path.name): path for path in pathlib.Path(directory).glob("*") if path.name.isdecimal()}
    for step in _Retention(keep, reach).dropped(list(steps)):
        shutil.rmtree(steps[step], ignore_errors=True)


def changed_settings(directory: str | os.PathLike[str], meta: Mapping[str, Any]) -> list[str]:
    """How the newest resumable checkpoint in `directory` differs from `meta`, a line for each field that `meta` has.

    None where they agree, or where there is no checkpoint.
    """
    newest = _newest(directory)
    return differences(read_meta(newest)["run"], meta, only=True) if newest else []


def _way_back(best: pathlib.Path) -> str:
    """What helps where these best parameters are damaged: a checkpoint that does not need them, or none."""
    stage = best.parent.parent
    for path in sorted((stage / "checkpoints").glob("*"), key=lambda path: path.name.zfill(20), reverse=True):
        if not path.name.isdecimal() or integrity.damage(path):
            continue
        needed = read_meta(path)["record"]["best_step"]
        if needed < 0 or not integrity.damage(best.parent / str(needed)):
            return f"start the training command again: it goes back to the checkpoint of step {path.name}"
    return f"no checkpoint does without it: delete {stage} and start the training command again"


def _newest(directory: str | os.PathLike[str]) -> pathlib.Path | None:
    """The folder of the newest step, whole or not; None where there is none."""
    folders = [path for path in pathlib.Path(directory).absolute().glob("*") if path.name.isdecimal()]
    return max(folders, key=lambda path: int(path.name), default=None)


def _devices(state: Any) -> dict[str, Any]:
    """What a state lies on: processes, devices and the mesh's axes."""
    shardings = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(state)]
    meshes = [dict(one.mesh.shape) for one in shardings if isinstance(one, jax.sharding.NamedSharding)]
    return {"processes": jax.process_count(), "devices": jax.device_count(), "mesh": meshes[0] if meshes else {}}


def _worded(devices: Mapping[str, Any]) -> str:
    processes, count = devices["processes"], devices["devices"]
    text = f"{processes} process{'es' if processes > 1 else ''} with {count} device{'s' if count > 1 else ''}"
    axes = ", ".join(f"{axis} {size}" for axis, size in devices["mesh"].items())
    return f"{text} (mesh {axes})" if axes else text
