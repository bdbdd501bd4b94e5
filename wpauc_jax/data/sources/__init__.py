"""Readers: from files as users have them to one interactions table and one items table."""

from collections.abc import Callable
from pathlib import Path

from wpauc_jax.data.sources.minionerec import read_minionerec
from wpauc_jax.data.sources.movielens import read_movielens100k
from wpauc_jax.data.sources.recbole import parse_inter, read_recbole
from wpauc_jax.data.sources.tables import DataError, RawData

# A new format is a module with one function, listed here under its name in `data.source`.
READERS: dict[str, Callable[[str | Path], RawData]] = {
    "movielens100k": read_movielens100k,
    "recbole": read_recbole,
    "minionerec": read_minionerec,
}

__all__ = ["READERS", "DataError", "RawData", "parse_inter", "read_minionerec", "read_movielens100k", "read_recbole"]
