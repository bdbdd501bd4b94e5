"""data.source=auto: the format of a file or folder, by its names and its first line."""

import pathlib
import zipfile

from wpauc_jax.data.errors import DataError, shown
from wpauc_jax.data.sources.amazon import SUFFIXES, is_amazon
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.minionerec import is_minionerec
from wpauc_jax.data.sources.movielens import is_movielens
from wpauc_jax.data.sources.tabular import columns_of, is_parquet
from wpauc_jax.data.sources.yelp import REVIEWS, find_yelp
from wpauc_jax.data.tables import ReadOptions


def detect(path: pathlib.Path, options: ReadOptions) -> str:
    """The name in `READERS` of the format of `path`. Raises DataError, which shows the first line, for none of them."""
    if is_minionerec(path):
        return "minionerec"
    if path.is_dir():
        return _of_folder(path)
    if zipfile.is_zipfile(path):
        if is_movielens(path):
            return "movielens"
        raise DataError(f"{path}: a zip archive that holds no MovieLens; unpack it and set data.path to what it held")
    return _of_file(path, options)


def _of_folder(path: pathlib.Path) -> str:
    files = sorted(file for file in path.iterdir() if file.is_file())
    if find_yelp(path, REVIEWS):
        return "yelp"
    if is_movielens(path):
        return "movielens"
    if any(file.name.removesuffix(".gz").endswith(".inter") for file in files):
        return "recbole"
    if any(file.name.endswith(SUFFIXES) and is_amazon(Input(file)) for file in files):
        return "amazon"
    if not files:
        raise DataError(f"{path} holds no file; set data.path to the data")
    line = first_line(Input(files[0]))
    raise DataError(
        f"{path} is no folder of a known format; its first file is {files[0].name}, which begins {shown(line)}. "
        "Set data.path to a file, or data.source to the format"
    )


def _of_file(path: pathlib.Path, options: ReadOptions) -> str:
    source = Input(path)
    if is_parquet(path):
        return "tabular"
    line = first_line(source)
    header = line.split("\t")
    if {"user_id", "item_id"} <= {name.partition(":")[0] for name in header if ":" in name}:
        return "recbole"
    if is_amazon(source):
        return "amazon"
    if {options.user_column, options.item_column} <= set(columns_of(source)):
        return "tabular"
    tokens = line.split()
    if len(tokens) > 1 and all(token.isascii() and token.isdigit() for token in tokens):
        return "sequences"
    raise DataError(
        f"{path}: unknown format; its first line is {shown(line)}. Set data.source to the format, or for a table name "
        "its columns in data.user_column and data.item_column"
    )
