"""Files with one JSON object a line, as blocks of interactions or one by one.

Some publishers wrote Python literals instead of JSON. They are parsed as literals, never evaluated.
"""

import ast
import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from wpauc_jax.data.errors import Rejects, shown
from wpauc_jax.data.sources.blocks import Input, ahead, text_blocks
from wpauc_jax.data.tables import interaction_table
from wpauc_jax.data.times import parsed_times

_LONGEST_LITERAL = 1 << 20  # bytes; the parser of Python literals needs many times as much memory


def json_interactions(
    source: Input, user: str, item: str, time: str, rejects: Rejects, files: dict[str, str]
) -> Iterator[pl.DataFrame]:
    """Blocks of interactions from three fields of each object. Ids are text or whole numbers.

    Raises DataError for a damaged file; lines that cannot be used go to `rejects`.
    """
    for number, block in ahead(text_blocks(source, files)):
        table = _fast(block, user, item, time)
        yield _slow(block, number, (user, item, time), source.label, rejects) if table is None else table


def _fast(block: bytes, user: str, item: str, time: str) -> pl.DataFrame | None:
    """The block as a table, or None where something in it is wrong or only may be."""
    for kind in (pl.Int64, pl.String):
        try:
            table = pl.read_ndjson(block, schema={user: pl.String, item: pl.String, time: kind})
            break
        except pl.exceptions.PolarsError:
            continue
    else:
        return None
    if kind == pl.String:
        table = table.with_columns(parsed_times(table[time]).alias(time))
    # A list, an object or a truth value arrives as its JSON text; an empty id is none.
    ids = pl.col(user, item)
    doubtful = ids.is_in(["true", "false", ""]) | ids.str.starts_with("[") | ids.str.starts_with("{")
    if any(column.has_nulls() for column in table) or table.select(pl.any_horizontal(doubtful.any())).item():
        return None
    return table.select(user=user, item=item, time=time)


def _slow(block: bytes, number: int, names: tuple[str, str, str], label: str, rejects: Rejects) -> pl.DataFrame:
    rows = []
    for line, fields in _objects(block, number, label, rejects):
        *ids, time = (as_text(fields.get(name)) for name in names)
        missing = next((name for name, value in zip(names, (*ids, time), strict=True) if not value), None)
        if missing is not None:
            value = fields.get(missing)
            reason = f"no value for {missing!r}" if value in (None, "") else f"{missing!r} is no text and no number"
            rejects.add(label, line, reason, shown(repr(fields)))
        elif parsed_times(pl.Series([time])).has_nulls():
            rejects.add(label, line, f"{names[2]!r} is not a time", shown(repr(fields)))
        else:
            rows.append((*ids, time))
    users, items, times = zip(*rows, strict=True) if rows else ((), (), ())
    return interaction_table(list(users), list(items), parsed_times(pl.Series(times, dtype=pl.String)))


def json_objects(source: Input, rejects: Rejects, files: dict[str, str]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Blocks of (line, object). Raises DataError for a damaged file; lines that are no object go to `rejects`."""
    for number, block in text_blocks(source, files):
        yield list(_objects(block, number, source.label, rejects))


def _objects(block: bytes, number: int, label: str, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(block.split(b"\n"), start=number):
        if content.strip():
            fields = parse_object(content)
            if fields is None:
                rejects.add(label, line, "not a JSON object", shown(content))
            else:
                yield line, fields


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The object that a line is, in JSON or as a Python literal; None for anything else."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if len(line) > _LONGEST_LITERAL:
            return None
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def as_text(value: Any) -> str:
    """A text or a number as text; "" for anything else, also for text that no file can hold."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return ""
    return text
