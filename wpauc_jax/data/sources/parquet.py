"""Reads Parquet files as blocks of a table, with the checks that delimited text gets.

Arrow reads them. If a file is damaged, Arrow fails with a message, while Polars may end the whole process.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.hashing import file_digest
from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.tables import LINE, REST, FilesRead
from wpauc_jax.data.text import HALF, decoded, mended
from wpauc_jax.data.times import ACCEPTED, times_of

ROWS = 1 << 20  # of a block at most
_HALF_SIGN = "\ufdd0\ufdd1"  # stands for half of a surrogate pair until it is known whether it is in an id


@contextlib.contextmanager
def _opened(source: Input) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(source.path, page_checksum_verification=True) as file:
            yield file
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source.label}: damaged Parquet file ({reason:.300})") from error


def parquet_columns(source: Input) -> list[str]:
    """The columns of a file. Raises DataError for one that is damaged, and for columns that cannot be told apart."""
    with _opened(source) as file:
        names = list(file.schema_arrow.names)
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise DataError(f"{source.label} has two columns {again!r}; rename one")
    return names


def parquet_blocks(
    source: Input,
    ids: Sequence[str],
    time: str,
    optional: Sequence[str],
    unit: str,
    rejects: Rejects,
    files: FilesRead,
) -> Iterator[pl.DataFrame]:
    """Blocks of text columns, of times (int64, and REST where a block needs it), and of LINE, here a row's number.

    Raises DataError for a damaged file; rows that cannot be used go to `rejects`.
    """
    number = 1
    columns = list(dict.fromkeys([*ids, *([time] if time else []), *optional]))
    with _opened(source) as file, ThreadPoolExecutor(1) as pool:
        digest = pool.submit(file_digest, source.path)
        for name in columns:
            kind = file.schema_arrow.field(name).type
            if pa.types.is_decimal(kind) and not pa.types.is_decimal128(kind):  # Polars panics
                raise DataError(f"{source.label}: column {name!r} ({kind}) cannot be read; write it as decimal128")
        for group in range(file.num_row_groups):  # one call for all of them would keep all that it has read
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                block = pl.DataFrame(_mended(batch).replace_schema_metadata(None))
                yield _checked(block, number, list(ids), time, unit, source.label, rejects)
                number += len(block)
        if number - 1 != file.metadata.num_rows:
            raise DataError(
                f"{source.label}: damaged Parquet file (it holds {number - 1:,} rows, not {file.metadata.num_rows:,})"
            )
        files.record(source.name, source.path, digest.result())


def _mended(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch; halves of surrogate pairs, which are no UTF-8, become _HALF_SIGN. Raises ArrowException for damage."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for place, field in enumerate(batch.schema):
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
                batch = batch.set_column(place, field.name, _mended_text(batch.column(place)))
        batch.validate(full=True)
    return batch


def _mended_text(column: pa.Array) -> pa.Array:
    raw = column.view(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()).to_pylist()
    texts = [None if value is None else decoded(value) for value in raw]
    if any(text is None and value is not None for text, value in zip(texts, raw, strict=True)):
        return column
    return pa.array([text and mended(text, _HALF_SIGN) for text in texts], column.type)


def _checked(
    block: pl.DataFrame, number: int, ids: list[str], time: str, unit: str, label: str, rejects: Rejects
) -> pl.DataFrame:
    rows = block.with_columns(pl.int_range(number, number + len(block), dtype=pl.Int64).alias(LINE))
    rows = rows.with_columns(_ids(block[name]).alias(name) for name in ids)
    if time:
        whole, rest = times_of(block[time], unit)
        rows = rows.with_columns(whole.alias(time), *([] if rest is None else [rest.alias(REST)]))
    needed = [*ids, *([time] if time else [])]
    bad = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in needed))
    for row in bad.iter_rows(named=True):
        name = next(name for name in needed if row[name] is None)
        value = block[name][row[LINE] - number]
        if value is None or (isinstance(value, str) and not value):
            reason = f"no value for {name!r}"
        elif isinstance(value, str) and name != time:
            reason = "a NUL byte" if "\0" in value else f"{name!r} {HALF}"
        else:
            reason = f"{name!r} is {'not a time' if name == time else 'no text and no whole number'}"
        rejects.add(label, row[LINE], reason, shown(repr(value)), ACCEPTED if reason.endswith("a time") else "")
    words = [_words(rows[name], label) for name in block.columns if name not in needed]
    return rows.with_columns(words).join(bad, on=LINE, how="anti", maintain_order="left")


def _ids(values: pl.Series) -> pl.Series:
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum)):
        return pl.Series([None] * len(values), dtype=pl.String)
    texts = values.cast(pl.String).replace("", None)
    bad = texts.str.contains(_HALF_SIGN, literal=True) | texts.str.contains("\0", literal=True)
    return texts.set(bad.fill_null(False), None)


def _words(values: pl.Series, label: str) -> pl.Series:
    """Anything that says something of an item, in text; of a list its members, with spaces between."""
    try:
        if isinstance(values.dtype, pl.List):
            return values.list.eval(pl.element().cast(pl.String)).list.join(" ", ignore_nulls=True).replace("", None)
        if values.dtype.is_float():
            values = values.fill_nan(None)
        texts = values.cast(pl.String).replace("", None)
        return texts.str.replace_all(_HALF_SIGN, "\ufffd", literal=True)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{label}: column {values.name!r} ({values.dtype}) cannot be read as text; leave it out of the file"
        ) from error
