"""RecBole's atomic files: fields between tabs, and a header of `name:type`; plain or gzip. A quote is text.

An `.inter` file needs a user and an item. Without a time the order of lines is the order of time. An `.item` file may
stand beside it. Its title is the field `data.title_column`, or else the first field whose name ends in `title`. Its
text is all fields of type `token` or `token_seq`, in the order of the header. Other fields are not read.
`data.user_column` and so on name the fields, with or without the type.

Benchmark files are `NAME.train.inter`, `NAME.valid.inter` and `NAME.test.inter`. Their rows are interactions. If they
have a field `item_id_list`, their rows are samples: the items before, and the item to predict.
"""

import pathlib
from collections.abc import Iterator, Sequence

import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, listed, shown
from wpauc_jax.data.folders import split_files, visible
from wpauc_jax.data.sources.blocks import Input, first_line
from wpauc_jax.data.sources.columns import joined
from wpauc_jax.data.sources.delimited import Layout, delimited_blocks
from wpauc_jax.data.sources.samples import Sample, time_lines
from wpauc_jax.data.tables import HISTORIES, LINE, REST, FilesRead, RawData, ReadOptions
from wpauc_jax.data.times import times_of, unit_of

LIST = "_list"  # behind the name of a field: its values before this row


def read_recbole(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The data set at `path`: a folder that holds one `.inter` file or three of a benchmark, or such a file itself.

    Its `.item` file is the one beside it with the same stem, or else the only one in the folder.
    Raises DataError for a missing, ambiguous or malformed file.
    """
    whole = _whole_inter(path)
    splits = None if whole else split_files(path, (".inter",))
    if splits:
        others = (
            [file.name for file in _with_suffix(path, ".inter") if file not in splits.values()] if path.is_dir() else []
        )
        if others:
            both = listed([*(file.name for file in splits.values()), *others])
            raise DataError(f"{path} holds splits and other .inter files ({both}); set data.path to the file to read")
        return _read_splits(splits, options, rejects)
    inter = whole or _find_inter(path)
    files = FilesRead()
    unit = unit_of(options.time_unit) if _time_field(Input(inter), options) else "rows"
    items = _items_beside(inter, options, rejects, files)
    return RawData(inter_blocks(Input(inter), rejects, files, options), items, files, rejects, unit)


def _read_splits(splits: dict[str, pathlib.Path], options: ReadOptions, rejects: Rejects) -> RawData:
    """Three files of a benchmark. Samples become each user's time line."""
    files = FilesRead()
    sources = [Input(path) for path in splits.values()]
    notes = [f"published splits: {', '.join(path.name for path in splits.values())}"]
    items = _items_beside(splits["train"], options, rejects, files)
    if _item_list(sources[0], options) in _header(sources[0], []):
        if rejects.policy != "error":
            raise DataError(f"{sources[0].label}: samples hang together, so that none can be left out: data.bad_rows")
        samples = [sample for split, source in enumerate(sources) for sample in _samples(source, split, options, files)]
        if not samples:
            raise DataError(f"{sources[0].label}: the files hold no sample")
        table, note = time_lines(samples)
        unit = unit_of(options.time_unit) if samples[0].times else "order"
        return RawData([table], items, files, rejects, unit, True, notes=[*notes, *note])
    unit = unit_of(options.time_unit) if _time_field(sources[0], options) else "rows"
    blocks = (
        block.with_columns(split=pl.lit(split, pl.Int8), time=_later(split, unit))
        for split, source in enumerate(sources)
        for block in inter_blocks(source, rejects, files, options)
    )
    return RawData(blocks, items, files, rejects, unit, True, notes=notes)


def _later(split: int, unit: str) -> pl.Expr:
    """Times as they are; numbers of rows go on from file to file."""
    return pl.col("time") + (split << 40) if unit == "rows" else pl.col("time")


def _whole_inter(path: pathlib.Path) -> pathlib.Path | None:
    """The file of all interactions, which is none of a benchmark's three."""
    return path if path.is_file() and not split_files(path, (".inter",)) else None


def _find_inter(path: pathlib.Path) -> pathlib.Path:
    found = _with_suffix(path, ".inter")
    if len(found) != 1:
        what = "several .inter files: " + ", ".join(p.name for p in found) if found else "no .inter or .inter.gz file"
        raise DataError(f"{path} holds {what}; set data.path to the file to read")
    return found[0]


def _items_beside(
    inter: pathlib.Path, options: ReadOptions, rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame] | list[pl.DataFrame]:
    found = _with_suffix(inter.parent, ".item")
    stem = inter.name.removesuffix(".gz").removesuffix(".inter")
    stems = {f"{stem}.item", f"{stem.rpartition('.')[0]}.item"}
    same = [path for path in found if path.name.removesuffix(".gz") in stems]
    if len(same) > 1 or (not same and len(found) > 1):
        raise DataError(f"{inter.parent} holds several .item files: {', '.join(p.name for p in found)}; keep one")
    item = next(iter(same or found), None)
    if not item and options.title_column not in ("", ReadOptions().title_column):
        raise DataError(f"{inter.parent} holds no .item file with the titles that data.title_column names")
    return item_blocks(Input(item), rejects, files, options) if item else []


def _with_suffix(folder: pathlib.Path, suffix: str) -> list[pathlib.Path]:
    return [path for path in visible(folder) if path.name.removesuffix(".gz").endswith(suffix)]


def inter_blocks(
    source: Input, rejects: Rejects, files: FilesRead, options: ReadOptions | None = None
) -> Iterator[pl.DataFrame]:
    """The interactions of an `.inter` file, as RawData has them, and their LINE. Raises DataError naming the line."""
    options = options or ReadOptions()
    time = _time_field(source, options)
    types = _header(source, [options.user_column, options.item_column])
    user, item = _bare(options.user_column), _bare(options.item_column)
    lists = [name for name in types if name in (_item_list(source, options), *HISTORIES)]
    lists += [name for name in (user, item) if types[name].endswith("_seq")]
    if lists:
        raise DataError(
            f"{source.label}, line 1: the field {lists[0]!r} says that a row is a sample with its "
            "history, not one interaction; put the files NAME.train.inter, NAME.valid.inter and NAME.test.inter "
            "together, and set data.path to their folder"
        )
    layout = Layout(list(types), (user, item), time, separator="\t", skip_lines=1, unit=unit_of(options.time_unit))
    for block in delimited_blocks(source, layout, rejects, files):
        rest = [REST] if REST in block.columns else []
        yield block.select(pl.col(*rest, LINE), user=user, item=item, time=time or LINE)


def inter_in_time(source: Input) -> pl.DataFrame:
    """user, item and line of an `.inter` file in the order of time, equal times as they stand."""
    blocks = pl.concat(inter_blocks(source, Rejects(), FilesRead()), how="diagonal")
    fine = [REST] if REST in blocks.columns else []
    blocks = blocks.with_columns(pl.col(*fine).fill_null(0)) if fine else blocks
    return blocks.sort("time", *fine, LINE).select("user", "item", line=LINE)


def item_blocks(
    source: Input, rejects: Rejects, files: FilesRead, options: ReadOptions | None = None
) -> Iterator[pl.DataFrame]:
    """The items of an `.item` file, as RawData has them. Raises DataError naming the line."""
    options = options or ReadOptions()
    default = ReadOptions().title_column
    types = _header(source, [options.item_column])
    item, title = _bare(options.item_column), _bare(options.title_column)
    words = [name for name, kind in types.items() if kind in ("token", "token_seq") and name != item]
    titles = [name for name in types if name == title]
    if not titles and title == default:
        titles = [name for name in words if name.endswith("title")]
    if not titles and title not in ("", default):
        raise DataError(f"{source.label}, line 1: the header has no field {title!r} (data.title_column)")
    words = [*words, *(name for name in titles[:1] if name not in words)]
    layout = Layout(list(types), (item,), optional=words, separator="\t", skip_lines=1)
    for block in delimited_blocks(source, layout, rejects, files):
        name = pl.col(titles[0]) if titles else pl.lit(None, pl.String)
        yield block.select(item=item, title=name, text=joined(words), line=LINE, file=pl.lit(source.label))


def sid_table(source: Input) -> pl.DataFrame:
    """item_id, sid and line of a `.sid` file. Raises DataError naming the line of what is missing or malformed."""
    header = list(_header(source, ["item_id", "sid"]))
    layout = Layout(header, ("item_id",), needed=("sid",), separator="\t", skip_lines=1)
    return pl.concat(delimited_blocks(source, layout, Rejects(), FilesRead())).rename({LINE: "line"})


def _samples(source: Input, split: int, options: ReadOptions, files: FilesRead) -> Iterator[Sample]:
    """The samples of a benchmark file. Raises DataError naming the line."""
    types = _header(source, [options.user_column, options.item_column])
    user, item = _bare(options.user_column), _bare(options.item_column)
    before, time = f"{item}{LIST}", _time_field(source, options)
    if before not in types:
        raise DataError(f"{source.label}, line 1: the header has no field {before!r}, which the train file has")
    times_before = f"{time}{LIST}" if time and f"{time}{LIST}" in types else ""
    optional = [name for name in (before, times_before) if name]
    unit = unit_of(options.time_unit)
    layout = Layout(list(types), (user, item), time, (), optional, separator="\t", skip_lines=1, unit=unit)
    for block in delimited_blocks(source, layout, Rejects(), files):
        if REST in block.columns:
            raise DataError(f"{source.label}: times have fractions of data.time_unit; set a finer one")
        for row in block.iter_rows(named=True):
            place, history = f"{source.label}, line {row[LINE]}", (row[before] or "").split()
            if not history:
                raise DataError(f"{place}: {before!r} is empty, so the row is no sample")
            times = [row[time]] * (len(history) + 1) if time else None
            if times_before:
                found, rest = times_of(pl.Series((row[times_before] or "").split(), dtype=pl.String), unit)
                if len(found) != len(history) or found.has_nulls() or rest is not None:
                    raise DataError(f"{place}: {times_before!r} is no list of {len(history)} times")
                times = [*found.to_list(), row[time]]
            yield Sample(place, row[LINE] + (split << 40), split, row[user], history, row[item], times)


def _item_list(source: Input, options: ReadOptions) -> str:
    return f"{_bare(options.item_column)}{LIST}"


def _time_field(source: Input, options: ReadOptions) -> str:
    """The field of times; "" where there is none, or none is wanted."""
    default = ReadOptions().time_column
    time = _bare(options.time_column)
    types = _header(source, [])
    if not time or time in types:
        return time
    if time != default:
        raise DataError(f"{source.label}, line 1: the header has no field {time!r} (data.time_column)")
    like = [name for name in types if any(word in name.lower() for word in ("time", "date")) and LIST not in name]
    if like:
        raise DataError(
            f"{source.label}, line 1: the header has no field {time!r}, but {like[0]!r}: set "
            f"data.time_column={like[0]}, or '' if the order of lines is the order of time"
        )
    return ""


def _bare(name: str) -> str:
    """A field's name without its type."""
    return name.partition(":")[0]


def _header(source: Input, needed: Sequence[str]) -> dict[str, str]:
    """Each field and its type. Raises DataError for an untyped header and for a field that is needed and missing."""
    types: dict[str, str] = {}
    for column in first_line(source).split("\t"):
        name, colon, kind = column.partition(":")
        if not colon:
            raise DataError(
                f"{source.label}, line 1: the header field {shown(column)} lacks its type, as in 'user_id:token'"
            )
        if name in types:
            raise DataError(f"{source.label}, line 1: the header names {shown(name)} twice")
        types[name] = kind
    missing = [name for name in map(_bare, needed) if name not in types]
    if missing:
        raise DataError(
            f"{source.label}, line 1: the header has no field {missing[0]!r}; it has {listed(types)}; name the fields "
            "in data.user_column, data.item_column and data.time_column"
        )
    return types
