"""Readers: from files as users have them to one interactions table and one items table."""

import pathlib
from collections.abc import Callable

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

# A new format is a module with one function, listed here under its name in `data.source`.
READERS: dict[str, Reader] = {
    "amazon": read_amazon,
    "minionerec": read_minionerec,
    "movielens": read_movielens,
    "recbole": read_recbole,
    "sequences": read_sequences,
    "tabular": read_tabular,
    "yelp": read_yelp,
}


def read(source: str, path: pathlib.Path, options: ReadOptions, bad_rows: str = "error") -> RawData:
    """The data set at `path` in the format `source`, a name in READERS or "auto".

    Raises DataError for a path that does not exist, an unknown format, and what the reader refuses.
    """
    if not path.exists():
        raise DataError(f"data.path={str(path)!r} does not exist; set it, or data.root to the folder that holds it")
    name = detect(path, options) if source == "auto" else source
    return READERS[name](path, options, Rejects(bad_rows))


__all__ = ["READERS", "DataError", "RawData", "ReadOptions", "detect", "read"]
