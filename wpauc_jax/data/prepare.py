"""A prepared directory: made if it is not there, otherwise checked against the settings and read.

What makes one, `make`, needs Polars. What only reads one does without.
"""

import json
import pathlib
import shutil
from collections.abc import Callable

from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import provenance
from wpauc_jax.data.dataset import Dataset, Items, load_dataset, load_items, load_manifest
from wpauc_jax.data.errors import DataError
from wpauc_jax.data.recorded import reading_folder, recorded_settings

_SHOWN = 5  # changed files in a message

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
        shutil.rmtree(reading_folder(folder), ignore_errors=True)  # a run that was killed at its very end has left it
        say(f"using the prepared data in {folder}")
    else:
        from wpauc_jax.data.make import prepare_new

        prepare_new(config, folder, say)


def _check_reusable(config: DataConfig, folder: pathlib.Path, say: Progress) -> None:
    try:
        manifest = load_manifest(folder)
    except DataError as error:
        raise ConfigError(f"{error}; empty it or set data.dir to another directory") from error
    recorded = manifest["settings"]
    if "times" not in manifest and recorded.get("time_unit") == "s":  # written when "s" was the default
        recorded = recorded | {"time_unit": "auto"}
    wanted = json.loads(json.dumps(recorded_settings(config)))
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
