"""The catalogue: every item as a token sequence that no other item equals, continues or begins.

Token ids: 0 padding, 1 beginning of the prompt, 2 end; then each level's codes in turn, so that a token tells its
level. Items whose codes coincide (or begin another item's) get one more code, from a level of its own.
"""

import dataclasses
import hashlib
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from wpauc_jax.data.sources.tables import DataError
from wpauc_jax.files import atomic_path


@dataclasses.dataclass(frozen=True)
class Catalog:
    """I items of at most C tokens."""

    pad: ClassVar[int] = 0
    bos: ClassVar[int] = 1
    eos: ClassVar[int] = 2
    first_code: ClassVar[int] = 3

    tokens: np.ndarray  # int32[I, C], -1 behind an item's last token
    lengths: np.ndarray  # int32[I]
    level_sizes: tuple[int, ...]  # token ids set aside for each level, without the disambiguating one
    codes_used: tuple[int, ...]  # distinct codes that occur at each of these levels
    repairs: int  # items that needed a disambiguating code
    largest_group: int  # items in the largest group of equal codes; 1 where all differ

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.lengths)

    @property
    def vocab_size(self) -> int:
        """Token ids in use, the three special ones included."""
        disambiguating = self.largest_group if self.repairs else 0
        return self.first_code + sum(self.level_sizes) + disambiguating

    @property
    def fingerprint(self) -> str:
        """sha256 of what the model sees: the sequences and the vocabulary's size."""
        content = self.tokens.astype("<i4").tobytes() + repr((self.tokens.shape, self.vocab_size)).encode()
        return hashlib.sha256(content).hexdigest()

    def sequences(self) -> list[list[int]]:
        """The items' tokens without padding, for `build_trie`."""
        return [row[:length].tolist() for row, length in zip(self.tokens, self.lengths, strict=True)]

    @property
    def duplicates(self) -> int:
        """Items whose codes an earlier item has already: the items beyond the first of each group."""
        return int((self.tokens > self.first_code + sum(self.level_sizes)).sum())

    def report(self) -> dict[str, int | list[int]]:
        """What to log and to keep with results."""
        return {
            "items": self.num_items,
            "vocab_size": self.vocab_size,
            "longest": int(self.tokens.shape[1]),
            "codes_used": list(self.codes_used),
            "repairs": self.repairs,
            "duplicates": self.duplicates,
            "largest_group": self.largest_group,
        }

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as out:
            arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)}
            np.savez(out, **arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Catalog":
        """Reads what `save` wrote. Raises DataError for a missing or damaged file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {field.name: arrays[field.name] for field in dataclasses.fields(cls)}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a catalogue written by this program ({error})") from error
        return cls(
            tokens=values["tokens"],
            lengths=values["lengths"],
            level_sizes=tuple(values["level_sizes"].tolist()),
            codes_used=tuple(values["codes_used"].tolist()),
            repairs=int(values["repairs"]),
            largest_group=int(values["largest_group"]),
        )


def catalog_from_codes(codes: np.ndarray, level_sizes: Sequence[int]) -> Catalog:
    """The catalogue of items with codes int[I, L], of which level l has `level_sizes[l]`; -1 ends a shorter item.

    Level l's code c becomes token 3 + sum(level_sizes[:l]) + c. Each item of a group of equal codes gets a last code
    0, 1, 2, ... in the order of the items; so does an item whose codes begin another item's. The other items get
    none, and then no sequence equals or begins another.

    Raises ValueError for an empty catalogue, an item without codes, a code beyond its level, or a gap in an item.
    """
    codes = np.asarray(codes, np.int32)
    if codes.ndim != 2 or 0 in codes.shape or codes.shape[1] != len(level_sizes):
        raise ValueError(f"codes must be [items, {len(level_sizes)}] and not empty, not {codes.shape}")
    given = codes >= 0
    lengths = given.sum(1).astype(np.int32)
    if (lengths == 0).any():
        raise ValueError(f"item {np.argmin(lengths)} has no code")
    if (given != (np.arange(codes.shape[1]) < lengths[:, None])).any():
        raise ValueError("an item has a code behind a missing one")
    sizes = np.asarray(level_sizes)
    if (codes >= sizes).any():
        item, level = np.argwhere(codes >= sizes)[0]
        raise ValueError(f"item {item} has code {codes[item, level]} at level {level}, which has {sizes[level]}")

    first = Catalog.first_code + np.concatenate([[0], np.cumsum(sizes)])
    place, largest = _place_in_group(codes)
    repaired = place >= 0
    tokens = np.full((len(codes), codes.shape[1] + 1), -1, np.int32)
    tokens[:, :-1] = np.where(given, codes + first[:-1], -1)
    tokens[repaired, lengths[repaired]] = first[-1] + place[repaired]
    lengths = lengths + repaired.astype(np.int32)
    return Catalog(
        tokens=tokens[:, : lengths.max()],
        lengths=lengths,
        level_sizes=tuple(int(size) for size in level_sizes),
        codes_used=tuple(len(np.unique(column[column >= 0])) for column in codes.T),
        repairs=int(repaired.sum()),
        largest_group=largest,
    )


def _place_in_group(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """Each item's place int32[I] in its group of equal codes, or -1 if it needs none; and the largest group's size."""
    distinct, group, counts = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    # Rows are sorted with -1 first, so a row that begins another one stands directly before such a row.
    here, following = distinct[:-1], distinct[1:]
    begins = np.append(((here == following) | (here < 0)).all(1), False)
    by_group = np.argsort(group, kind="stable")
    starts = np.cumsum(counts) - counts
    place = np.empty(len(codes), np.int32)
    place[by_group] = np.arange(len(codes)) - np.repeat(starts, counts)
    place[~((counts > 1) | begins)[group]] = -1
    return place, int(counts.max())
