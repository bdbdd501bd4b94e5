"""MovieLens-100K: the official archive's layout, or its copy as RecBole atomic files; a folder or a zip of either.

Official: `u.data` has user, item, rating and unix seconds between tabs; `u.item` has item, title with year, dates,
address and 19 genre flags between bars, in latin-1. Ratings are not used: a rating is an interaction.
"""

import hashlib
import pathlib
import zipfile

import polars as pl

from wpauc_jax.data.sources.recbole import joined, parse_inter, parse_item
from wpauc_jax.data.sources.tables import (
    INTERACTION_COLUMNS,
    DataError,
    RawData,
    parsed_time,
    read_delimited,
    read_file,
    reject_duplicates,
    require,
)

GENRES = (  # in the order of the flags
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_LAYOUTS = (("u.data", "u.item"), ("ml-100k.inter", "ml-100k.item"))


def read_movielens100k(path: str | pathlib.Path) -> RawData:
    """The data set in the folder or zip file `path`. Raises DataError for a missing or malformed file."""
    path = pathlib.Path(path)
    for names in _LAYOUTS:
        stored = _read_members(path, names)
        if stored is None:
            continue
        label_inter, label_item = (f"{path}:{name}" for name in names)
        official = names == _LAYOUTS[0]
        interactions = _parse_data(stored[0], label_inter) if official else parse_inter(stored[0], label_inter)
        items = _parse_item(stored[1], label_item) if official else parse_item(stored[1], label_item)
        digests = (hashlib.sha256(content).hexdigest() for content in stored)
        return RawData(interactions, items, tuple(zip(names, digests, strict=True)))
    wanted = " nor ".join(" and ".join(names) for names in _LAYOUTS)
    raise DataError(f"{path} holds neither {wanted}; it is not MovieLens-100K")


def _read_members(path: pathlib.Path, names: tuple[str, ...]) -> list[bytes] | None:
    """The contents of the files called `names`, at any depth of a zip or at most one deep in a folder."""
    if path.is_dir():
        folders = [path, path / "ml-100k"]
        folder = next((f for f in folders if all((f / name).is_file() for name in names)), None)
        return None if folder is None else [read_file(folder / name) for name in names]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [next((m for m in archive.namelist() if m.split("/")[-1] == name), None) for name in names]
            return None if None in members else [archive.read(member) for member in members if member]
    except FileNotFoundError as error:
        raise DataError(f"data.path={str(path)!r} does not exist") from error
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a readable zip file ({error})") from error


def _parse_data(content: bytes, label: str) -> pl.DataFrame:
    table = read_delimited(content, label, separator="\t", header=["user", "item", "rating", "timestamp"])
    require(table, ["user", "item", "timestamp"], label)
    return table.with_columns(time=parsed_time(table, "timestamp", label)).select(INTERACTION_COLUMNS)


def _parse_item(content: bytes, label: str) -> pl.DataFrame:
    header = ["item", "title", "release", "video", "address", *GENRES]
    table = read_delimited(content, label, separator="|", header=header, encoding="latin-1")
    require(table, ["item", "title", *GENRES], label)
    reject_duplicates(table, "item", label)
    genres = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES]
    table = table.with_columns(genres=pl.concat_str(genres, separator=" ", ignore_nulls=True))
    return table.select("item", "title", text=joined(["title", "genres"]))
