"""The parts of the engine: sorting, ids, filters, shards, statistics, and a run that is killed and goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, inter, write
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data import build, ids, store
from wpauc_jax.data.dataset import MANIFEST, load_dataset
from wpauc_jax.data.filters import first_meetings, title_faults
from wpauc_jax.data.ids import IdTable, sorted_ids
from wpauc_jax.data.order import stable_order
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.sources import blocks as blocks_module
from wpauc_jax.data.statistics import statistics_table

TABLES = ("interactions-00000.parquet", "items.parquet", "users.parquet")

floats = st.floats(allow_nan=False, width=64)
integers = st.integers(-(2**63), 2**63 - 1)
columns = st.one_of(
    *(st.lists(st.tuples(kind, st.integers(0, 5)), min_size=1, max_size=40) for kind in (floats, integers)),
)


@given(columns, st.booleans())
def test_stable_order_is_that_of_lexsort(rows, swap):
    first, second = (np.array(column) for column in zip(*rows, strict=True))
    keys = (second.astype(np.int32), first) if swap else (first, second.astype(np.int32))
    np.testing.assert_array_equal(stable_order(*keys), np.lexsort((np.arange(len(rows)), *keys[::-1])))
    np.testing.assert_array_equal(stable_order(keys[0]), np.argsort(keys[0], kind="stable"))


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 70_000])
def test_stable_order_in_several_digits(count):
    rng = np.random.default_rng(count)
    wide = rng.integers(-(2**63), 2**63 - 1, max(count // 10, 1))[rng.integers(0, max(count // 10, 1), count)]
    narrow = rng.integers(0, 3, count)
    for keys in ((wide,), (narrow, wide), (wide, narrow), (narrow, wide, narrow)):
        np.testing.assert_array_equal(stable_order(*keys), np.lexsort((np.arange(count), *keys[::-1])))


def python_key(raw):
    """The order of ids as the documentation has it: numbers by value, then words."""
    return (0, int(raw), raw) if raw.isascii() and raw.isdigit() else (1, 0, raw)


raw_ids = st.text("0123456789a:/ é\U0001f600", min_size=1, max_size=5)


@given(st.lists(raw_ids, min_size=1, max_size=60), st.integers(1, 5))
def test_ids_are_numbered_in_their_order(raw, size):
    table = IdTable()
    numbers = np.concatenate([table.add(pl.Series(raw[start : start + size])) for start in range(0, len(raw), size)])
    found, places = table.finish()
    assert found.to_list() == sorted(set(raw), key=python_key)
    assert found.gather(places[numbers]).to_list() == raw


RAW = pl.Series([str(number * 7919 % 503) for number in range(3000)])  # 503 ids


def one_home(ids):
    return np.zeros(len(ids), np.uint64), ids.hash(2).to_numpy()


def one_mark(ids):
    return ids.cast(pl.UInt64).to_numpy() << np.uint64(55), np.zeros(len(ids), np.uint64)


@pytest.mark.parametrize(("hashes", "bits"), [(ids._hashes, 4), (one_home, 4), (one_mark, 11)])
def test_ids_stay_apart_in_a_table_that_grows_and_if_they_share_one_hash(monkeypatch, hashes, bits):
    monkeypatch.setattr(ids, "_hashes", hashes)
    monkeypatch.setattr(ids, "_SMALLEST", bits)
    table = IdTable()
    numbers = np.concatenate([table.add(RAW[start : start + 70]) for start in range(0, len(RAW), 70)])
    found, places = table.finish()
    assert found.to_list() == [str(number) for number in range(503)]
    np.testing.assert_array_equal(places[numbers], RAW.cast(pl.Int64).to_numpy())


def test_ids_with_more_digits_than_any_integer():
    raw = ["1" + "0" * 30, "9" * 30, "007", "7", "07", "-1", "1.5", "٣", ""]
    order = ["7", "007", "07", "9" * 30, "1" + "0" * 30, "", "-1", "1.5", "٣"]
    found = sorted_ids(pl.DataFrame({"id": raw}))["id"].to_list()
    assert sorted(found[:3]) == sorted(order[:3]) and found[3:] == order[3:]
    assert found[:3] == sorted(found[:3])  # of equal value, as text


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=50))
def test_first_meetings(rows):
    user, item = np.array(sorted(rows, key=lambda row: row[0])).T
    seen, expected = set(), []
    for pair in zip(user.tolist(), item.tolist(), strict=True):
        expected.append(pair not in seen)
        seen.add(pair)
    assert first_meetings(user, item).tolist() == expected


def test_title_faults():
    titles = pl.Series(
        [
            "Good",
            None,
            "",
            "  ",
            "a < b and c > d",
            "<b>Bold</b>",
            "Cut <span class=",
            "<!-- x",
            "one two  three\tfour",
            "<i> 2 3 4",
        ]
    )
    faults = title_faults(titles, require=True, markup=True, words=3)
    assert {name: np.flatnonzero(bad).tolist() for name, bad in faults.items()} == {
        "missing": [1, 2, 3],
        "markup": [5, 6, 7, 9],
        "long": [4, 8],
    }
    none = title_faults(titles, require=False, markup=False, words=0)
    assert not any(bad.any() for bad in none.values())
    assert np.flatnonzero(title_faults(titles, require=False, markup=False, words=3)["long"]).tolist() == [4, 8, 9]


def world(folder, rows, titles=()):
    write(folder / "a.inter", inter(rows))
    if titles:
        write(folder / "a.item", atomic(("item_id:token", "title:token_seq"), *titles))
    return folder


GRID = [(f"u{u}", f"i{i}", 86_400 * (u + i)) for u in range(6) for i in range(6)]


def test_titles_filter_before_the_core(tmp_path):
    titles = [("i0", "fine"), ("i1", "<br>"), ("i2", "one two three"), ("i3", ""), ("i4", "ok")]
    source = world(tmp_path / "raw", GRID, titles)
    config = DataConfig(path=str(source), k_core=2, require_title=True, drop_markup=True, title_words=2)
    with pytest.raises(DataError, match="no user has 3"):
        prepare(config, tmp_path / "prepared")
    write(source / "b.item", "")  # is not read: a.item has the name of a.inter
    dataset = prepare(dataclasses.replace(config, require_title=False), tmp_path / "prepared")
    assert dataset.item_ids == ["i0", "i3", "i4", "i5"]
    dropped = json.loads((tmp_path / "prepared" / MANIFEST).read_text())["statistics"]["dropped"]
    assert dropped["by_title"] == {"missing": 0, "markup": 1, "long": 1}
    assert dropped["items"] == 2


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        ("", "", range(11)),
        ("1970-01-04", "", range(3, 11)),
        ("", "1970-01-04", range(3)),
        ("1970-01-03", "1970-01-09", range(2, 8)),
    ],
)
def test_the_window_is_half_open_in_utc(tmp_path, start, end, days, monkeypatch):
    monkeypatch.setenv("TZ", "XYZ+10")  # 10 hours behind
    time.tzset()
    config = DataConfig(path=str(world(tmp_path / "raw", GRID)), k_core=0, start=start, end=end)
    dataset = prepare(config, tmp_path / "prepared")
    assert sorted(set(dataset.time.tolist())) == [86_400 * day for day in days]
    dropped = json.loads((tmp_path / "prepared" / MANIFEST).read_text())["statistics"]["dropped"]
    assert dropped["outside_window"] == 36 - len(dataset.item)
    monkeypatch.undo()
    time.tzset()


def test_an_empty_window_and_dates_that_are_none(tmp_path):
    config = DataConfig(path=str(world(tmp_path / "raw", GRID)), start="2000-01-01")
    with pytest.raises(DataError, match="no interaction in the window: all 36 lie outside"):
        prepare(config, tmp_path / "prepared")
    for text in ("yesterday", "2000-13-01", "2000-1-1", "20000101"):
        with pytest.raises(ConfigError, match=rf"data\.end='{text}' is not a date such as 2016-10-01"):
            DataConfig(end=text)
    with pytest.raises(ConfigError, match=r"keeps every row: .* and data\.start='' \(it is '2000-01-01'\)"):
        DataConfig(split="published", start="2000-01-01")


events = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=30, max_size=60)


@settings(max_examples=20, deadline=None)
@given(events, st.randoms(use_true_random=False), st.sampled_from(["keep", "first"]), st.sampled_from(["csv", "jsonl"]))
def test_any_order_of_lines_in_any_format_gives_the_same_tables(tmp_path_factory, rows, random, repeats, kind):
    rows = [(f"u{u}", f"i{i}", 1000 + 7 * n) for n, (u, i) in enumerate(rows)]
    folder = tmp_path_factory.mktemp("orders")
    outcomes = []
    for name in ("a", "b"):
        if kind == "csv":
            text = "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows)
        else:
            text = "".join(json.dumps({"reviewerID": u, "asin": i, "unixReviewTime": t}) + "\n" for u, i, t in rows)
        path = write(folder / f"{name}.{kind}", text)
        config = DataConfig(path=str(path), k_core=2, repeats=repeats, split="chronological")
        try:
            prepare(config, folder / name)
            outcomes.append(
                [
                    (folder / name / file).read_bytes()
                    for file in ("interactions-00000.parquet", "items.parquet", "users.parquet")
                ]
            )
        except DataError as error:
            outcomes.append(str(error))
        random.shuffle(rows)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("protocol", ["leave_one_out", "chronological"])
def test_small_blocks_ranges_and_shards_change_nothing(tmp_path, monkeypatch, protocol):
    rng = np.random.default_rng(0)
    rows = [(f"{u}", f"{i}", t) for u, i, t in zip(*rng.integers(0, [[50], [30], [200]], (3, 3000)), strict=True)]
    config = DataConfig(path=str(world(tmp_path / "raw", rows)), split=protocol)
    whole = prepare(config, tmp_path / "whole")
    monkeypatch.setattr(blocks_module, "BLOCK", 100)
    monkeypatch.setattr(build, "_RANGE_ROWS", 64)
    monkeypatch.setattr(store, "SHARD_ROWS", 500)
    parts = prepare(config, tmp_path / "parts")
    for field in ("item", "time", "split", "offsets"):
        np.testing.assert_array_equal(getattr(parts, field), getattr(whole, field))
    assert list(parts.users) == list(whole.users)
    shards = json.loads((tmp_path / "parts" / MANIFEST).read_text())["shards"]
    assert len(shards) == 6
    seen = set()
    for shard in shards:  # each can be read alone: whole users
        table = pl.read_parquet(tmp_path / "parts" / shard["file"])
        assert len(table) == shard["interactions"]
        assert table["user"][0] == shard["first_user"]
        assert not seen & set(table["user"])
        seen |= set(table["user"])
    assert seen == set(range(50))


def test_the_table_that_papers_print(tmp_path):
    said = []
    prepare(DataConfig(path=str(world(tmp_path / "raw", GRID)), k_core=0), tmp_path / "prepared", said.append)
    heading, values = said[-1].splitlines()
    assert heading.split() == ["users", "items", "interactions", "density", "avg.", "length", "train", "valid", "test"]
    assert values.split() == ["6", "6", "36", "100.0000%", "6.00", "18", "6", "6"]
    assert len(heading) == len(values)
    statistics = json.loads((tmp_path / "prepared" / MANIFEST).read_text())["statistics"]
    assert statistics["items_without_training"] == 2  # each user's last two items are the same
    large = {"users": 12_345_678, "items": 9, "interactions": 10**9, "density": 1e-7, "mean_user_length": 81.0}
    table = statistics_table(large | {"samples": {"train": 8 * 10**8, "valid": 1, "test": 2}})
    assert table.splitlines()[1].split() == [
        "12,345,678",
        "9",
        "1,000,000,000",
        "0.0000%",
        "81.00",
        "800,000,000",
        "1",
        "2",
    ]


KILLED = """
    import os, signal, sys
    from wpauc_jax.config import DataConfig
    from wpauc_jax.data import {module}
    def killed(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    {module}.{function} = killed
    from wpauc_jax.data.prepare import prepare
    prepare(DataConfig(path=sys.argv[1], k_core=2), sys.argv[2])
"""


@pytest.mark.parametrize(
    ("module", "function", "is_read"),
    [("ingest", "_save", False), ("make", "build", True), ("store", "file_digest", True)],
)
def test_a_killed_run_leaves_no_directory_and_the_next_one_goes_on(tmp_path, module, function, is_read):
    source = world(tmp_path / "raw", GRID, [("i0", "One")])
    config = DataConfig(path=str(source), k_core=2)
    script = textwrap.dedent(KILLED).format(module=module, function=function)
    target = tmp_path / "prepared"
    done = subprocess.run([sys.executable, "-c", script, str(source), str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    with pytest.raises(DataError, match="not a prepared directory"):
        load_dataset(target)
    said = []
    dataset = prepare(config, target, said.append)
    assert ("what is read already is not read again" in said) == is_read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared", "raw"]
    again = prepare(config, tmp_path / "fresh")
    assert dataset.fingerprint == again.fingerprint
    assert (target / MANIFEST).read_bytes() == (tmp_path / "fresh" / MANIFEST).read_bytes()


@pytest.mark.parametrize("change", ["file", "settings", "stage"])
def test_what_was_read_is_read_again_if_anything_changed(tmp_path, change):
    source = world(tmp_path / "raw", GRID)
    config = DataConfig(path=str(source), k_core=9)
    with pytest.raises(DataError, match=r"nothing is left of 36 .* data\.k_core=9"):
        prepare(config, tmp_path / "prepared")
    stage = tmp_path / ".prepared.reading"
    assert (stage / "done.json").exists()
    config = dataclasses.replace(config, k_core=2)  # not a setting of reading
    if change == "file":
        world(tmp_path / "raw", GRID[:-1])
        os.utime(source / "a.inter", ns=(1, 1))
    elif change == "settings":
        config = dataclasses.replace(config, end="1970-01-08")
    else:
        (stage / "done.json").write_text("{")
    said = []
    dataset = prepare(config, tmp_path / "prepared", said.append)
    assert f"reading {source}" in said
    assert len(dataset.item) == {"file": 35, "settings": 26, "stage": 36}[change]


def test_rows_left_out_are_said_and_kept_in_the_manifest(tmp_path):
    source = world(tmp_path / "raw", [*GRID[:10], ("u", "i", "noon"), ("u", "", 1), *GRID[10:], ("v", "i", "late")])
    said = []
    prepare(DataConfig(path=str(source), k_core=0, bad_rows="skip"), tmp_path / "prepared", said.append)
    rows = json.loads((tmp_path / "prepared" / MANIFEST).read_text())["statistics"]["dropped"]["rows"]
    assert rows == {"'timestamp' is not a time": 2, "no value for 'item_id'": 1}
    assert f"left out 2 rows: 'timestamp' is not a time; the first is {source}/a.inter, line 12: 'noon'" in said
