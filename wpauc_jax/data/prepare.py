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
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import provenance
from wpauc_jax.data.archives import NAMES
from wpauc_jax.data.build import Prepared, build
from wpauc_jax.data.dataset import Dataset, Items, load_dataset, load_items, load_manifest
from wpauc_jax.data.fetch import fetch, local_copy
from wpauc_jax.data.ingest import Records, read_records
from wpauc_jax.data.sources import DataError, RawData, ReadOptions, read, synthetic
from wpauc_jax.data.statistics import statistics_table
from wpauc_jax.data.store import write_prepared
from wpauc_jax.data.times import PER_SECOND

# The settings that say what is read, and those that shape what becomes of it. max_history is applied to batches.
READ_SETTINGS: tuple[str, ...] = (
    *("source", "path", "user_column", "item_column", "time_column", "title_column", "items_path"),
    *("time_unit", "bad_rows", "start", "end"),
)
BUILD_SETTINGS = ("require_title", "drop_markup", "title_words", "k_core", "repeats", "split")

_OPTIONS = tuple(field.name for field in dataclasses.fields(ReadOptions))
_USUAL = DataConfig()
_SHOWN = 5  # changed files in a message
_READ_VERSION = 2  # of what the first stage leaves; what another version read is read again

Progress = Callable[[str], None]


def prepare(config: DataConfig, directory: str | pathlib.Path, progress: Progress | None = None) -> Dataset:
    """Prepares `directory`, or re-uses it if it was prepared with the same settings.

    A prepared directory stands for itself: the files it was made from are not read again, and need not exist. Where
    they exist and are not what was read, `data.changed` says what happens.
    `progress` receives one line of text a stage. The directory appears whole or not at all.

    Raises ConfigError if the directory holds something else, and DataError for input that cannot be used.
    """
    folder = pathlib.Path(directory)
    _make_ready(config, folder, progress or (lambda _: None))
    return load_dataset(folder)


def prepare_items(config: DataConfig, directory: str | pathlib.Path, progress: Progress | None = None) -> Items:
    """`prepare`, of which the items alone are read."""
    folder = pathlib.Path(directory)
    _make_ready(config, folder, progress or (lambda _: None))
    return load_items(folder)


def _make_ready(config: DataConfig, folder: pathlib.Path, say: Progress) -> None:
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"data.dir={str(folder)!r} is a file; set it to a directory")
    if folder.is_dir() and any(folder.iterdir()):
        _check_reusable(config, folder, say)
        shutil.rmtree(_reading(folder), ignore_errors=True)  # a run that was killed at its very end has left it
        say(f"using the prepared data in {folder}")
    else:
        prepare_new(config, folder, say)


def prepare_new(config: DataConfig, folder: pathlib.Path, say: Progress) -> None:
    """Prepares `folder`, which does not exist or is empty, or goes on where a stopped run left off."""
    _check_used(config)
    stage = _reading(folder)
    path = None if config.source == "synthetic" else _path(config, say)
    with _naming(path):
        try:
            records = read_records(lambda: _open(config, path, say), stage, _key(config, path), _window(config), say)
        except DataError:
            shutil.rmtree(stage, ignore_errors=True)
            raise
        prepared = _build(records, config, say)
    facts = {
        "settings": _settings(config),
        "input": records.facts["files"],
        "sources": provenance.recorded(records.facts["paths"], records.facts["files"], path),
        "time_unit": records.facts["time_unit"],
        "times": records.facts["dates"],
    }
    write_prepared(folder, prepared, facts)
    say(statistics_table(prepared.statistics))
    shutil.rmtree(stage, ignore_errors=True)


def _reading(folder: pathlib.Path) -> pathlib.Path:
    """Where what was read from the files waits until `folder` is there."""
    return folder.with_name(f".{folder.name}.reading")


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
    return {"version": _READ_VERSION, "settings": _settings(config, READ_SETTINGS), "files": stats}


def _window(config: DataConfig) -> tuple[int | None, int | None]:
    """The first second to keep and the first one not to keep."""
    start, end = (
        int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()) if text else None
        for text in (config.start, config.end)
    )
    return start, end


def _settings(config: DataConfig, names: tuple[str, ...] = READ_SETTINGS + BUILD_SETTINGS) -> dict[str, Any]:
    settings = {name: getattr(config, name) for name in names}
    if config.archive and not config.path:
        settings["archive"] = config.archive
    if config.source == "synthetic":
        settings |= {f"synthetic.{name}": value for name, value in dataclasses.asdict(config.synthetic).items()}
    return settings


def _check_reusable(config: DataConfig, folder: pathlib.Path, say: Progress) -> None:
    try:
        manifest = load_manifest(folder)
    except DataError as error:
        raise ConfigError(f"{error}; empty it or set data.dir to another directory") from error
    recorded = manifest["settings"]
    if "times" not in manifest and recorded.get("time_unit") == "s":  # written when "s" was the default
        recorded = recorded | {"time_unit": "auto"}
    wanted = json.loads(json.dumps(_settings(config)))
    for name in {**recorded, **wanted}:
        if recorded.get(name) != wanted.get(name):
            raise ConfigError(
                f"{folder} was prepared with data.{name}={recorded.get(name)!r}, this run has {wanted.get(name)!r}; "
                "set data.dir (or --workdir) to another directory, or delete this one to prepare it again"
            )
    changed = provenance.changed(manifest.get("sources", []), pathlib.Path(config.location)) if config.path else []
    if changed:
        CHANGED[config.changed](folder, "; ".join(changed[:_SHOWN]), say)


def _refuse_changed(folder: pathlib.Path, changed: str, say: Progress) -> None:
    raise ConfigError(
        f"{changed} since {folder} was prepared; delete {folder} to prepare it again (and what was trained on it), or "
        "set data.changed=use to go on with what was prepared"
    )


def _use_changed(folder: pathlib.Path, changed: str, say: Progress) -> None:
    say(f"warning: {changed} since {folder} was prepared; what was prepared is used (data.changed=use)")


CHANGED = {"error": _refuse_changed, "use": _use_changed}  # by data.changed
