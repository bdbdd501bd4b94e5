"""Parquet files as blocks of a table, by row group, with the checks that delimited text gets."""

import hashlib
from collections.abc import Iterator

import polars as pl

from wpauc_jax.data.sources.blocks import Input
from wpauc_jax.data.sources.tables import DataError, Rejects, parsed_times, shown

ROWS = 1 << 20  # of a block


def parquet_columns(source: Input) -> list[str]:
    """The columns of a file. Raises DataError for one that is damaged."""
    try:
        return pl.scan_parquet(source.path).collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{source.label}: damaged Parquet file ({error})") from error


def parquet_table_blocks(
    source: Input, needed: list[str], time: str, optional: list[str], rejects: Rejects, files: dict[str, str]
) -> Iterator[pl.DataFrame]:
    """Blocks of text columns, of times and of `line`, which here is the number of the row.

    Raises DataError for a damaged file; rows that cannot be used go to `rejects`.
    """
    with source.path.open("rb") as stream:
        files[source.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    frame = pl.scan_parquet(source.path).select([*needed, *optional])
    number = 1
    try:
        for block in frame.collect_batches(chunk_size=ROWS, maintain_order=True):
            yield _checked(block, number, needed, time, source.label, rejects)
            number += len(block)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{source.label}: damaged Parquet file ({error})") from error


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
        reason = f"{name!r} is not a time" if name == time and value is not None else f"no value for {name!r}"
        rejects.add(label, row["line"], reason, shown(repr(value)))
    texts = [pl.col(name).cast(pl.String) for name in rows.columns if name not in (*needed, "line")]
    return rows.join(bad, on="line", how="anti", maintain_order="left").with_columns(texts)


def _texts(values: pl.Series) -> pl.Series:
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum)):
        return pl.Series([None] * len(values), dtype=pl.String)
    return values.cast(pl.String).replace("", None)


def _times(values: pl.Series) -> pl.Series:
    if values.dtype.is_temporal() and values.dtype not in (pl.Time, pl.Duration):
        return values.cast(pl.Datetime("us")).dt.epoch("s")
    if values.dtype.is_numeric() and not values.dtype.is_integer():
        return values.cast(pl.Float64).set(~(values.abs() < 2.0**63).fill_null(False), None)
    if values.dtype.is_integer():
        return values.cast(pl.Int64, strict=False)
    return parsed_times(values) if values.dtype == pl.String else pl.Series([None] * len(values), dtype=pl.Int64)
