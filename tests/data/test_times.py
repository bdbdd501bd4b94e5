"""Times: text, numbers and dates of any resolution become the same whole numbers, and nothing changes their order."""

import datetime
import decimal
import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_worlds import inter, read_all, write
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data.dataset import MANIFEST
from wpauc_jax.data.period import Period
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.times import PER_SECOND, UNITS, times_of, unit_of

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
UNIT = st.sampled_from(sorted(PER_SECOND))


def nanos(found, unit) -> list[int | None]:
    """What `times_of` found, in nanoseconds."""
    whole, rest = found
    per_unit = 10**9 // PER_SECOND[unit]
    rests = [0] * len(whole) if rest is None else rest.to_list()
    assert all(0 <= value < per_unit for value in rests)
    return [None if one is None else one * per_unit + more for one, more in zip(whole, rests, strict=True)]


moments = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))
offsets = st.one_of(st.none(), st.integers(-23 * 60 - 59, 23 * 60 + 59))


def written(moment, offset, form) -> str:
    """A moment as some program writes it; `form` picks the separators, `offset` is in minutes."""
    text = moment.strftime("%Y-%m-%d" + (" " if form % 2 else "T") + "%H:%M:%S")
    if moment.microsecond:
        text += f"{',' if form % 5 == 4 else '.'}{moment.microsecond:06}" + ("000" if form % 3 == 0 else "")
    if offset is None:
        return text + ("Z" if form % 3 == 1 else "")
    hours, minutes = divmod(abs(offset), 60)
    return text + f"{'-' if offset < 0 else '+'}{hours:02}{':' if form % 2 else ''}{minutes:02}"


@given(st.lists(st.tuples(moments, offsets, st.integers(0, 29)), min_size=1, max_size=8), UNIT)
def test_dates_in_text_are_what_python_says(rows, unit):
    found = times_of(pl.Series([written(*row) for row in rows]), unit)
    for (moment, offset, _), value in zip(rows, nanos(found, unit), strict=True):
        zone = datetime.timezone(datetime.timedelta(minutes=offset or 0))
        since = moment.replace(tzinfo=zone) - EPOCH
        assert value == (since // datetime.timedelta(microseconds=1)) * 1000


numbers = st.decimals(-(10**9), 10**10, allow_nan=False, places=9)


@given(st.lists(numbers, min_size=1, max_size=8), UNIT)
def test_decimal_numbers_are_exact_to_the_nanosecond(values, unit):
    found = times_of(pl.Series([f"{value:f}" for value in values]), unit)
    with decimal.localcontext(prec=60):
        exact = [value * (10**9 // PER_SECOND[unit]) for value in values]
    assert all(abs(got - want) < 1 for got, want in zip(nanos(found, unit), exact, strict=True))
    order = np.argsort(nanos(found, unit), kind="stable")
    if unit == "s":
        assert [values[place] for place in order] == sorted(values)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=8), UNIT)
def test_whole_numbers_stay_what_they_are(values, unit):
    for series in (pl.Series(values), pl.Series([f" {value}" for value in values])):
        whole, rest = times_of(series, unit)
        assert whole.to_list() == values and rest is None


@given(st.lists(st.floats(-1e9, 4e9), min_size=1, max_size=8))
def test_floats_keep_their_order(values):
    found = nanos(times_of(pl.Series(values), "s"), "s")
    assert all(abs(one - value * 1e9) <= 1 + abs(value) * 1e-6 for one, value in zip(found, values, strict=True))
    assert all(
        (a < b) <= (x <= y) for a, x in zip(values, found, strict=True) for b, y in zip(values, found, strict=True)
    )


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
@pytest.mark.parametrize("kind", ["ms", "us", "ns"])
@given(st.lists(moments, min_size=1, max_size=8), UNIT)
def test_columns_of_time_stamps_in_every_unit_and_zone(kind, zone, rows, unit):
    series = pl.Series(rows).cast(pl.Datetime(kind)).dt.replace_time_zone("UTC")
    if zone:
        series = series.dt.convert_time_zone(zone)
    step = 10**9 // PER_SECOND[kind]
    want = [math.floor((row.replace(tzinfo=datetime.UTC) - EPOCH) / datetime.timedelta(microseconds=1)) for row in rows]
    assert nanos(times_of(series, unit), unit) == [value * 1000 // step * step for value in want]


NO_TIMES = [
    "",
    "noon",
    "nan",
    "inf",
    "1e300",
    "9" * 40,
    ".",
    "-",
    "07/07/2018",
    "2018-13-01",
    "2018-02-30",
    "Jul 7, 2018",
]
NO_TIMES += ["2018-07-07T24:00:00", "2018-07-07 22:09:61", "2018-07-07T22:09:11+25:00", "22:09:11", "1.2.3", "0x10"]


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time(text):
    whole, _ = times_of(pl.Series([text, "5"]), "s")
    assert whole.to_list() == [None, 5]


def test_a_unit_for_every_choice():
    choices = DataConfig.__dataclass_fields__["time_unit"].metadata["choices"]
    assert set(choices) == set(UNITS)
    assert [unit_of(choice, "ms") for choice in choices] == ["ms", "s", "ms", "us", "ns"]


DAYS = ("2014-03-05", "2015-06-07", "2016-08-09", "2017-10-11")
STAMPS = [int(datetime.datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) for day in DAYS]


def scaled(unit):
    return [f"{stamp * PER_SECOND[unit]}" for stamp in STAMPS]


WRITERS = {
    "recbole": ("a.inter", lambda times: inter([("u", f"i{n}", time) for n, time in enumerate(times)])),
    "tabular": (
        "a.csv",
        lambda times: "user_id,item_id,timestamp\n" + "".join(f"u,i{n},{time}\n" for n, time in enumerate(times)),
    ),
    "amazon": (
        "a.jsonl",
        lambda times: "".join(
            json.dumps({"reviewerID": "u", "asin": f"i{n}", "unixReviewTime": int(time) if time.isdigit() else time})
            + "\n"
            for n, time in enumerate(times)
        ),
    ),
}


@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize("unit", [*PER_SECOND, "dates"])
def test_every_unit_and_dates_give_one_data_set_in_every_format(tmp_path, source, unit):
    name, text = WRITERS[source]
    path = write(tmp_path / name, text(DAYS if unit == "dates" else scaled(unit)))
    config = DataConfig(source=source, path=str(path), k_core=0, start="2015-01-01", end="2018-01-01")
    said = []
    for setting in PER_SECOND if unit == "dates" else [unit]:
        config = DataConfig(**{**vars(config), "time_unit": setting})
        dataset = prepare(config, tmp_path / setting, said.append)
        assert [dataset.item_ids[item] for item in dataset.item] == ["i1", "i2", "i3"]
        assert "times go from 2014-03-05 to 2017-10-11; in the window from 2015-06-07 to 2017-10-11" in said
        times = json.loads((tmp_path / setting / MANIFEST).read_text())["times"]
        assert (times["first"], times["last"], times["first_kept"]) == (DAYS[0], DAYS[-1], DAYS[1])
        assert not any("warning" in line for line in said)


@pytest.mark.parametrize("source", WRITERS)
def test_a_window_over_times_of_another_unit_is_an_error_that_names_it(tmp_path, source):
    name, text = WRITERS[source]
    path = write(tmp_path / name, text(scaled("ms")))
    config = DataConfig(source=source, path=str(path), k_core=0)
    with pytest.raises(DataError, match=r"cannot be applied: 4 of 4 times .* set data\.time_unit=ms"):
        prepare(DataConfig(**{**vars(config), "start": "2015-01-01"}), tmp_path / "a")
    with pytest.raises(DataError, match=r"all 4 lie outside, which go from 46143-.*data\.time_unit=ms"):
        prepare(DataConfig(**{**vars(config), "end": "2016-01-01"}), tmp_path / "b")
    said = []
    prepare(config, tmp_path / "c", said.append)
    assert any(line.startswith("warning: 4 of 4 times lie outside 1990 to 2035") for line in said)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_all_outside_says_which_dates_there_are(tmp_path):
    path = write(tmp_path / "a.csv", WRITERS["tabular"][1](DAYS))
    with pytest.raises(DataError, match=r"a\.csv: .*all 4 lie outside, which go from 2014-03-05 to 2017-10-11"):
        prepare(DataConfig(path=str(path), k_core=0, start="2020-01-01"), tmp_path / "p")


ORDERED = {
    "text": ["2020-01-01 00:00:00.3", "2020-01-01 00:00:00.100000001", "2020-01-01T00:00:00.1Z"],
    "numbers": ["1577836800.3", "1577836800.100000001", "1577836800.1"],
}


@pytest.mark.parametrize("source", WRITERS)
@pytest.mark.parametrize("kind", ORDERED)
def test_the_order_within_a_second_is_kept(tmp_path, source, kind):
    name, text = WRITERS[source]
    path = write(tmp_path / name, text(ORDERED[kind]))
    dataset = prepare(DataConfig(source=source, path=str(path), k_core=0), tmp_path / "p")
    assert [dataset.item_ids[item] for item in dataset.item] == ["i2", "i1", "i0"]
    assert json.loads((tmp_path / "p" / MANIFEST).read_text())["time_unit"] == "ns"
    assert dataset.time.tolist() == [1577836800 * 10**9 + n for n in (10**8, 10**8 + 1, 3 * 10**8)]


def test_parquet_time_stamps_keep_their_order_and_their_zone(tmp_path):
    zone = datetime.timezone(datetime.timedelta(hours=2))
    moments = [datetime.datetime(2020, 1, 1, 2, 0, 0, micro, zone) for micro in (3000, 2000, 1000)]
    table = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": moments})
    table.write_parquet(tmp_path / "x.parquet")
    dataset = prepare(DataConfig(path=str(tmp_path / "x.parquet"), k_core=0), tmp_path / "p")
    assert [dataset.item_ids[item] for item in dataset.item] == ["c", "b", "a"]
    assert dataset.time.tolist() == [1577836800_001, 1577836800_002, 1577836800_003]


def test_times_too_far_for_their_fractions_are_an_error(tmp_path):
    path = write(tmp_path / "a.inter", inter([("u", "a", "1577836800.123456789"), ("u", "b", 2**60)]))
    with pytest.raises(DataError, match=r"a\.inter: times go from 2020-01-01 to .*only 'ns' can hold"):
        prepare(DataConfig(path=str(path), k_core=0), tmp_path / "p")


def test_what_is_accepted_is_named(tmp_path):
    path = write(tmp_path / "a.csv", WRITERS["tabular"][1]([*DAYS, "7.7.2018"]))
    with pytest.raises(
        DataError, match=r"a\.csv, line 6: 'timestamp' is not a time: '7\.7\.2018' \(accepted are .*\+02"
    ):
        read_all("tabular", path)
    with pytest.raises(ConfigError, match=r"data\.time_unit='m' is unknown; .*All are: auto, s, ms, us, ns"):
        DataConfig(time_unit="m")


def period(times, unit="s"):
    out = Period(unit)
    for start in range(0, len(times), 2):
        out.add(np.array(times[start : start + 2], np.int64))
    return out


@pytest.mark.parametrize("have", PER_SECOND)
@pytest.mark.parametrize("unit", PER_SECOND)
def test_the_unit_that_would_fit_is_named(have, unit):
    found = period([stamp * PER_SECOND[have] for stamp in STAMPS], unit)
    if have == unit:
        assert not found.warning() and found.dates == (DAYS[0], DAYS[-1])
    else:
        assert found.warning().endswith(f"set data.time_unit={have}") and found.better_unit == have


def test_seconds_among_milliseconds_dates_as_digits_and_places_are_told_apart():
    mixed = period([*STAMPS * 30, *(stamp * 1000 for stamp in STAMPS * 3)])
    assert "12 of 132 times" in mixed.warning() and mixed.warning().endswith("the files mix units")
    few = period([*STAMPS * 100, STAMPS[0] * 1000])
    assert not few.warning()  # below 1%
    assert "4 look like dates without hyphens" in period([20180707, 20180708, 20190101, 20200101]).warning()
    assert period([0, 1, 2, 3]).warning().endswith("no other data.time_unit would fit them either")


def test_data_without_times_say_that_the_order_of_rows_counts(tmp_path):
    rows = "".join(f"u{n % 3}\ti{n}\t5\n" for n in range(30))
    write(tmp_path / "d.inter", "user_id:token\titem_id:token\trating:float\n" + rows)
    said = []
    prepare(DataConfig(path=str(tmp_path / "d.inter"), k_core=0), tmp_path / "data", said.append)
    assert "there are no times: the order of rows is taken for that of time" in said
