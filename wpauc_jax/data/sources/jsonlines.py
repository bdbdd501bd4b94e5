"""Files with one JSON object a line, as blocks of interactions or one by one.

Some publishers wrote Python literals instead of JSON. They are parsed as literals, never evaluated.
"""

import ast
import json
import math
from collections.abc import Iterator
from typing import Any

import polars as pl

from wpauc_jax.data.errors import Rejects, listed, shown, shown_around
from wpauc_jax.data.sources.blocks import Input, ahead, text_blocks
from wpauc_jax.data.tables import LINE, REST, FilesRead
from wpauc_jax.data.text import HALF, decoded, has_half, mended
from wpauc_jax.data.times import ACCEPTED, times_of

_LONGEST_LITERAL = 1 << 20  # bytes; the parser of Python literals needs many times as much memory


def json_interactions(
    source: Input, names: tuple[str, str, str], unit: str, rejects: Rejects, files: FilesRead
) -> Iterator[pl.DataFrame]:
    """Blocks of user, item and time from three fields of each object; without a name for times they are the rows'.

    Ids are text or numbers. Raises DataError for a damaged file; lines that cannot be used go to `rejects`.
    """
    for number, block in ahead(text_blocks(source, files)):
        table = _fast(block, number, names, unit)
        yield _slow(block, number, names, unit, source.label, rejects) if table is None else table


def _fast(block: bytes, number: int, names: tuple[str, str, str], unit: str) -> pl.DataFrame | None:
    """The block as a table, or None where something in it is wrong or only may be."""
    user, item, time = names
    for kind in (pl.Int64, pl.String):
        try:
            table = pl.read_ndjson(block, schema={user: pl.String, item: pl.String} | ({time: kind} if time else {}))
            break
        except pl.exceptions.PolarsError:
            continue
    else:
        return None
    # A list, an object or a truth value arrives as its JSON text, and half of a surrogate pair as a NUL.
    ids = pl.col(user, item)
    doubtful = ids.is_in(["true", "false", ""]) | ids.str.starts_with("[") | ids.str.starts_with("{")
    if b"\\u" in block:
        doubtful = doubtful | ids.str.contains("\0", literal=True)
    if any(column.has_nulls() for column in table) or table.select(pl.any_horizontal(doubtful.any())).item():
        return None
    if not time:
        rows = pl.int_range(number, number + len(table), dtype=pl.Int64)  # blank lines may make it lag behind
        return table.select(user=user, item=item, time=rows)
    return _with_times(table.select(user=user, item=item, time=time), unit)


def _with_times(table: pl.DataFrame, unit: str) -> pl.DataFrame | None:
    whole, rest = times_of(table["time"], unit)
    if whole.has_nulls():
        return None
    table = table.with_columns(whole.alias("time"))
    return table if rest is None else table.with_columns(rest.alias(REST))


def _slow(
    block: bytes, number: int, names: tuple[str, str, str], unit: str, label: str, rejects: Rejects
) -> pl.DataFrame:
    rows: list[tuple[Any, ...]] = []
    faults: list[tuple[int, str, str, str]] = []
    wanted = [name for name in names if name]
    for line, fields, fault, excerpt in _objects(block, number):
        values: list[Any] = []
        for name in wanted:
            if not fault:
                text, fault = id_of(fields.get(name), name)
                values.append(text)
                excerpt = shown(repr(fields[name])) if name in fields else f"it has {listed(map(repr, fields))}"
        if fault:
            faults.append((line, fault, excerpt, ""))
        else:
            rows.append((*values, *([] if names[2] else [line]), line))
    schema = {"user": pl.String, "item": pl.String, "time": pl.String if names[2] else pl.Int64, LINE: pl.Int64}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if names[2]:
        whole, rest = times_of(table["time"], unit)
        reason = f"{names[2]!r} is not a time"
        bad = table.filter(whole.is_null()).select(LINE, "time").iter_rows()
        faults += [(line, reason, shown(text), ACCEPTED) for line, text in bad]
        table = table.with_columns(whole.alias("time"), *([] if rest is None else [rest.alias(REST)]))
        table = table.filter(pl.col("time").is_not_null())
    for line, reason, excerpt, hint in sorted(faults):
        rejects.add(label, line, reason, excerpt, hint)
    return table.drop(LINE)


def json_objects(source: Input, rejects: Rejects, files: FilesRead) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Blocks of (line, object). Raises DataError for a damaged file; lines that are no object go to `rejects`."""
    for number, block in text_blocks(source, files):
        found = []
        for line, fields, fault, excerpt in _objects(block, number):
            if fault:
                rejects.add(source.label, line, fault, excerpt)
            else:
                found.append((line, fields))
        yield found


def _objects(block: bytes, number: int) -> Iterator[tuple[int, dict[str, Any], str, str]]:
    """Line, object, and what is wrong with the line and where."""
    for line, content in enumerate(block.split(b"\n"), start=number):
        if content.strip():
            fields = parse_object(content)
            fault = "" if fields is not None else "not a JSON object"
            yield line, fields or {}, fault, shown_around(content, _place_of_fault(content)) if fault else ""


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The object that a line is, in JSON or as a Python literal; None for anything else."""
    text = decoded(line)
    if text is None:
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


def _place_of_fault(line: bytes) -> int:
    """The byte at which a line stops being JSON."""
    try:
        json.loads(line.decode())
    except json.JSONDecodeError as error:
        return len(error.doc[: error.pos].encode(errors="surrogatepass"))
    except UnicodeDecodeError as error:
        return error.start
    except (ValueError, RecursionError):
        pass
    return 0


def id_of(value: Any, name: str) -> tuple[str, str]:
    """The text of an id or a time in the field `name`, and what is wrong with it. A whole number is written as one."""
    if value is None or value == "":
        return "", f"no value for {name!r}"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        return "", f"{name!r} is no text and no number"
    text = str(value)
    if text == "nan" and isinstance(value, float):
        return "", f"no value for {name!r}"
    if has_half(text):
        return "", f"{name!r} {HALF}"
    return (text, "") if "\0" not in text else ("", "a NUL byte")


def as_text(value: Any) -> str:
    """A text or a number as text; "" for anything else, and for NaN and infinity, which are no words."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return mended(str(value))
