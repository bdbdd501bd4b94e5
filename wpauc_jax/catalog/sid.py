"""Semantic ids that are read from a file."""

import pathlib
import re

import numpy as np
import polars as pl

from wpauc_jax.data.errors import DataError
from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.sources.minionerec import read_codes
from wpauc_jax.data.sources.recbole import sid_table
from wpauc_jax.data.tables import reject_duplicates

_NAME = re.compile(r"<[^<>]+>")


def read_sid(path: str | pathlib.Path, item_ids: list[str]) -> tuple[np.ndarray, list[list[str]]]:
    """The codes of `item_ids` in a RecBole atomic file `item_id:token  sid:token_seq`, optionally gzip.

    By its name (.txt, .json) the file may also be MiniOneRec's info or index file. A sid is tokens between spaces,
    such as `<a_232> <b_229>`. A token's place is its level; a level's distinct tokens, numbers in them by value,
    become its codes 0, 1, 2, ... Items that are not asked for are ignored, as k-core drops items.

    Returns int32[I, L] with -1 behind a shorter sid, and the tokens of each level in the order of their codes.
    Raises DataError for a malformed file, naming the line, and for an item without a sid, naming the item.
    """
    label = str(path)
    table = _sid_table(pathlib.Path(path))
    wanted = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    found = wanted.join(table, on="item_id", how="left", maintain_order="left")
    missing = found.filter(pl.col("sid").is_null())["item_id"]
    if len(missing):
        raise DataError(f"{label}: {len(missing)} of {len(item_ids)} items have no sid, the first is {missing[0]!r}")
    rows = [sid.split() for sid in found["sid"]]
    empty = next((item for item, row in zip(item_ids, rows, strict=True) if not row), None)
    if empty is not None:
        raise DataError(f"{label}: the sid of item {empty!r} has no token")
    codes = np.full((len(rows), max(map(len, rows))), -1, np.int32)
    names = []
    for level in range(codes.shape[1]):
        tokens = sorted({row[level] for row in rows if len(row) > level}, key=_token_key)
        code_of = {token: code for code, token in enumerate(tokens)}
        codes[:, level] = [code_of[row[level]] if len(row) > level else -1 for row in rows]
        names.append(tokens)
    return codes, names


def are_names(levels: list[list[str]]) -> bool:
    """Whether a file's tokens can be the names of a language model's: all differ, and each stands in <>."""
    names = [name for level in levels for name in level]
    return len(set(names)) == len(names) and all(_NAME.fullmatch(name) for name in names)


def _sid_table(path: pathlib.Path) -> pl.DataFrame:
    """item_id and sid, whichever of the layouts the file has."""
    if path.name.removesuffix(".gz").endswith((".txt", ".json")):
        return read_codes(path)
    table = sid_table(Input(path))
    reject_duplicates(table, "item_id", str(path))
    return table


def _token_key(token: str) -> tuple[int, str]:
    digits = "".join(filter(str.isdecimal, token))
    return len(digits.lstrip("0")), token
