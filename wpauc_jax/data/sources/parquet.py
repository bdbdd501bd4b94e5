"""Parquet files as blocks of a table, with the checks that delimited text gets.

Arrow's own reader takes them apart: on a damaged file it fails in words, where Polars' may end the whole process.
"""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from wpauc_jax.data.errors import DataError, Rejects, shown
from wpauc_jax.data.hashing import file_digest
from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.times import parsed_times

ROWS = 1 << 20  # of a block at most


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


def parquet_table_blocks(
    source: Input, needed: list[str], time: str, optional: list[str], rejects: Rejects, files: dict[str, str]
) -> Iterator[pl.DataFrame]:
    """Blocks of text columns, of times and of `line`, which here is the number of the row.

    Raises DataError for a damaged file; rows that cannot be used go to `rejects`.
    """
    number = 1
    with _opened(source) as file, ThreadPoolExecutor(1) as pool:
        digest = pool.submit(file_digest, source.path)
        for name in (*needed, *optional):
            kind = file.schema_arrow.field(name).type
            if pa.types.is_decimal(kind) and not pa.types.is_decimal128(kind):  # Polars panics
                raise DataError(f"{source.label}: column {name!r} ({kind}) cannot be read; write it as decimal128")
        for group in range(file.num_row_groups):  # one call for all of them would keep all that it has read
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=[*needed, *optional]):
                batch.validate(full=True)  # text that is not UTF-8, for example
                block = pl.DataFrame(batch.replace_schema_metadata(None))
                yield _checked(block, number, needed, time, source.label, rejects)
                number += len(block)
        if number - 1 != file.metadata.num_rows:
            raise DataError(
                f"{source.label}: damaged Parquet file (it holds {number - 1:,} rows, not {file.metadata.num_rows:,})"
            )
        files[source.name] = digest.result()


def _checked(
    block: pl.DataFrame, number: int, needed: list[str], time: str, label: str, rejects: Rejects
) -> pl.DataFrame:
    rows = block.with_columns(pl.int_range(number, number + len(block), dtype=pl.Int64).alias("line"))
    for name in needed:
        values = _times(block[name]) if name == time else _texts(block[name])
        rows = rows.with_columns(values.alias(name))
    bad = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in needed))
    for row in bad.iter_rows(named=True):
        name = next(name for name in needed if row[name] is None)
        value = block[name][row["line"] - number]
        if value is None or (isinstance(value, str) and not value):
            reason = f"no value for {name!r}"
        else:
            reason = f"{name!r} is {'not a time' if name == time else 'no text and no whole number'}"
        rejects.add(label, row["line"], reason, shown(repr(value)))
    words = [_words(rows[name], label) for name in rows.columns if name not in (*needed, "line")]
    return rows.with_columns(words).join(bad, on="line", how="anti", maintain_order="left")


def _texts(values: pl.Series) -> pl.Series:
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum)):
        return pl.Series([None] * len(values), dtype=pl.String)
    return values.cast(pl.String).replace("", None)


def _words(values: pl.Series, label: str) -> pl.Series:
    """Anything that says something of an item, in text; of a list its members, with spaces between."""
    try:
        if isinstance(values.dtype, pl.List):
            return values.list.eval(pl.element().cast(pl.String)).list.join(" ", ignore_nulls=True).replace("", None)
        return values.cast(pl.String).replace("", None)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{label}: column {values.name!r} ({values.dtype}) cannot be read as text; leave it out of the file"
        ) from error


def _times(values: pl.Series) -> pl.Series:
    if values.dtype.is_temporal() and values.dtype not in (pl.Time, pl.Duration):
        return values.cast(pl.Datetime("us")).dt.epoch("s")
    if values.dtype.is_numeric() and not values.dtype.is_integer():
        return values.cast(pl.Float64).set(~(values.abs() < 2.0**63).fill_null(False), None)
    if values.dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    return parsed_times(values) if values.dtype == pl.String else pl.Series([None] * len(values), dtype=pl.Int64)
