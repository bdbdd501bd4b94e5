"""Times: from what stands in files to numbers."""

import polars as pl

_DATES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")  # UTC


def parsed_times(values: pl.Series) -> pl.Series:
    """Numbers or dates in text as times: int64 where every one is whole, else float64; null for what is no time."""
    whole = values.cast(pl.Int64, strict=False)
    if not whole.has_nulls():
        return whole
    dates = [values.str.to_datetime(form, strict=False).dt.epoch("s") for form in _DATES]
    whole = pl.select(pl.coalesce(whole, *dates)).to_series()
    if not whole.has_nulls():
        return whole
    real = values.cast(pl.Float64, strict=False)
    sound = (real.abs() < 2.0**63).fill_null(False)  # NaN compares greater than any number
    return pl.select(pl.coalesce(real.set(~sound, None), whole)).to_series()
