"""Parquet: columns of every type, and damage at every place; an error that names the file, or counted rows."""

import datetime

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data_worlds import read_all
from wpauc_jax.data.sources import DataError

ROWS = 40
SOUND = pl.DataFrame(
    {
        "user_id": [f"u{n % 7}" for n in range(ROWS)],
        "item_id": [f"i{n % 5}" for n in range(ROWS)],
        "timestamp": [1_000_000 + n for n in range(ROWS)],
    }
)


def rows_of(path, bad_rows="skip"):
    """The interactions, and how many rows were left out."""
    interactions, _, raw = read_all("tabular", path, bad_rows)
    return interactions.sort("time"), raw.rejects.counts.total()


@pytest.fixture
def content(tmp_path) -> bytes:
    """A file of several row groups, with the checksums that Arrow and Spark can write."""
    path = tmp_path / "sound.parquet"
    pq.write_table(SOUND.to_arrow(), path, row_group_size=16, write_page_checksum=True)
    return path.read_bytes()


def test_a_changed_bit_is_an_error_or_changes_nothing_or_costs_rows_that_are_counted(tmp_path, content):
    path, sound = tmp_path / "x.parquet", SOUND.select(user="user_id", item="item_id", time="timestamp")
    errors = 0
    for place in (
        *range(4, len(content), 3),
        content.rindex(b"ARROW:schema"),
    ):  # the first four bytes say that it is Parquet
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            interactions, rejected = rows_of(path)
        except DataError as error:
            assert "x.parquet" in str(error) and len(str(error)) < 600
            errors += 1
        else:
            assert interactions.equals(sound) if not rejected else len(interactions) + rejected == ROWS
    assert errors > 0.5 * len(content) / 5


def test_a_cut_file_or_one_with_bytes_too_many_is_an_error(tmp_path, content):
    path = tmp_path / "x.parquet"
    for place in range(4, len(content), 50):
        for damaged in (content[:place], content[:place] + b"\0" + content[place:]):
            path.write_bytes(damaged)
            try:
                assert len(rows_of(path)[0]) == ROWS and len(damaged) > len(content)
            except DataError as error:
                assert "x.parquet" in str(error)


def test_rows_that_the_footer_does_not_know_are_an_error(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    SOUND.write_parquet(path)
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **kwargs: list(read(*args, **kwargs))[:-1])
    with pytest.raises(DataError, match=r"x\.parquet: damaged Parquet file \(it holds 0 rows, not 40\)"):
        rows_of(path)


def test_bytes_that_are_not_utf8(tmp_path):
    path, table = tmp_path / "x.parquet", SOUND.to_arrow()
    pq.write_table(table.replace_schema_metadata({b"\xff": b"\xff"}), path)  # nothing of the kind is read
    assert len(rows_of(path)[0]) == ROWS
    users = pa.array([b"u\xff"] * ROWS).view(pa.string())
    pq.write_table(table.set_column(0, "user_id", users), path)
    with pytest.raises(DataError, match=r"x\.parquet: damaged Parquet file \(.*UTF8"):
        rows_of(path)


DAY = datetime.datetime(2020, 1, 1)
TYPES = {
    "text": (["a", "b", None], pa.string()),
    "long text": (["a", "b", ""], pa.large_string()),
    "dictionary": (["a", "b", None], pa.dictionary(pa.int32(), pa.string())),
    "bytes": ([b"a", b"\xff", None], pa.binary()),
    "small": ([1, 2, None], pa.uint8()),
    "whole": ([1, -2, None], pa.int64()),
    "huge": ([2**64 - 1, 2, None], pa.uint64()),
    "half": ([1.0, 2.5, None], pa.float16()),
    "float": ([1.0, float("nan"), float("inf")], pa.float64()),
    "decimal": ([1, 2, None], pa.decimal128(20, 2)),
    "truth": ([True, False, None], pa.bool_()),
    "date": ([DAY, DAY, None], pa.date32()),
    "time stamp": ([DAY, DAY, None], pa.timestamp("ns", "Europe/Berlin")),
    "dates in a dictionary": (["2020-01-01", "2020-01-02T03:04:05Z", None], pa.dictionary(pa.int32(), pa.string())),
    "clock": ([DAY.time(), DAY.time(), None], pa.time64("us")),
    "duration": ([datetime.timedelta(1), None, None], pa.duration("s")),
    "list": ([["a", None, "b"], [], None], pa.list_(pa.string())),
    "struct": ([{"a": 1}, {"a": 2}, None], pa.struct({"a": pa.int64()})),
    "map": ([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "nothing": ([None, None, None], pa.null()),
}
IDS = {"text": 2, "long text": 2, "dictionary": 2, "small": 2, "whole": 2, "huge": 2}  # how many of the three will do
TIMES = {"small": 2, "whole": 2, "huge": 1, "half": 2, "float": 1, "decimal": 2, "date": 2, "time stamp": 2}
IDS["dates in a dictionary"] = TIMES["dates in a dictionary"] = 2
NO_TEXT = {"bytes", "duration", "map"}


def of_type(path, column, kind):
    columns = {"user_id": ["u", "v", "w"], "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3], "title": ["A", "B", "C"]}
    pq.write_table(pa.table({**columns, column: pa.array(*TYPES[kind])}), path)
    return path


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("column", "good"), [("user_id", IDS), ("item_id", IDS), ("timestamp", TIMES)])
def test_rows_whose_column_has_the_wrong_type_are_left_out_and_counted(tmp_path, column, good, kind):
    path = of_type(tmp_path / "x.parquet", column, kind)
    interactions, rejected = rows_of(path)
    assert (len(interactions), rejected) == (good.get(kind, 0), 3 - good.get(kind, 0))
    with pytest.raises(DataError, match=rf"x\.parquet, line \d: (no value for )?'{column}'"):
        rows_of(path, "error")


@pytest.mark.parametrize("kind", TYPES)
def test_words_of_any_type_are_read_or_refused_by_name(tmp_path, kind):
    path = of_type(tmp_path / "x.parquet", "title", kind)
    if kind in NO_TEXT:
        with pytest.raises(DataError, match=r"x\.parquet: column 'title' \(.*\) cannot be read as text; leave it out"):
            read_all("tabular", path, items_path="x.parquet")
        return
    _, items, _ = read_all("tabular", path, items_path="x.parquet")
    assert len(items) == 3
    if kind == "list":
        assert items["title"].to_list() == ["a b", None, None]


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "title"])
@pytest.mark.parametrize("kind", [pa.decimal32(5, 2), pa.decimal64(5, 2), pa.decimal256(50, 2)])
def test_decimals_that_polars_does_not_know_are_refused_by_name(tmp_path, column, kind):
    table = {"user_id": ["u"], "item_id": ["a"], "timestamp": [1], "title": ["A"]}
    pq.write_table(pa.table({**table, column: pa.array([1], kind)}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=rf"x\.parquet: column '{column}' \(decimal.*cannot be read; write it as"):
        read_all("tabular", tmp_path / "x.parquet", items_path="x.parquet")


def test_two_columns_of_one_name(tmp_path):
    pq.write_table(pa.table([[1], ["u"], ["v"]], ["timestamp", "user_id", "user_id"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"x\.parquet has two columns 'user_id'; rename one"):
        rows_of(tmp_path / "x.parquet")
