"""data.source=auto: finds the format of a file or folder by its names, its header and its first lines."""

import pathlib
import zipfile

from wpauc_jax.data.archives import YELP_REVIEWS
from wpauc_jax.data.errors import DataError, listed, shown
from wpauc_jax.data.folders import TABLES, parts_of, split_files, visible
from wpauc_jax.data.sources.amazon import is_amazon
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.columns import table_of
from wpauc_jax.data.sources.minionerec import is_minionerec
from wpauc_jax.data.sources.movielens import LAYOUTS, is_movielens
from wpauc_jax.data.sources.sequences import rating_lines
from wpauc_jax.data.sources.yelp import find_yelp
from wpauc_jax.data.tables import ReadOptions

_BY_NUMBERS = "data.source=tabular with the numbers of the columns, as in data.user_column=1 data.item_column=2"
_RATINGS = {ratings: films for ratings, _, films, _ in LAYOUTS}


def detect(path: pathlib.Path, options: ReadOptions) -> str:
    """The name in `READERS` of the format of `path`. Raises DataError, which shows the first line, for none of them."""
    if is_minionerec(path):
        return "minionerec"
    if path.is_dir():
        return _of_folder(path, options)
    if zipfile.is_zipfile(path):
        if is_movielens(path):
            return "movielens"
        raise DataError(f"{path}: a zip archive that holds no MovieLens; unpack it and set data.path to what it held")
    return _of_file(path, options)


def _of_folder(path: pathlib.Path, options: ReadOptions) -> str:
    files = visible(path)
    if find_yelp(path, YELP_REVIEWS):
        return "yelp"
    if is_movielens(path):
        return "movielens"
    if any(file.name.removesuffix(".gz").endswith(".inter") for file in files):
        return "recbole"
    if not files:
        below = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir()]
        raise DataError(
            f"{path} holds no file"
            + (f", only folders ({listed(below)})" if below else "")
            + "; set data.path to the data"
        )
    splits = split_files(path, TABLES)
    items = [file for file in files if file.name.startswith("meta_")]  # Amazon's
    items += [path / options.items_path] if options.items_path else []
    try:
        tables = list(splits.values()) if splits else parts_of(path, items)[0]
    except DataError as error:
        line = first_line(Input(files[0]))
        raise DataError(
            f"{error}. Its first file is {files[0].name}, which begins {shown(line)}; or set data.source to the format"
        ) from error
    if any(is_amazon(Input(table)) for table in tables) and not _has_columns(tables[0], options):
        return "amazon"
    return _of_file(tables[0], options)


def _of_file(path: pathlib.Path, options: ReadOptions) -> str:
    source = Input(path)
    if is_movielens(path):
        return "movielens"
    table = table_of(path)
    if table.kind == "parquet":
        return "tabular"
    line = first_line(source)
    typed = [name for name in line.split("\t") if ":" in name]
    if len(typed) > 1 and len(typed) == len(line.split("\t")) and _has_type(typed):
        return "recbole"
    if table.kind == "lines" and is_amazon(source):
        return "amazon"
    if _has_columns(path, options):
        return "tabular"
    if is_amazon(source):
        return "amazon"
    if options.user_column.isdigit() and options.item_column.isdigit():
        return "tabular"
    tokens = line.split()
    if len(tokens) > 1 and all(token.isascii() and token.isdigit() for token in tokens):
        doubt, time = rating_lines(source)
        if doubt:
            column = f"data.time_column={time}" if time else "data.time_column='' or its number"
            raise DataError(
                f"{path}: {doubt}; the first line is {shown(line)}. If they are ratings, set {_BY_NUMBERS} {column}; "
                "if every field behind the first is an item, data.source=sequences"
            )
        return "sequences"
    beside = _RATINGS.get(path.name)
    more = f" MovieLens needs {beside} beside it." if beside else ""
    raise DataError(
        f"{path}: unknown format; its first line is {shown(line)}.{more} Set data.source to the format; for a table "
        f"name its columns in data.user_column and data.item_column; for one without a header, set {_BY_NUMBERS}"
    )


def _has_columns(path: pathlib.Path, options: ReadOptions) -> bool:
    """Whether the settings name columns of the table."""
    return {options.user_column, options.item_column} <= set(table_of(path).columns)


def _has_type(fields: list[str]) -> bool:
    """Whether the types behind the names are RecBole's."""
    return {field.rpartition(":")[2] for field in fields} <= {"token", "token_seq", "float", "float_seq"}
