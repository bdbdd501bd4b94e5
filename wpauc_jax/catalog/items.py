"""The catalog: every item is a sequence of tokens. No other item has the same sequence, or begins with it.

Semantic ids take new tokens. Each level has tokens of its own, so a token tells its level. If the codes of two items
are the same, or if those of one begin those of the other, the items get one more code. That code has a level of its
own.

The new tokens stand behind the vocabulary of a language model. A model from scratch has no other tokens: 0 is padding,
1 begins a prompt, and the codes begin at 3. If the tokenizer of a language model knows a code by its name, such as
<a_12>, the code is that token and not a new one.
"""

import dataclasses
import hashlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from wpauc_jax.data.errors import DataError
from wpauc_jax.runtime.files import atomic_path

FIRST_CODE = 3  # behind padding, the beginning of a prompt, and an unused one


@dataclasses.dataclass(frozen=True)
class Catalog:
    """I items of at most C tokens."""

    pad: ClassVar[int] = 0
    bos: ClassVar[int] = 1  # of a model whose vocabulary is this catalog's alone

    tokens: np.ndarray  # int32[I, C], -1 behind an item's last token
    lengths: np.ndarray  # int32[I]
    vocab_size: int  # token ids that the model must have
    first_code: int  # the first new token; those up to vocab_size are new
    end: int  # the token that ends every item; -1: none
    level_sizes: tuple[int, ...]  # new tokens of each level, without the disambiguating one; none for titles
    codes_used: tuple[int, ...]  # distinct codes that occur at each of these levels
    cut: int  # titles that were too long
    repairs: int  # items that needed a disambiguating code or number
    duplicates: int  # items that an earlier item would equal without it: those beyond the first of each group
    largest_group: int  # items in the largest group of equal ones; 1 where all differ
    codes: np.ndarray  # int32[K], the tokens of all codes: level by level, then the disambiguating ones
    code_names: tuple[str, ...]  # their names
    unknown: int = 0  # titles in which the tokenizer cannot spell something

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.lengths)

    @property
    def fingerprint(self) -> str:
        """sha256 of what the model sees: the sequences and the vocabulary's size."""
        content = self.tokens.astype("<i4").tobytes() + repr((self.tokens.shape, self.vocab_size)).encode()
        return hashlib.sha256(content).hexdigest()

    def sequences(self) -> list[list[int]]:
        """The items' tokens without padding, for `build_trie`."""
        return [row[:length].tolist() for row, length in zip(self.tokens, self.lengths, strict=True)]

    def report(self) -> dict[str, int | list[int] | list[float]]:
        """What to log and to keep with results."""
        return {
            "items": self.num_items,
            "vocab_size": self.vocab_size,
            "longest": int(self.tokens.shape[1]),
            **({"codes_used": list(self.codes_used)} if self.codes_used else {"titles_cut": self.cut}),
            **({"code_perplexity": self.code_perplexity()} if len(self.codes_used) > 1 else {}),
            "repairs": self.repairs,
            "duplicates": self.duplicates,
            "largest_group": self.largest_group,
            **({"codes_reused": self.reused, "codes_new": len(self.codes) - self.reused} if self.reused else {}),
            **({"titles_with_unknown_tokens": self.unknown} if self.unknown else {}),
        }

    def code_perplexity(self) -> list[float]:
        """Of each level exp of the entropy of items over the tokens at its place.

        It is the number of codes where all stand for equally many items, and less where some stand for most.
        """
        found = []
        for level in range(len(self.codes_used)):
            _, counts = np.unique(self.tokens[:, level][self.lengths > level], return_counts=True)
            shares = counts / counts.sum()
            found.append(round(float(np.exp(-(shares * np.log(shares)).sum())), 1))
        return found

    @property
    def reused(self) -> int:
        """Codes that were tokens of the tokenizer before."""
        return int((self.codes < self.first_code).sum())

    def code_places(self) -> np.ndarray:
        """Each token's place int32[I, C] in `codes`; -1 for one that is no code."""
        place = np.full(self.vocab_size + 1, -1, np.int32)  # the last one is the padding's
        place[self.codes] = np.arange(len(self.codes))
        return place[self.tokens]

    def save(self, path: str | pathlib.Path) -> None:
        """Writes an .npz file, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as out:
            arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in dataclasses.fields(self)}
            np.savez(out, **arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Catalog":
        """Reads what `save` wrote, also before the file named codes. Raises DataError for a damaged file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                values = {name: arrays[name] for name in arrays.files}
            return _checked(cls(**_fields(values)))
        except Exception as error:  # bytes that are no archive, or half of one, raise errors of many types
            raise DataError(f"{path} is not a catalog written by this program, or it is damaged ({error})") from error


def _fields(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """The values of a `Catalog` from the arrays of its file."""
    made: dict[str, Any] = {name: int(value) for name, value in values.items() if value.ndim == 0}
    for name in ("level_sizes", "codes_used"):
        made[name] = tuple(values[name].tolist())
    if "codes" not in values:
        new = made["vocab_size"] - made["first_code"]
        if sum(made["level_sizes"]) > new:
            raise ValueError("its levels have more codes than its vocabulary")
        sizes = [*made["level_sizes"], new - sum(made["level_sizes"])]
        values |= {"codes": np.arange(made["first_code"], made["vocab_size"], dtype=np.int32)}
        values |= {"code_names": np.asarray([name for level in default_names(sizes) for name in level], str)}
    made["code_names"] = tuple(values["code_names"].tolist())
    return made | {name: values[name] for name in ("tokens", "lengths", "codes")}


def _checked(catalog: Catalog) -> Catalog:
    """Raises ValueError for arrays of other shapes or types. What they say of items is for the doctor."""
    tokens, lengths = catalog.tokens, catalog.lengths
    whole = all(np.issubdtype(array.dtype, np.integer) for array in (tokens, lengths, catalog.codes))
    if not whole or tokens.ndim != 2 or 0 in tokens.shape or lengths.shape != tokens.shape[:1]:
        raise ValueError("its arrays have other shapes or types")
    if catalog.codes.max(initial=0) >= catalog.vocab_size or catalog.codes.min(initial=0) < 0:
        raise ValueError("it has a code beyond its vocabulary")
    if len(catalog.codes) != len(catalog.code_names) or sum(catalog.level_sizes) > len(catalog.codes):
        raise ValueError("its codes and their names differ in number")
    return catalog


def default_names(sizes: Sequence[int]) -> list[list[str]]:
    """Names of codes, level by level: <a_0>, <a_1>, ... for the first level, <b_0>, ... for the next."""
    return [[f"<{chr(ord('a') + level)}_{code}>" for code in range(size)] for level, size in enumerate(sizes)]


def padded(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Rows of tokens as int32[len(rows), longest], -1 behind a shorter one's end."""
    lengths = np.asarray([len(row) for row in rows])
    out = np.full((len(rows), lengths.max()), -1, np.int32)
    out[np.arange(out.shape[1]) < lengths[:, None]] = np.concatenate([np.asarray(row, np.int32) for row in rows])
    return out


def catalog_from_codes(
    codes: np.ndarray,
    level_sizes: Sequence[int],
    *,
    first_code: int = FIRST_CODE,
    end: int = -1,
    names: Sequence[Sequence[str]] | None = None,
    known: Mapping[str, int] | None = None,
) -> Catalog:
    """The catalog of items with codes int[I, L], of which level l has `level_sizes[l]`; -1 ends a shorter item.

    Each item of a group of equal codes gets a last code 0, 1, 2, ... in the order of the items; so does an item whose
    codes begin another item's. The other items get none, and then no sequence equals or begins another. `end` of 0 or
    more is a token put behind every item.

    Codes have names, by default those of `default_names`. One whose name is `known` is that token. The others become
    tokens `first_code`, `first_code` + 1, ..., level by level, the disambiguating ones last.

    Raises ValueError for an empty catalog, an item without codes, a code beyond its level, or a gap in an item.
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

    first = np.concatenate([[0], np.cumsum(sizes)])
    place, largest = _place_in_group(codes)
    repaired = place >= 0
    all_names = _all_names(names or default_names(level_sizes), largest if repaired.any() else 0)
    token_of = _code_tokens(all_names, known or {}, first_code)
    tokens = np.full((len(codes), codes.shape[1] + 2), -1, np.int32)
    tokens[:, :-2] = np.where(given, token_of[np.where(given, codes + first[:-1], 0)], -1)
    tokens[repaired, lengths[repaired]] = token_of[first[-1] + place[repaired]]
    lengths = lengths + repaired.astype(np.int32)
    if end >= 0:
        tokens[np.arange(len(tokens)), lengths] = end
        lengths = lengths + 1
    return Catalog(
        tokens=tokens[:, : lengths.max()],
        lengths=lengths,
        vocab_size=max(first_code, int(token_of.max()) + 1),
        first_code=first_code,
        end=end,
        level_sizes=tuple(int(size) for size in level_sizes),
        codes_used=tuple(len(np.unique(column[column >= 0])) for column in codes.T),
        cut=0,
        repairs=int(repaired.sum()),
        duplicates=int((place > 0).sum()),
        largest_group=largest,
        codes=token_of,
        code_names=tuple(all_names),
    )


def _all_names(names: Sequence[Sequence[str]], disambiguating: int) -> list[str]:
    """The names of all codes; those of the disambiguating ones begin with the first letter that no name takes yet."""
    taken = {name for level in names for name in level}
    for letter in itertools.islice(itertools.count(ord("a") + len(names)), len(taken) + 1):
        last = [f"<{chr(letter)}_{code}>" for code in range(disambiguating)]
        if taken.isdisjoint(last):
            break
    return [name for level in (*names, last) for name in level]


def _code_tokens(names: Sequence[str], known: Mapping[str, int], first_code: int) -> np.ndarray:
    """int32[K], the token of each code: the one that is known by its name, or the next new one."""
    new = itertools.count(first_code)
    return np.asarray([known[name] if name in known else next(new) for name in names], np.int32)


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
