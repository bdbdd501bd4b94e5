"""MovieLens as GroupLens publishes it: 100K, 1M, 10M, 20M, 25M, 32M and latest, as a folder or a zip file.

100K has `u.data` with user, item, rating and unix seconds between tabs. Its `u.item` has item, title with year, dates,
address and 19 genre flags between bars, in latin-1. 1M and 10M have `ratings.dat` and `movies.dat` with `::` between
fields and bars between genres, in latin-1 (1M) or UTF-8 (10M). Later sets have `ratings.csv` and `movies.csv` with a
header and quotes, in UTF-8. The copy of 100K in RecBole's atomic files is read, too. The value of a rating is not used:
each rating is an interaction.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects
from wpauc_jax.data.folders import is_visible
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.columns import joined
from wpauc_jax.data.sources.delimited import Layout, delimited_blocks
from wpauc_jax.data.sources.recbole import inter_blocks, item_blocks
from wpauc_jax.data.tables import LINE, REST, FilesRead, RawData, ReadOptions
from wpauc_jax.data.times import unit_of

GENRES = (  # in the order of the flags of 100K
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_RATINGS = ["user", "item", "rating", "time"]
_FILM = ["item", "title", "genres"]
LAYOUTS = (  # the two files, and how each is read
    (
        "u.data",
        Layout(_RATINGS, ("user", "item"), "time", separator="\t"),
        "u.item",
        Layout(
            ["item", "title", "release", "video", "address", *GENRES],
            ("item",),
            needed=("title", *GENRES),
            separator="|",
            encoding="latin-1",
        ),
    ),
    (
        "ratings.dat",
        Layout(_RATINGS, ("user", "item"), "time", separator="::"),
        "movies.dat",
        Layout(_FILM, ("item",), needed=("title",), optional=["genres"], separator="::", encoding="latin-1"),
    ),
    (
        "ratings.csv",
        Layout(_RATINGS, ("user", "item"), "time", quoted=True, skip_lines=1),
        "movies.csv",
        Layout(_FILM, ("item",), needed=("title",), optional=["genres"], quoted=True, skip_lines=1),
    ),
)
_HEADERS = {"ratings.csv": "userId,movieId,rating,timestamp", "movies.csv": "movieId,title,genres"}
_COPY = ("ml-100k.inter", "ml-100k.item")


def read_movielens(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set in the folder or zip file `path`, or beside the file of ratings `path`.

    Raises DataError for a missing or malformed file.
    """
    files = FilesRead()
    unit = unit_of(options.time_unit)
    for ratings_name, ratings_layout, films_name, films_layout in LAYOUTS:
        found = _find(path, (ratings_name, films_name))
        if found:
            ratings, films = found
            for source in found:
                _check_header(source)
            layout = dataclasses.replace(ratings_layout, unit=unit)
            interactions = _named(delimited_blocks(ratings, layout, rejects, files))
            return RawData(interactions, _films(films, films_layout, rejects, files), files, rejects, unit)
    found = _find(path, _COPY)
    if found:
        plain = ReadOptions(time_unit=options.time_unit)
        ratings, films = found
        return RawData(
            inter_blocks(ratings, rejects, files, plain), item_blocks(films, rejects, files), files, rejects, unit
        )
    wanted = ", ".join(f"{ratings} and {films}" for ratings, _, films, _ in LAYOUTS)
    raise DataError(f"{path} is not MovieLens: it holds none of {wanted}; both files must lie in one folder")


def is_movielens(path: pathlib.Path) -> bool:
    """Whether the folder or zip file has the files of a layout, or the file of ratings lies beside its films."""
    return any(_find(path, (ratings, films)) for ratings, _, films, _ in LAYOUTS) or _find(path, _COPY) is not None


def _named(blocks: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    for block in blocks:
        yield block.select("user", "item", "time", *(REST for name in block.columns if name == REST))


def _find(path: pathlib.Path, names: tuple[str, str]) -> tuple[Input, Input] | None:
    """The files called `names`, at any depth of a zip, at most one deep in a folder, or the first one `path` itself."""
    if path.is_file() and path.name == names[0]:
        films = path.with_name(names[1])
        return (Input(path), Input(films)) if films.is_file() else None
    if path.is_file() and path.suffix != ".zip" and not zipfile.is_zipfile(path):
        return None
    if path.is_dir():
        folders = [path, *sorted(folder for folder in path.iterdir() if folder.is_dir() and is_visible(folder))]
        folder = next((f for f in folders if all((f / name).is_file() for name in names)), None)
        return (Input(folder / names[0]), Input(folder / names[1])) if folder else None
    try:
        with zipfile.ZipFile(path) as archive:
            members = [next((m for m in archive.namelist() if m.split("/")[-1] == name), "") for name in names]
    except (OSError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is neither a folder nor a readable zip file ({error})") from error
    return (Input(path, members[0]), Input(path, members[1])) if all(members) else None


def _check_header(source: Input) -> None:
    expected = _HEADERS.get(source.name)
    if expected and first_line(source) != expected:
        raise DataError(f"{source.label}, line 1: expected the header {expected!r}, found {first_line(source)!r:.80}")


def _films(source: Input, layout: Layout, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    if layout.encoding == "latin-1" and _is_utf8(source):  # 10M
        layout = dataclasses.replace(layout, encoding="utf-8")
    for block in delimited_blocks(source, layout, rejects, files):
        if "genres" not in block.columns:
            flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES]
            block = block.with_columns(genres=pl.concat_str(flags, separator=" ", ignore_nulls=True))
        genres = pl.col("genres").str.replace_all("|", " ", literal=True).replace("(no genres listed)", None)
        yield block.with_columns(genres=genres).select(
            "item", "title", text=joined(["title", "genres"]), line=LINE, file=pl.lit(source.label)
        )


def _is_utf8(source: Input) -> bool:
    with source.open() as stream:
        try:
            stream.read().decode()
        except UnicodeDecodeError:
            return False
    return True
