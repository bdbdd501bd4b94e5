"""Text files of sequences, as published with S3-Rec and SASRec: a line is a user and then items, oldest first.

Tokens stand between blanks or tabs, and files are plain or gzip. S3-Rec has one line for each user, with all its items.
SASRec has one line for each interaction, in the order of time. The lines of a user are joined in the order of the file.
There are no times and no titles. The place in the user's sequence serves as time, so times of two users cannot be
compared.
"""

import math
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.period import RANGES
from wpauc_jax.data.sources.blocks import Input, first_lines, text_blocks
from wpauc_jax.data.sources.columns import is_header
from wpauc_jax.data.tables import FilesRead, RawData, ReadOptions

_LOOKED_AT = 1000  # lines that say whether they are ratings


def read_sequences(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The sequences in the file `path`. Raises DataError for a folder or a damaged file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; set data.path to the file of sequences in it")
    header = next((line for line in first_lines(Input(path), 1) if is_header(line.split())), "")
    if header:
        raise DataError(f"{path}, line 1: this is a header: {shown(header)}; set data.source=tabular and name columns")
    doubt, _ = rating_lines(Input(path), sure=True)
    if doubt:
        raise DataError(
            f"{path}: {doubt}, and these are no items; set data.source=tabular and the numbers of the columns"
        )
    files = FilesRead()
    return RawData(_blocks(Input(path), rejects, files), [], files, rejects, time_unit="order")


def rating_lines(source: Input, *, sure: bool = False) -> tuple[str, int]:
    """What makes the lines look like "user item rating time" instead of a user and items; "" if nothing does.

    Then the number of the field of times, counted from 1; 0 where there seems to be none.
    `sure`: only if the lines can hardly be anything else.
    """
    rows = [line.split() for line in first_lines(source, _LOOKED_AT)]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or min(widths) < 3:
        return "", 0
    (width,) = widths
    every = f"every line has {width} fields"
    numbers = [[_number(token) for token in row[2:]] for row in rows]
    for place, column in enumerate(zip(*numbers, strict=True), start=3):
        if _are_times(column):
            return f"{every}, of which number {place} is a time of the years 1990 to 2035", place
    if sure or width > 4:
        return "", 0
    if len({row[0] for row in rows}) < len(rows):
        return f"{every}, and users have several lines: this may be user, item, rating and so on", 0
    if width == 4 and all(0 <= row[0] <= 10 for row in numbers) and len(rows) > 1:
        return f"{every}, of which the third is at most 10: this may be user, item, rating and time", 4
    return "", 0


def _are_times(numbers: Sequence[float]) -> bool:
    """Whether all are times of plausible years in one unit; items have no such numbers."""
    return any(all(low <= number < high for number in numbers) for low, high in RANGES.values())


def _number(token: str) -> float:
    try:
        return float(token)
    except ValueError:
        return math.nan


def _blocks(source: Input, rejects: Rejects, files: FilesRead) -> Iterator[pl.DataFrame]:
    lengths: dict[str, int] = {}  # items of each user so far
    for number, block in text_blocks(source, files):
        users, items, starts = [], [], []
        for line, content in enumerate(block.split(b"\n"), start=number):
            if not content.strip():
                continue
            fault, tokens = _tokens(content)
            if fault:
                rejects.add(source.label, line, fault, shown(content))
                continue
            start = lengths.get(tokens[0], 0)
            lengths[tokens[0]] = start + len(tokens) - 1
            users.append(tokens[0])
            items.append(tokens[1:])
            starts.append(start)
        counts = np.array([len(tokens) for tokens in items], np.int64)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield pl.DataFrame(
            {
                "user": pl.Series(users, dtype=pl.String).gather(np.repeat(np.arange(len(users)), counts)),
                "item": pl.Series(items, dtype=pl.List(pl.String)).explode(empty_as_null=False),
                "time": np.repeat(np.array(starts, np.int64), counts) + place,
            }
        )


def _tokens(content: bytes) -> tuple[str, list[str]]:
    """What is wrong with the line, if anything, and its tokens."""
    try:
        tokens = content.decode().split()
    except UnicodeDecodeError:
        return "not UTF-8 text", []
    if b"\0" in content:
        return "a NUL byte", []
    return ("" if len(tokens) > 1 else "a user without an item"), tokens
