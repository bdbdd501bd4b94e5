"""Text files of sequences, as published with S3-Rec and SASRec: a line is a user and then items, oldest first.

Tokens stand between spaces or tabs, plain or gzip. S3-Rec has one line a user with all its items, SASRec one line an
interaction, in the order of time; a user's lines are joined in the order of the file. There are no times and no titles:
a time is the place in the user's sequence, which says nothing across users.
"""

import pathlib
from collections.abc import Iterator

import numpy as np
import polars as pl

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.sources.blocks import Input, text_blocks
from wpauc_jax.data.tables import RawData, ReadOptions


def read_sequences(path: pathlib.Path, options: ReadOptions, rejects: Rejects) -> RawData:
    """The sequences in the file `path`. Raises DataError for a folder or a damaged file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; set data.path to the file of sequences in it")
    files: dict[str, str] = {}
    return RawData(_blocks(Input(path), rejects, files), [], files, rejects, time_unit="order")


def _blocks(source: Input, rejects: Rejects, files: dict[str, str]) -> Iterator[pl.DataFrame]:
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
