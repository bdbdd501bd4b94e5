"""Readers turn files as users have them into one table of interactions and one of items.

A format's reader and what several readers share belong here. What happens to the rows afterwards does not: it stands in
`data`.
"""

import dataclasses
import pathlib
from collections.abc import Callable

from wpauc_jax.data.dataset import PER_SECOND
from wpauc_jax.data.errors import DataError, Rejects
from wpauc_jax.data.sources.amazon import read_amazon
from wpauc_jax.data.sources.detect import detect
from wpauc_jax.data.sources.minionerec import read_minionerec
from wpauc_jax.data.sources.movielens import read_movielens
from wpauc_jax.data.sources.recbole import read_recbole
from wpauc_jax.data.sources.sequences import read_sequences
from wpauc_jax.data.sources.tabular import read_tabular
from wpauc_jax.data.sources.yelp import read_yelp
from wpauc_jax.data.tables import RawData, ReadOptions

Reader = Callable[[pathlib.Path, ReadOptions, Rejects], RawData]

_COLUMNS = ("user_column", "item_column", "time_column", "title_column")


@dataclasses.dataclass(frozen=True)
class Format:
    """A reader, and which of the settings that not every format knows it uses."""

    read: Reader
    settings: tuple[str, ...]


# A new format is a module with one function, listed here under its name in `data.source`.
READERS: dict[str, Format] = {
    "amazon": Format(read_amazon, ("items_path", "time_unit", "bad_rows")),
    "minionerec": Format(read_minionerec, ("time_unit",)),
    "movielens": Format(read_movielens, ("time_unit", "bad_rows")),
    "recbole": Format(read_recbole, (*_COLUMNS, "time_unit", "bad_rows")),
    "sequences": Format(read_sequences, ("bad_rows",)),
    "tabular": Format(read_tabular, (*_COLUMNS, "items_path", "time_unit", "bad_rows")),
    "yelp": Format(read_yelp, ("bad_rows",)),
}


def read(source: str, path: pathlib.Path, options: ReadOptions, bad_rows: str = "error") -> RawData:
    """The data set at `path` in the format `source`, a name in READERS or "auto".

    Raises DataError for a path that does not exist, an unknown format, a setting that this format does not use, and
    what the reader refuses.
    """
    if not path.exists():
        raise DataError(f"data.path={str(path)!r} does not exist; set it, or data.root to the folder that holds it")
    name = detect(path, options) if source == "auto" else source
    given = dataclasses.asdict(options) | {"bad_rows": bad_rows}
    usual = dataclasses.asdict(ReadOptions()) | {"bad_rows": "error"}
    for setting, value in given.items():
        if value != usual[setting] and setting not in READERS[name].settings:
            raise DataError(
                f"{path}: data.{setting}={value!r} has no use for data.source={name!r}, which is "
                f"{'detected' if source == 'auto' else 'set'}; leave it at {usual[setting]!r}, or set data.source"
            )
    raw = READERS[name].read(path, options, Rejects(bad_rows))
    if raw.time_unit not in PER_SECOND and options.time_unit != usual["time_unit"]:
        raise DataError(f"{path}: data.time_unit={options.time_unit!r} has no use: these data have no times")
    return raw


__all__ = ["READERS", "DataError", "Format", "RawData", "ReadOptions", "detect", "read"]
