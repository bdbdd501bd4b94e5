"""Published splits: samples and interactions in train, valid and test files become what their publishers meant."""

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, inter, read_all, write
from wpauc_jax.config import DataConfig
from wpauc_jax.data.dataset import MANIFEST, SPLITS, positions
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError, ReadOptions, detect

HEADER = ("user_id:token", "item_id_list:token_seq", "item_id:token")
PUBLISHED = {"k_core": 0, "split": "published", "max_history": 3}


def samples_of(line, user, split, limit, width=0):
    """A user's rows: all items but the last two are train, cut to `limit` items of history."""
    last = len(line) - 1
    places = {"train": range(1, last - 1), "valid": [last - 1], "test": [last]}[split]
    return [(user, " ".join(line[max(0, place - limit) : place]), line[place]) for place in places]


def benchmark(folder, lines, order=lambda rows: rows, limit=50, name="d", header=HEADER):
    for split in SPLITS:
        rows = [row for user, line in lines.items() for row in order(samples_of(line, user, split, limit))]
        write(folder / f"{name}.{split}.inter", atomic(header, *rows))


def sequences(dataset):
    parts = np.split(dataset.item, dataset.offsets[1:-1])
    return {user: [dataset.item_ids[i] for i in part] for user, part in zip(dataset.users, parts, strict=True)}


def rows_of(dataset, split):
    """(user, history, target) of every sample."""
    places = positions(dataset, split)
    histories = dataset.histories(places, 50)
    users = [dataset.users[u] for u in dataset.user_of(places)]
    return {
        (user, tuple(dataset.item_ids[i] for i in row if i >= 0), dataset.item_ids[dataset.item[place]])
        for user, row, place in zip(users, histories, places, strict=True)
    }


worlds = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=12), min_size=1, max_size=5)
ORDERS = {"as they are": lambda rows: rows, "the latest first": lambda rows: rows[::-1]}


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(worlds)
def test_samples_are_time_lines_whose_samples_they_are(tmp_path_factory, order, lines):
    folder = tmp_path_factory.mktemp("samples")
    world = {f"u{number}": line for number, line in enumerate(lines)}
    benchmark(folder / "raw", world, ORDERS[order])
    dataset = prepare(DataConfig(path=str(folder / "raw"), **PUBLISHED), folder / "p")
    assert sequences(dataset) == world
    for split in SPLITS:
        want = {
            (user, tuple(history.split()), target)
            for user, line in world.items()
            for user, history, target in samples_of(line, user, split, 50)
        }
        assert rows_of(dataset, split) == want


@pytest.mark.parametrize("order", ORDERS)
def test_histories_that_are_cut_are_joined(tmp_path, order):
    world = {"u": [f"i{n}" for n in range(20)], "v": [f"i{n % 7}" for n in range(15)]}
    benchmark(tmp_path / "raw", world, ORDERS[order], limit=4)
    assert sequences(prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "p")) == world


def test_one_row_a_user_and_another_split(tmp_path):
    """Without rows for every prefix; and with other splits than the published ones, which is said."""
    for split, rows in {
        "train": [("u", "a b", "c")],
        "valid": [("u", "a b c", "d"), ("w", "x y", "z")],
        "test": [("u", "a b c d", "e")],
    }.items():
        write(tmp_path / "raw" / f"d.{split}.inter", atomic(HEADER, *rows))
    write(tmp_path / "raw" / "d.item", atomic(("item_id:token", "title:token_seq"), ("a", "A"), ("never", "N")))
    config = DataConfig(path=str(tmp_path / "raw"), **PUBLISHED)
    said = []
    dataset = prepare(config, tmp_path / "p", said.append)
    assert sequences(dataset) == {"u": list("abcde"), "w": list("xyz")}
    assert dataset.split.tolist() == [0, 0, 0, 1, 2, 0, 0, 1]
    assert "never" in dataset.item_ids  # the catalogue is the published one
    assert any("2 interactions stand only in" in line for line in said)
    said.clear()
    other = prepare(DataConfig(path=str(tmp_path / "raw"), k_core=0), tmp_path / "q", said.append)
    assert other.split.tolist() == [0, 0, 0, 1, 2, 0, 1, 2]
    assert "the published splits are not used: data.split='leave_one_out' makes others" in said
    with pytest.raises(DataError, match="need times, and these data have only an order"):
        prepare(DataConfig(path=str(tmp_path / "raw"), k_core=0, start="2020-01-01"), tmp_path / "r")


def test_samples_with_times(tmp_path):
    header = (*HEADER, "timestamp:float", "timestamp_list:float_seq")
    for split, rows in {
        "train": [("u", "a", "b", 1.5e9 + 1, "1500000000")],
        "valid": [("u", "a b", "c", "2017-07-14 02:40:05", "1500000000 1500000001")],
        "test": [("u", "a b c", "d", 1500000009, "1500000000 1500000001 1500000005")],
    }.items():
        write(tmp_path / "raw" / f"d.{split}.inter", atomic(header, *rows))
    dataset = prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "p")
    assert dataset.time.tolist() == [1500000000, 1500000001, 1500000005, 1500000009]
    assert json.loads((tmp_path / "p" / MANIFEST).read_text())["times"]["first"] == "2017-07-14"
    write(tmp_path / "raw" / "d.test.inter", atomic(header, ("u", "a b c", "d", 1500000009, "1 2")))
    with pytest.raises(DataError, match=r"d\.test\.inter, line 2: 'timestamp_list' is no list of 3 times"):
        prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "q")


def test_samples_are_never_read_as_interactions(tmp_path):
    benchmark(tmp_path, {"u": list("abcdef"), "v": list("bcdefa")})
    alone = write(tmp_path / "alone" / "x.inter", (tmp_path / "d.train.inter").read_text())
    for source, path in (("recbole", alone), ("auto", alone), ("auto", alone.parent)):
        with pytest.raises(DataError, match=r"x\.inter, line 1: the field 'item_id_list' says that a row is a sample"):
            read_all(source, path)
    names = {"user_column": "user_id:token", "item_column": "item_id:token", "time_column": ""}
    with pytest.raises(DataError, match=r"x\.inter, line 1: the column 'item_id_list' says"):
        read_all("tabular", alone, **names)
    for name in ("history", "history_item_id", "item_seq"):
        path = write(tmp_path / "alone" / "x.csv", f"user_id,item_id,timestamp,{name}\nu,a,1500000000,b c\n")
        with pytest.raises(DataError, match=rf"x\.csv, line 1: the column '{name}' says"):
            read_all("tabular", path)


def test_samples_that_do_not_hang_together_or_are_not_whole(tmp_path):
    benchmark(tmp_path, {"u": list("abcdef")})
    write(tmp_path / "d.test.inter", atomic(HEADER, ("u", "a b x", "f")))
    with pytest.raises(DataError, match=r"d\.test\.inter, line 2: the history of user 'u' does not continue"):
        read_all("recbole", tmp_path)
    with pytest.raises(DataError, match="none can be left out"):
        read_all("recbole", tmp_path, "skip")
    write(tmp_path / "d.test.inter", atomic(HEADER, ("u", "", "f")))
    with pytest.raises(DataError, match=r"d\.test\.inter, line 2: 'item_id_list' is empty"):
        read_all("recbole", tmp_path)
    (tmp_path / "d.test.inter").unlink()
    with pytest.raises(DataError, match=r"holds d\.train\.inter, d\.valid\.inter, but no test file"):
        read_all("auto", tmp_path)
    benchmark(tmp_path, {"u": list("abcdef")})
    benchmark(tmp_path, {"u": list("abcdef")}, name="other")
    with pytest.raises(DataError, match="splits of several data sets"):
        read_all("auto", tmp_path)
    assert len(read_all("auto", tmp_path / "other.valid.inter")[0]) == 6  # one of them chooses
    (tmp_path / "whole").mkdir()
    benchmark(tmp_path / "whole", {"u": list("abcdef")})
    write(tmp_path / "whole" / "all.inter", inter([("u", "a", 1)]))
    with pytest.raises(DataError, match=r"holds splits and other \.inter files"):
        read_all("auto", tmp_path / "whole")
    assert len(read_all("auto", tmp_path / "whole" / "all.inter")[0]) == 1


def last_out(folder, history=True, name="Toys", change=None):
    """Files in the layout of Amazon's benchmark of 2023: two users, five items each."""
    header = ["user_id", "parent_asin", "rating", "timestamp", *(["history"] if history else [])]
    for split, places in (("train", range(3)), ("valid", [3]), ("test", [4])):
        rows = [
            [
                f"u{u}",
                f"B{n}",
                "5.0",
                str(1_500_000_000_000 + n),
                *([" ".join(f"B{k}" for k in range(n))] if history else []),
            ]
            for u in range(2)
            for n in places
        ]
        text = "".join(",".join(row) + "\n" for row in [header, *rows])
        write(folder / f"{name}.{split}.csv", change(text) if change and split == "test" else text)


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("place", ["", "Toys.train.csv", "Toys.test.csv"])
def test_amazons_benchmark_files_are_published_splits(tmp_path, history, place):
    last_out(tmp_path / "raw", history)
    write(tmp_path / "raw" / "meta_Toys.jsonl", '{"parent_asin": "B1", "title": "One"}\n{"parent_asin": "B9"}\n')
    assert detect(tmp_path / "raw" / place, ReadOptions()) == "amazon"
    dataset = prepare(DataConfig(path=str(tmp_path / "raw" / place), **PUBLISHED), tmp_path / "p")
    assert sequences(dataset) == {f"u{u}": [f"B{n}" for n in range(5)] for u in range(2)}
    assert dataset.split.tolist() == [0, 0, 0, 1, 2] * 2
    assert dataset.titles[1] == "One" and "B9" in dataset.item_ids
    manifest = json.loads((tmp_path / "p" / MANIFEST).read_text())
    assert (manifest["time_unit"], manifest["times"]["first"]) == ("ms", "2017-07-14")


def test_a_published_history_that_is_not_what_stands_before_it_is_an_error(tmp_path):
    last_out(tmp_path / "raw", change=lambda text: text.replace("B0 B1 B2 B3", "B0 B1 B3"))
    with pytest.raises(DataError, match=r"2 rows of valid and test know another history .*'B4' has 3 items, not 4"):
        prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "p")
    last_out(tmp_path / "raw", change=lambda text: text.replace("1500000000004", "1400000000000"))
    with pytest.raises(DataError, match="a test row of a user is earlier than one of train"):
        prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "p")


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("X.train", "X.val", "X.test"), ("X.train", "X.dev", "X.test")]
)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_tables_of_ones_own_in_three_files(tmp_path, names, kind):
    for number, name in enumerate(names):
        rows = {0: ["a", "b"], 1: ["c"], 2: ["d"]}[number]
        table = pl.DataFrame({"user_id": ["u"] * len(rows), "item_id": rows})
        if kind == "parquet":
            table.write_parquet(tmp_path / f"{name}.parquet")
        else:
            write(tmp_path / f"{name}.{kind}", table.write_csv())
    dataset = prepare(DataConfig(path=str(tmp_path), time_column="", **PUBLISHED), tmp_path / "out" / "p")
    assert sequences(dataset) == {"u": list("abcd")} and dataset.split.tolist() == [0, 0, 1, 2]


def test_benchmark_files_of_interactions(tmp_path):
    for split, rows in {
        "train": [("u", "a", 5), ("u", "b", 6)],
        "valid": [("u", "c", 7)],
        "test": [("u", "d", 8)],
    }.items():
        write(tmp_path / "raw" / f"d.{split}.inter", inter(rows))
    dataset = prepare(DataConfig(path=str(tmp_path / "raw"), **PUBLISHED), tmp_path / "p")
    assert sequences(dataset) == {"u": list("abcd")} and dataset.split.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize("form", ["d_{}.csv", "d-{}.csv", "{}-00000-of-00001.csv"])
def test_splits_are_known_by_underscores_hyphens_and_parts_too(tmp_path, form):
    for number, word in enumerate(("train", "val", "test")):
        write(tmp_path / form.format(word), f"user_id,item_id,timestamp\nu,{word},{1_500_000_000 + number}\n")
    found, _, _ = read_all("auto", tmp_path)
    assert found.select("item", "split").rows() == [("train", 0), ("val", 1), ("test", 2)]


def test_the_path_of_any_one_split_means_all_three(tmp_path):
    for number, word in enumerate(("train", "val", "test")):
        write(tmp_path / f"d.{word}.inter", inter([("u", word, 1_500_000_000 + number)]))
    found, _, _ = read_all("recbole", tmp_path / "d.val.inter")
    assert found["item"].to_list() == ["train", "val", "test"]


@pytest.mark.parametrize(
    "header",
    [
        ("user_id:token", "item_id:token_seq", "timestamp:float"),
        ("user_id:token", "item_seq:token_seq", "item_id:token", "timestamp:float"),
    ],
)
def test_a_row_of_many_items_is_never_one_item(tmp_path, header):
    row = ["u" if "user" in name else "1500000000" if "time" in name else "1 2 3" for name in header]
    path = write(tmp_path / "d.inter", atomic(header, tuple(row)))
    with pytest.raises(DataError, match=r"d\.inter, line 1: the field 'item_\w+' says that a row is a sample"):
        read_all("auto", path)
