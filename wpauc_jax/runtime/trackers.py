"""Trackers: where metrics go besides the work directory, for people who watch many runs in one place.

Each is a package of its own and an extra of this one. `metrics.jsonl` is written in any case.
"""

import dataclasses
import pathlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wpauc_jax.config import ConfigError
from wpauc_jax.runtime.files import atomic_path

PROJECT = "wpauc_jax"  # under which W&B and Trackio list the runs


class Tracker(Protocol):
    """Takes the numbers of each metric line."""

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """The numbers of a stage after `step` updates."""

    def rewind(self, stage: str, step: int) -> None:
        """The steps beyond `step` are taken again; -1: all of them."""

    def close(self) -> None:
        """Returns when nothing is left to be written."""


@dataclasses.dataclass(frozen=True)
class Tracked:
    """The run that is watched."""

    folder: pathlib.Path  # its work directory
    settings: Mapping[str, Any]  # its configuration, as JSON values

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def number(self) -> str:
        """What tells this run from others of its name, the same when it is resumed: kept in tracking/run_id."""
        path = self.folder / "tracking" / "run_id"
        if not path.is_file():
            with atomic_path(path) as temporary:
                temporary.write_text(secrets.token_hex(4), encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()


class _Nothing:
    """Takes nothing."""

    def __init__(self, run: Tracked | None = None) -> None:
        pass

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        pass

    def rewind(self, stage: str, step: int) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    """Events in WORKDIR/tensorboard through tensorboardX, one folder a stage."""

    def __init__(self, run: Tracked) -> None:
        self._make = _imported("tensorboard", _tensorboardx).SummaryWriter
        self._folder = run.folder / "tensorboard"
        self._writers: dict[str, Any] = {}

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if stage not in self._writers:
            self._writers[stage] = self._open(stage)
        for name, value in values.items():
            self._writers[stage].add_scalar(name, value, step)

    def rewind(self, stage: str, step: int) -> None:
        """TensorBoard then hides what an earlier run wrote beyond `step`."""
        if stage in self._writers:
            self._writers[stage].close()
        self._writers[stage] = self._open(stage, purge_step=step + 1)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _open(self, stage: str, **options: int) -> Any:
        """Another file of a stage. It has a number, since a second file of the same second would replace the first."""
        folder = self._folder / stage
        number = len(list(folder.glob("events*")))
        return self._make(str(folder), filename_suffix=f".{number}", **options)


class _WandB:
    """One run of Weights & Biases a work directory. Names begin with the stage, which has steps of its own."""

    def __init__(self, run: Tracked) -> None:
        wandb = _imported("wandb", _wandb)
        try:
            self._run = wandb.init(
                project=PROJECT,
                name=run.name,
                id=run.number(),
                resume="allow",
                dir=str(run.folder),
                config=dict(run.settings),
                save_code=False,
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            first = str(error).strip().partition("\n")[0]
            raise ConfigError(f"tracking=wandb: {first}; see `wandb login`, or set WANDB_MODE=offline") from error
        self._stages: set[str] = set()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in values.items()}})

    def rewind(self, stage: str, step: int) -> None:
        """What was sent stays: the steps that are taken again come twice."""

    def close(self) -> None:
        """W&B names a folder by the second: the next stage's must begin in another one, or its lines are lost."""
        self._run.finish()
        time.sleep(1.1)


class _Trackio:
    """One run of Trackio a work directory, in its own store on this machine unless the user's environment says else."""

    def __init__(self, run: Tracked) -> None:
        name = f"{run.name}-{run.number()}"
        self._run = _imported("trackio", _trackio).init(
            project=PROJECT, name=name, config=dict(run.settings), resume="allow", embed=False
        )

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        self._run.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

    def rewind(self, stage: str, step: int) -> None:
        """What was sent stays: the steps that are taken again come twice."""

    def close(self) -> None:
        self._run.finish()


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A tracker, and what imports the package that it needs, if any."""

    make: Callable[[Tracked], Tracker]
    package: Callable[[], Any] | None = None


def _tensorboardx() -> Any:
    import tensorboardX

    return tensorboardX


def _wandb() -> Any:
    import wandb

    return wandb


def _trackio() -> Any:
    import trackio

    return trackio


# By `tracking`, which is also the name of the extra.
TRACKERS: dict[str, _Kind] = {
    "none": _Kind(_Nothing),
    "tensorboard": _Kind(_TensorBoard, _tensorboardx),
    "wandb": _Kind(_WandB, _wandb),
    "trackio": _Kind(_Trackio, _trackio),
}


def check_tracking(name: str) -> None:
    """Raises ConfigError, which names the extra, where the package of a tracker is not installed."""
    package = TRACKERS[name].package
    if package is not None:
        _imported(name, package)


def open_tracker(name: str, run: Tracked, *, enabled: bool = True) -> Tracker:
    """The tracker of that name; one that takes nothing where it is not `enabled`, as on all processes but one.

    Raises ConfigError where it cannot begin.
    """
    return TRACKERS[name if enabled else "none"].make(run)


def _imported(name: str, package: Callable[[], Any]) -> Any:
    try:
        return package()
    except ImportError as error:
        raise ConfigError(f"tracking={name} needs a package: pip install 'wpauc_jax[{name}]' ({error})") from error
