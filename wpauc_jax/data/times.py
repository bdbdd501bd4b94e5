"""Times: the one conversion that every reader uses, from what stands in files to whole numbers since 1970.

A time is a whole number of the data set's unit, rounded down, and a rest in nanoseconds. So nothing is lost if a file
is fine, and nothing is spent if it is coarse. `data.time_unit` says what numbers count. It never scales a date. A date
without an offset is taken as UTC.
"""

import polars as pl

from wpauc_jax.data.dataset import PER_SECOND

UNITS = {"auto": "", **{unit: unit for unit in PER_SECOND}}  # by data.time_unit; "" leaves the choice to the format
ACCEPTED = (
    "accepted are a number of data.time_unit since 1970 and dates such as 2018-07-07, 2018-07-07 22:09:11.25, "
    "2018-07-07T22:09:11Z and 2018-07-07T22:09:11+02:00"
)

Times = tuple[pl.Series, pl.Series | None]  # whole int64, null for what is no time; rest int32 in ns, None: all are 0

_NANOS = 10**9
_LARGEST = 2**63 - 1
_DECIMAL = r"^(?<sign>[+-]?)(?<whole>[0-9]*)\.(?<fraction>[0-9]*)$"
_DATE = (
    r"^(?<day>[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2})"
    r"(?:(?:[Tt]| +)(?<hour>[01]?[0-9]|2[0-3]):(?<minute>[0-5][0-9])(?::(?<second>[0-5][0-9])"
    r"(?:[.,](?<fraction>[0-9]{1,9})0*)?)?"
    r" ?(?:[Zz]|UTC|GMT|(?<sign>[+-])(?<east>[01][0-9]|2[0-3])(?::?(?<further>[0-5][0-9]))?)?)?$"
)


def unit_of(setting: str, own: str = "s") -> str:
    """What numbers count by data.time_unit; `own` is the format's unit, which "auto" means."""
    return UNITS[setting] or own


def times_of(values: pl.Series, unit: str) -> Times:
    """A column of any type as times in `unit`, one of PER_SECOND."""
    kind = values.dtype
    if kind.is_integer():
        return values.cast(pl.Int64, strict=False), None
    if kind.is_float():
        return _from_floats(values, unit)
    if isinstance(kind, pl.Datetime):
        return _converted(values.to_physical(), kind.time_unit, unit)
    if kind == pl.Date:
        return _converted(values.to_physical().cast(pl.Int64) * 86_400, "s", unit)
    if kind in (pl.String, pl.Categorical, pl.Enum) or kind.is_decimal():
        return _from_text(values.cast(pl.String), unit)
    return pl.Series([None] * len(values), dtype=pl.Int64), None


def _from_text(values: pl.Series, unit: str) -> Times:
    whole = values.cast(pl.Int64, strict=False)
    rest = None
    for convert in (_from_spaced, _from_decimals, _from_dates, _from_exponents):
        left = whole.is_null().arg_true()
        if not len(left):
            break
        more, fine = convert(values.gather(left).str.strip_chars(), unit)
        whole = whole.scatter(left, more)
        if fine is not None:
            rest = pl.zeros(len(values), pl.Int32, eager=True) if rest is None else rest
            rest = rest.scatter(left, fine)
    return whole, rest


def _from_spaced(text: pl.Series, unit: str) -> Times:
    """Whole numbers that had blanks around them."""
    return text.cast(pl.Int64, strict=False), None


def _from_decimals(text: pl.Series, unit: str) -> Times:
    """Decimal numbers, digit by digit: a float would lose the end of a long one."""
    per_unit = _NANOS // PER_SECOND[unit]
    width = len(str(per_unit)) - 1  # so many digits behind the point are nanoseconds
    parts = text.str.extract_groups(_DECIMAL).struct.unnest()
    sign = pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    has_digits = pl.col("whole") + pl.col("fraction") != ""
    kept = pl.concat_str(pl.lit("0"), pl.col("fraction").str.slice(0, width).str.pad_end(width, "0"))
    found = parts.select(
        whole=sign * pl.when(has_digits).then(pl.concat_str(pl.lit("0"), "whole").cast(pl.Int64, strict=False)),
        nanos=sign * kept.cast(pl.Int64),
    )
    return _carried(found["whole"], found["nanos"], per_unit)


def _from_exponents(text: pl.Series, unit: str) -> Times:
    """Numbers such as 1.5e9."""
    return _from_floats(text.cast(pl.Float64, strict=False), unit)


def _from_floats(values: pl.Series, unit: str) -> Times:
    real = values.cast(pl.Float64)
    real = real.set(~(real.abs() < 2.0**63).fill_null(False), None)  # NaN compares greater than any number
    per_unit = _NANOS // PER_SECOND[unit]
    floor = real.floor()
    return _carried(floor.cast(pl.Int64), ((real - floor) * per_unit).round().cast(pl.Int64), per_unit)


def _from_dates(text: pl.Series, unit: str) -> Times:
    """Dates, with or without a clock, a fraction of a second and an offset from UTC."""
    number = {name: pl.col(name).fill_null("0").cast(pl.Int64) for name in ("hour", "minute", "second")}
    east = {name: pl.col(name).fill_null("0").cast(pl.Int64) for name in ("east", "further")}
    offset = (east["east"] * 60 + east["further"]) * pl.when(pl.col("sign") == "-").then(-60).otherwise(60)
    day = pl.col("day").str.replace_all("/", "-", literal=True).str.to_date("%Y-%m-%d", strict=False)
    found = (
        text.str.extract_groups(_DATE)
        .struct.unnest()
        .select(
            seconds=day.to_physical().cast(pl.Int64) * 86_400
            + (number["hour"] * 60 + number["minute"]) * 60
            + number["second"]
            - offset,
            nanos=pl.col("fraction").fill_null("0").str.pad_end(9, "0").cast(pl.Int64),
        )
    )
    whole, _ = _converted(found["seconds"], "s", unit)
    return _carried(whole, found["nanos"], _NANOS // PER_SECOND[unit])


def _converted(numbers: pl.Series, have: str, unit: str) -> Times:
    """Whole numbers of the unit `have` in another one; null where they would not fit."""
    if PER_SECOND[have] <= PER_SECOND[unit]:
        ratio = PER_SECOND[unit] // PER_SECOND[have]
        fits = numbers.is_between(-(_LARGEST // ratio), _LARGEST // ratio).fill_null(False)
        return numbers.set(~fits, None) * ratio, None
    ratio = PER_SECOND[have] // PER_SECOND[unit]
    whole = numbers // ratio
    return _carried(whole, (numbers - whole * ratio) * (_NANOS // PER_SECOND[have]), _NANOS // PER_SECOND[unit])


def _carried(whole: pl.Series, nanos: pl.Series, per_unit: int) -> Times:
    """The rest brought to at least 0 and below one unit; None where all is 0."""
    over = nanos // per_unit
    rest = (nanos - over * per_unit).fill_null(0)
    return whole + over, rest.cast(pl.Int32) if (rest != 0).any() else None
