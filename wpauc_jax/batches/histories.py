"""The input of mode=recommend: users' histories by raw item ids."""

import codecs
import dataclasses
import difflib
import itertools
import json
import os
import pathlib
import reprlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from wpauc_jax.data.errors import DataError, listed
from wpauc_jax.data.hashing import read_file, unpacked

History = tuple[str, np.ndarray]  # a user's name, items int32[n] in time order, n of at least 1
Row = tuple[str, list[tuple[str, int]]]  # a user, and each item with the number of its line

_NAMED = 5  # unknown items that a message names, each with the nearest id
_COMPARED = 50_000  # ids among which the nearest is looked for


def read_histories(
    path: str | os.PathLike[str],
    item_ids: Sequence[str],
    *,
    unknown: str = "error",
    say: Callable[[str], None] = print,
) -> list[History]:
    """The histories in a file, in the order in which users first appear; `item_ids` are the catalog's, in its order.

    JSON lines of {"user": ..., "history": [raw item ids, the latest last]}, each line a history of its own; or, by its
    name, a RecBole `.inter` file, of which a user's lines are one history, sorted by time, equal times as they stand.
    Either may be gzip. Ids are strings or whole numbers: 7 is "7". An item that is not in the catalog is an error, or,
    with unknown="skip", left out; a user of whose items none is left is left out, too. `say` is told of both.

    Raises DataError naming the file and line of what is malformed, empty or not in the catalog.
    """
    path = pathlib.Path(path)
    is_inter = path.name.removesuffix(".gz").endswith(".inter")
    rows = list(_inter_rows(path) if is_inter else _json_rows(unpacked(read_file(path), str(path)), str(path)))
    if not rows:
        raise DataError(f"{path}: the file holds no history")
    number_of = {raw: number for number, raw in enumerate(item_ids)}
    missing = [_Unknown(user, item, line) for user, items in rows for item, line in items if item not in number_of]
    if missing:
        UNKNOWN[unknown](str(path), missing, item_ids, say)
        known = [(user, [entry for entry in items if entry[0] in number_of]) for user, items in rows]
        empty = [user for user, items in known if not items]
        rows = [(user, items) for user, items in known if items]
        if not rows:
            raise DataError(f"{path}: no user has an item of the catalog; check that the ids are those of its data")
        if empty:
            say(f"{path}: users without a known item, who get no list: {len(empty)} ({listed(map(repr, empty))})")
    return [(user, np.array([number_of[item] for item, _ in items], np.int32)) for user, items in rows]


@dataclasses.dataclass(frozen=True)
class _Unknown:
    """An item of a history that the catalog does not have."""

    user: str
    item: str
    line: int


def _refuse(label: str, missing: Sequence[_Unknown], ids: Sequence[str], say: Callable[[str], None]) -> NoReturn:
    first = missing[0]
    raise DataError(
        f"{label}, line {first.line}: item {first.item!r:.80} of user {first.user!r:.80} is not among the {len(ids)} "
        f"items of the prepared data; unknown in all: {_named(missing, ids)}; remove them, or set "
        "recommend.unknown='skip'"
    )


def _skip(label: str, missing: Sequence[_Unknown], ids: Sequence[str], say: Callable[[str], None]) -> None:
    say(f"{label}: items that are not in the catalog are left out: {_named(missing, ids)}")


UNKNOWN = {"error": _refuse, "skip": _skip}  # by recommend.unknown


def _named(missing: Sequence[_Unknown], ids: Sequence[str]) -> str:
    """How many there are, and the first few with their lines and the ids that are spelled nearest."""
    first: dict[str, _Unknown] = {}
    for entry in missing:
        first.setdefault(entry.item, entry)
    distinct = list(first.values())
    named = []
    for entry in distinct[:_NAMED]:
        near = _nearest(entry.item, ids)
        named.append(f"{entry.item!r:.80} (line {entry.line}{f'; nearest is {near!r:.80}' if near else ''})")
    more = f" and {len(distinct) - _NAMED} more" if len(distinct) > _NAMED else ""
    return f"{len(missing)}, {len(distinct)} of them different: {', '.join(named)}{more}"


def _nearest(item: str, ids: Sequence[str]) -> str | None:
    """The id that differs from `item` in blanks, case, leading zeros or '.0' alone, or else looks most like it."""
    plain = _plain(item)
    same = next((other for other in ids if _plain(other) == plain), None)
    if same is not None:
        return same
    alike = (other for other in ids if abs(len(other) - len(item)) <= 2)
    found = difflib.get_close_matches(item[:100], itertools.islice(alike, _COMPARED), n=1, cutoff=0.7)
    return found[0] if found else None


def _plain(text: str) -> str:
    return text.strip().casefold().removesuffix(".0").lstrip("0")


def _inter_rows(path: pathlib.Path) -> list[Row]:
    from wpauc_jax.data.sources.blocks import Input  # and with these Polars
    from wpauc_jax.data.sources.recbole import inter_in_time

    table = inter_in_time(Input(path))
    users = table.sort("line")["user"].unique(maintain_order=True)
    histories: dict[str, list[tuple[str, int]]] = {user: [] for user in users}
    for user, item, line in table.iter_rows():
        histories[user].append((item, line))
    return list(histories.items())


def _json_rows(content: bytes, label: str) -> Iterator[Row]:
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{label}, line {number}"
        try:
            value = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # also of bytes that are not UTF-8, and of endless brackets
            raise DataError(f"{where}: not JSON ({error})") from error
        if not isinstance(value, dict) or not _is_id(value.get("user")) or not isinstance(value.get("history"), list):
            raise DataError(f'{where}: expected {{"user": id, "history": [item ids]}}, got {reprlib.repr(value)}')
        user, items = str(value["user"]), value["history"]
        if not items:
            raise DataError(f"{where}: the history of user {user!r:.80} is empty; remove the line")
        for item in items:
            if not _is_id(item):
                raise DataError(
                    f"{where}: item {reprlib.repr(item)} of user {user!r:.80} is not a string or an integer"
                )
        for text in (user, *map(str, items)):
            if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
                raise DataError(f"{where}: the id {text!r:.80} holds half a character; write it whole")
        yield user, [(str(item), number) for item in items]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r:.80} stands twice")
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
