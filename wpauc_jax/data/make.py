"""Raw interactions become a prepared directory: they are read, filtered, split, numbered and hashed.

Users and items are numbered in the order of their raw ids. Numbers come before words, and numbers go by their value. A
user's interactions are sorted by time, and equal times keep the order of the file. So the order of the lines matters
only where times are equal, and the same input gives the same bytes.

A prepared directory appears whole or not at all. Until then, what was read from the files waits beside it in a hidden
folder. If a run is stopped, the next one goes on from there.
"""

import contextlib
import dataclasses
import datetime
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import provenance
from wpauc_jax.data.archives import NAMES
from wpauc_jax.data.build import Prepared, build
from wpauc_jax.data.dataset import PER_SECOND
from wpauc_jax.data.fetch import fetch, local_copy
from wpauc_jax.data.ingest import Records, read_records
from wpauc_jax.data.recorded import READ_SETTINGS, reading_folder, recorded_settings
from wpauc_jax.data.sources import DataError, RawData, ReadOptions, read, synthetic
from wpauc_jax.data.statistics import statistics_table
from wpauc_jax.data.store import write_prepared

_OPTIONS = tuple(field.name for field in dataclasses.fields(ReadOptions))
_USUAL = DataConfig()
_READ_VERSION = 2  # of what the first stage leaves; what another version read is read again

Progress = Callable[[str], None]


def prepare_new(config: DataConfig, folder: pathlib.Path, say: Progress) -> None:
    """Prepares `folder`, which does not exist or is empty, or goes on where a stopped run left off."""
    _check_used(config)
    stage = reading_folder(folder)
    path = None if config.source == "synthetic" else _path(config, say)
    with _naming(path):
        try:
            records = read_records(lambda: _open(config, path, say), stage, _key(config, path), _window(config), say)
        except DataError:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        prepared = _build(records, config, say)
    facts = {
        "settings": recorded_settings(config),
        "input": records.facts["files"],
        "sources": provenance.recorded(records.facts["paths"], records.facts["files"], path),
        "time_unit": records.facts["time_unit"],
        "times": records.facts["dates"],
    }
    write_prepared(folder, prepared, facts)
    say(statistics_table(prepared.statistics))
    shutil.rmtree(stage, ignore_errors=True)


def _build(records: Records, config: DataConfig, say: Progress) -> Prepared:
    """The second stage, between what is to be said of the first one and of itself."""
    facts = records.facts
    for note in facts["notes"]:
        say(note)
    for name, count in facts["rejects"].items():
        say(f"left out {count:,} rows: {name}; the first is {facts['first_rejects'][name]}")
    say(f"preparing {len(records.columns['user']):,} interactions")
    if config.split == "published" and "split" not in records.columns:
        raise DataError(f"data.split='published' needs data that comes with its splits; {config.source!r} does not")
    if config.split != "published" and "split" in records.columns:
        say(f"the published splits are not used: data.split={config.split!r} makes others")
        del records.columns["split"]
    if config.split == "chronological" and facts["time_unit"] == "order":
        raise DataError(
            "data.split='chronological' needs times, and this format has only each user's order; use leave_one_out"
        )
    prepared = build(records, config)
    for note in prepared.notes:
        say(note)
    return prepared


@contextlib.contextmanager
def _naming(path: pathlib.Path | None) -> Iterator[None]:
    """Every error of data names the file or the folder that was read."""
    try:
        yield
    except DataError as error:
        folder = "" if path is None else str(path if path.is_dir() else path.parent / "_")[:-1]
        if path is None or str(path) in str(error) or (folder and str(error).startswith(folder)):
            raise
        raise DataError(f"{path}: {error}") from error


def _check_used(config: DataConfig) -> None:
    """Raises ConfigError for a setting that the source does not use."""
    unused = {}
    if config.source == "synthetic":
        names = (*_OPTIONS, "path", "archive", "bad_rows")
        unused = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(_USUAL, name)}
    elif config.synthetic != _USUAL.synthetic:
        drawn = dataclasses.asdict(config.synthetic)
        unused = {f"synthetic.{n}": v for n, v in drawn.items() if v != getattr(_USUAL.synthetic, n)}
    for name, value in unused.items():
        raise ConfigError(f"data.{name}={value!r} has no use for data.source={config.source!r}; leave it out")


def _path(config: DataConfig, say: Progress) -> pathlib.Path:
    """The file or folder to read, fetched if need be."""
    if not config.path and config.archive:
        if config.root:
            return local_copy(config.archive, config.root)
        return fetch(config.archive, config.cache, say)
    if not config.path:
        raise ConfigError(
            f"data.path is empty; data.source={config.source!r} needs a file or a folder, or data.archive the name "
            f"of a public data set: {', '.join(NAMES)}"
        )
    path = pathlib.Path(config.location)
    if config.archive:
        say(f"data.path is read, not data.archive={config.archive!r}")
    if not path.exists():
        raise DataError(f"data.path={str(path)!r} does not exist; set it, or data.root to the folder that holds it")
    return path


def _open(config: DataConfig, path: pathlib.Path | None, say: Progress) -> RawData:
    """The interactions from a file, or drawn."""
    if path is None:
        say("drawing a synthetic world")
        return synthetic.draw(config.synthetic)
    say(f"reading {path}")
    options = ReadOptions(**{name: getattr(config, name) for name in _OPTIONS})
    raw = read(config.source, path, options, config.bad_rows)
    if raw.time_unit not in PER_SECOND and (config.start or config.end):
        raise DataError("data.start and data.end need times, and these data have only an order")
    return raw


def _key(config: DataConfig, path: pathlib.Path | None) -> dict[str, Any]:
    """All that decides what is read: settings, and the size and time of change of every file that may be read."""
    files = [] if path is None else [path] if path.is_file() else sorted(path.rglob("*"))
    if path is not None and path.is_file():
        files += sorted(path.parent.glob("*"))
    stats = {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.is_file()}
    return {"version": _READ_VERSION, "settings": recorded_settings(config, READ_SETTINGS), "files": stats}


def _window(config: DataConfig) -> tuple[int | None, int | None]:
    """The first second to keep and the first one not to keep."""
    start, end = (
        int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) if text else None
        for text in (config.start, config.end)
    )
    return start, end
