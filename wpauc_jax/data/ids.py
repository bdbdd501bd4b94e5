"""Raw ids to numbers at any size: hashes while the files are read, numbers in the order of the ids afterwards.

A row keeps the 64-bit hashes of its ids, not their text. Of each id the text is kept at least once, and hardly ever
more often: a table of hashes seen lately tells which ids are new. Among ten million ids two share a hash with a
probability of three in a million; where both were seen as new, that is an error.
"""

import numpy as np
import polars as pl

from wpauc_jax.data.sources.tables import DataError

_SMALLEST, _LARGEST = 16, 26  # bits of the table of hashes seen
_GOLDEN = 0x9E3779B97F4A7C15


class IdCollector:
    """Hashes the ids of one kind and keeps each id's text."""

    def __init__(self) -> None:
        self._bits = _SMALLEST
        self._seen = np.zeros(1 << self._bits, np.uint64)
        self._fresh: list[pl.DataFrame] = []
        self._rows = 0  # in _fresh

    def add(self, ids: pl.Series) -> np.ndarray:
        """The hashes uint64 of a block of ids."""
        hashes = ids.hash().to_numpy()
        slots = _slots(hashes, 1, self._bits)
        new = self._seen[slots] != hashes
        if new.any():
            self._seen[slots] = hashes
            fresh = pl.DataFrame({"hash": hashes, "id": ids}).filter(pl.Series(new)).unique()
            fresh = fresh.with_columns(pl.col("id") + "")  # a copy: else each id holds the whole block in memory
            self._fresh.append(fresh)
            self._rows += len(fresh)
            if self._rows > len(self._seen) // 2 and self._bits < _LARGEST:
                self._grow()
        return hashes

    def finish(self) -> tuple[pl.Series, np.ndarray]:
        """All ids, numbers by value and then words, and their hashes uint64 in the same order."""
        self._seen = self._seen[:0]  # all ids are known, and memory is short
        ids = self._distinct()
        self._fresh.clear()
        if ids["hash"].n_unique() < len(ids):
            first, second = ids.filter(pl.col("hash").is_duplicated()).sort("hash", "id")["id"][:2]
            raise DataError(f"the ids {first!r} and {second!r} have the same hash; rename one of them")
        ids = sorted_ids(ids)
        return ids["id"], ids["hash"].to_numpy()

    def _distinct(self) -> pl.DataFrame:
        empty = pl.DataFrame(schema={"hash": pl.UInt64, "id": pl.String})
        return pl.concat([empty, *self._fresh]).unique()

    def _grow(self) -> None:
        ids = self._distinct()
        self._fresh, self._rows = [ids], len(ids)
        self._bits = min(self._bits + 4, _LARGEST)
        self._seen = np.zeros(1 << self._bits, np.uint64)
        hashes = ids["hash"].to_numpy()
        self._seen[_slots(hashes, 1, self._bits)] = hashes


def sorted_ids(ids: pl.DataFrame) -> pl.DataFrame:
    """Rows in the order of the column `id`: numbers by value, equal ones as text; then words."""
    is_number = pl.col("id").str.contains("^[0-9]+$")
    digits = pl.col("id").str.strip_chars_start("0")  # compared as text: an id may have more digits than any integer
    words = ids.sort("id")
    first, end = (words["id"].search_sorted(sign, "left") for sign in "0:")  # numbers lie between: ":" follows "9"
    if first == end:
        return words
    maybe = words[first:end]
    numbers = maybe.filter(is_number).sort(digits.str.len_bytes(), digits, "id")
    return pl.concat([numbers, words[:first], maybe.filter(~is_number), words[end:]])


class Places:
    """The place of a hash among distinct hashes: a table with free slots, and smaller ones for what collided."""

    def __init__(self, hashes: np.ndarray):
        self._hashes = hashes
        self._tables: list[tuple[int, int, np.ndarray]] = []
        left, multiplier = np.arange(len(hashes), dtype=np.int32), 1
        while len(left):
            bits = len(left).bit_length() + 3
            slots = _slots(hashes[left], multiplier, bits)
            table = np.zeros(1 << bits, np.int32)
            table[slots] = left
            self._tables.append((multiplier, bits, table))
            left = left[table[slots] != left]
            multiplier = multiplier * _GOLDEN % 2**64

    def __call__(self, wanted: np.ndarray) -> np.ndarray:
        """The places int32 of `wanted`, each of which is one of the hashes."""
        out = np.empty(len(wanted), np.int32)
        rows = np.arange(len(wanted))
        for multiplier, bits, table in self._tables:
            found = table[_slots(wanted, multiplier, bits)]
            out[rows] = found
            missed = self._hashes[found] != wanted
            if not missed.any():
                break
            rows, wanted = rows[missed], wanted[missed]
        return out


def _slots(hashes: np.ndarray, multiplier: int, bits: int) -> np.ndarray:
    return ((hashes * np.uint64(multiplier)) >> np.uint64(64 - bits)).astype(np.int64)
