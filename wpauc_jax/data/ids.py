"""Turns raw ids into numbers, however many there are.

While files are read, ids are numbered in the order in which they appear. At the end they are numbered in the order of
the ids.

The text of an id is kept once. A hash table in NumPy tells ids apart while rows stream by, a whole block at a time. One
64-bit hash says where an id belongs in the table, and a second one, of another seed, stands there. Two ids are told
apart if one of the two hashes differs. They would be taken for one only if the second hashes were equal and the places
were neighbours. Among ten million ids the probability of that is below 10^-12.
"""

import numpy as np
import polars as pl

_SMALLEST = 16  # bits of the number of slots at first


class IdTable:
    """Numbers the ids of one kind, and keeps each id's text."""

    def __init__(self) -> None:
        self._allocate(_SMALLEST)
        self._texts: list[pl.Series] = []
        self._known: list[tuple[np.ndarray, np.ndarray]] = []  # the hashes of the texts
        self._count = 0

    def add(self, ids: pl.Series) -> np.ndarray:
        """The numbers int32 of a block of ids: 0, 1, 2, ..., those of new ids following those given before."""
        homes, marks = _hashes(ids)
        numbers = self._find(homes, marks)
        new = np.flatnonzero(numbers < 0)
        if len(new):
            self._add_new(ids.gather(new).unique())
            numbers[new] = self._find(homes[new], marks[new])
        return numbers

    def finish(self) -> tuple[pl.Series, np.ndarray]:
        """All ids, numbers by value and then words, and the place int32 there of each number that `add` gave."""
        self._allocate(1)  # all ids are known, and memory is short
        self._known.clear()
        texts = pl.concat([pl.Series(dtype=pl.String), *self._texts])
        self._texts.clear()
        ids = sorted_ids(pl.DataFrame({"id": texts, "number": np.arange(self._count, dtype=np.int32)}))
        places = np.empty(self._count, np.int32)
        places[ids["number"].to_numpy()] = np.arange(self._count, dtype=np.int32)
        return ids["id"], places

    def _allocate(self, bits: int) -> None:
        self._bits = bits
        self._numbers = np.full(1 << bits, -1, np.int32)  # of the id in a slot, -1 in an empty one
        self._marks = np.zeros(1 << bits, np.uint64)

    def _slots(self, homes: np.ndarray) -> np.ndarray:
        return (homes >> np.uint64(64 - self._bits)).view(np.int64)

    def _next(self, slots: np.ndarray) -> np.ndarray:
        return (slots + 1) & (len(self._numbers) - 1)

    def _find(self, homes: np.ndarray, marks: np.ndarray) -> np.ndarray:
        """The numbers int32 of ids by their hashes; -1 for unknown ones."""
        slots = self._slots(homes)
        numbers = self._numbers[slots]
        left = np.flatnonzero((self._marks[slots] != marks) & (numbers >= 0))  # another id is there: go on
        slots = slots[left]
        while len(left):
            slots = self._next(slots)
            found = self._numbers[slots]
            numbers[left] = found
            goes_on = (self._marks[slots] != marks[left]) & (found >= 0)
            left, slots = left[goes_on], slots[goes_on]
        return numbers

    def _add_new(self, texts: pl.Series) -> None:
        texts = texts + ""  # a copy: else each id holds the whole block in memory
        homes, marks = _hashes(texts)
        self._texts.append(texts)
        self._known.append((homes, marks))
        first, self._count = self._count, self._count + len(texts)
        if self._count > len(self._numbers) // 2:
            self._allocate(self._count.bit_length() + 1)
            homes, marks = (np.concatenate(hashes) for hashes in zip(*self._known, strict=True))
            first = 0
        self._insert(homes, marks, first)

    def _insert(self, homes: np.ndarray, marks: np.ndarray, first: int) -> None:
        """Gives new ids the numbers from `first` on, each in the first empty slot from its home on."""
        slots, numbers = self._slots(homes), np.arange(first, first + len(homes), dtype=np.int32)
        while len(slots):
            empty = self._numbers[slots] < 0
            self._numbers[slots[empty]] = numbers[empty]  # of several that want one slot, one gets it
            is_in = self._numbers[slots] == numbers
            self._marks[slots[is_in]] = marks[is_in]
            marks, numbers, slots = marks[~is_in], numbers[~is_in], self._next(slots[~is_in])


def _hashes(ids: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Two hashes uint64 of each id that know nothing of each other."""
    return ids.hash(1).to_numpy(), ids.hash(2).to_numpy()


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
