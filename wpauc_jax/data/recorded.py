"""What a prepared directory records of the settings, and where what was read waits until it is there."""

import dataclasses
import pathlib
from typing import Any

from wpauc_jax.config import DataConfig

# The settings that say what is read, and those that shape what becomes of it. max_history is applied to batches.
READ_SETTINGS: tuple[str, ...] = (
    *("source", "path", "user_column", "item_column", "time_column", "title_column", "items_path"),
    *("time_unit", "bad_rows", "start", "end"),
)
BUILD_SETTINGS = ("require_title", "drop_markup", "title_words", "k_core", "repeats", "split")


def recorded_settings(config: DataConfig, names: tuple[str, ...] = READ_SETTINGS + BUILD_SETTINGS) -> dict[str, Any]:
    """The settings `names` by their names, and those that say which public or drawn data are meant."""
    settings = {name: getattr(config, name) for name in names}
    if config.archive and not config.path:
        settings["archive"] = config.archive
    if config.source == "synthetic":
        settings |= {f"synthetic.{name}": value for name, value in dataclasses.asdict(config.synthetic).items()}
    return settings


def reading_folder(folder: pathlib.Path) -> pathlib.Path:
    """Where what was read from the files waits until `folder` is there."""
    return folder.with_name(f".{folder.name}.reading")
