"""The published splits of MiniOneRec and ReRe: read as they are, and refused where they contradict themselves."""

import csv
import io
import json

import numpy as np
import pytest

from tests.data_worlds import read_all, shared, write
from wpauc_jax.catalog.sid import read_sid
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data.dataset import SPLITS, positions
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.sources.minionerec import read_codes

INFO = "<a_1><b_0>\tA bolt, 1/4\"\t0\n<a_1><b_1>\tIt's a nut\t1\n<a_10><b_0>\tA washer\t2\n<a_2><b_0>\tNever used\t3\n"
ROWS = {
    "train": [("u9", "[0]", "1"), ("u1", "[2]", "2"), ("u9", "[0, 1]", "0")],
    "valid": [("u9", "[1, 0]", "2"), ("late", "[1]", "2")],
    "test": [("late", "[1, 2]", "1"), ("u9", "[0, 2]", "0")],
}  # histories of at most two


def sheet(header: list[str], rows: list[tuple]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    return out.getvalue()


def world(folder, rows=ROWS, info=INFO, suffix=""):
    for name, samples in rows.items():
        text = sheet(["user_id", "history_item_id", "item_id", "item_title"], [(*row, 'a, "b"\nc') for row in samples])
        write(folder / f"{name}.csv{suffix}", text)
    write(folder / f"info.txt{suffix}", info)
    return folder


def config(path, **changes):
    return DataConfig(source="minionerec", path=str(path), **{"k_core": 0, "split": "published", **changes})


def samples(dataset, split):
    """(user, history of at most two, target) of each sample, as ROWS has them, in any order."""
    found = positions(dataset, split)
    histories = [[int(i) for i in row if i >= 0] for row in dataset.histories(found, 2)]
    users = [dataset.users[u] for u in dataset.user_of(found)]
    return sorted((u, str(h), str(i)) for u, h, i in zip(users, histories, dataset.item[found].tolist(), strict=True))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_published_rows_are_the_samples(tmp_path, suffix):
    dataset = prepare(config(world(tmp_path / "raw", suffix=suffix)), tmp_path / "prepared")
    for split in SPLITS:
        assert samples(dataset, split) == sorted(ROWS[split])
    assert dataset.item_ids == ["0", "1", "2", "3"]  # also the one without a row: item numbers are the published ones
    assert dataset.titles == ['A bolt, 1/4"', "It's a nut", "A washer", "Never used"]


def test_without_train_its_rows_are_those_that_histories_know(tmp_path):
    rows = {"valid": [("u", "[0, 1]", "2")], "test": [("u", "[1, 2]", "2")]}
    dataset = prepare(config(world(tmp_path / "raw", rows)), tmp_path / "prepared")
    assert samples(dataset, "train") == [("u", "[0]", "1")]
    assert samples(dataset, "valid") == rows["valid"]
    assert samples(dataset, "test") == rows["test"]


def test_other_protocols_may_split_the_rebuilt_time_lines_anew(tmp_path):
    dataset = prepare(config(world(tmp_path / "raw"), split="leave_one_out"), tmp_path / "prepared")
    assert dataset.item_ids == ["0", "1", "2"]
    assert samples(dataset, "test") == [("late", "[1, 2]", "1"), ("u9", "[0, 2]", "0")]
    with pytest.raises(ConfigError, match=r"keeps every row: set data\.k_core=0 \(it is 5\)"):
        config(tmp_path, k_core=5)


def test_published_needs_splits(tmp_path):
    path = write(tmp_path / "a.inter", "user_id:token\titem_id:token\nu\ti\n")
    with pytest.raises(DataError, match="'published' needs data that comes with its splits; 'recbole' does not"):
        prepare(DataConfig(source="recbole", path=str(path), k_core=0, split="published"), tmp_path / "prepared")


RERE_HEADER = ["user_id", "item_asins", "history_item_id", "item_id", "history_timestamp", "timestamp"]


def rere(folder, name, rows):
    for split, samples_ in rows.items():
        write(folder / split / f"{name}.csv", sheet(RERE_HEADER, samples_))
    write(folder / "info" / f"{name}.txt", "Bolt (1, A)\t0\nNut\t1\n")


def test_rere_has_times_and_no_semantic_ids(tmp_path):
    rere(tmp_path, "Toys_5", {"train": [("u", "['B0']", "[0]", "1", "[100]", "200")], "test": []})
    rere(tmp_path, "Games_5", {"train": [("u", "['B0']", "[1]", "0", "[7]", "8")]})
    with pytest.raises(DataError, match=r"train holds several data sets: Games_5\.csv, Toys_5\.csv; set data\.path"):
        read_all("minionerec", tmp_path)
    interactions, items, raw = read_all("minionerec", tmp_path / "train" / "Toys_5.csv")
    assert interactions.select("user", "item", "time", "split").rows() == [("u", "0", 100, 0), ("u", "1", 200, 0)]
    assert items.select("item", "title", "text").rows() == [("0", "Bolt (1, A)", "Bolt (1, A)"), ("1", "Nut", "Nut")]
    assert raw.time_unit == "s"
    with pytest.raises(DataError, match="has no semantic ids"):
        read_codes(tmp_path / "info" / "Toys_5.txt")


def test_descriptions_join_the_text(tmp_path):
    folder = world(tmp_path)
    described = {"0": {"title": "A bolt", "description": "Steel."}, "2": {"description": ""}, "7": {"description": "x"}}
    write(folder / "index" / "any.item.json", json.dumps(described))
    assert read_all("minionerec", folder)[1]["text"].to_list()[:3] == ['A bolt, 1/4". Steel.', "It's a nut", "A washer"]
    write(folder / "index" / "any.item.json", "[1]")
    with pytest.raises(DataError, match=r"any\.item\.json: expected \{"):
        read_all("minionerec", folder)


def test_semantic_ids_from_info_and_index(tmp_path):
    codes, names = read_sid(write(tmp_path / "info.txt", INFO), ["2", "0", "1"])
    assert codes.tolist() == [[1, 0], [0, 0], [0, 1]]  # <a_1> before <a_10>
    assert names == [["<a_1>", "<a_10>"], ["<b_0>", "<b_1>"]]
    index = json.dumps({"0": ["<a_1>", "<b_0>"], "1": ["<a_1>", "<b_1>"], "2": ["<a_10>", "<b_0>"]})
    np.testing.assert_array_equal(read_sid(write(tmp_path / "x.index.json", index), ["2", "0", "1"])[0], codes)
    with pytest.raises(DataError, match=r"bad\.json: expected"):
        read_sid(write(tmp_path / "bad.json", '{"a": ["<a_1>"]}'), ["0"])


BAD = [
    ("valid", ("u9", "[1]", "2"), "valid.csv, line 2: the history of user 'u9' does not continue"),
    ("train", ("u3", "[]", "2"), "train.csv, line 2: the history is empty"),
    ("train", ("u3", "[4]", "2"), "train.csv, line 2: item 4 is not in info.txt"),
    ("test", ("u3", "[1]", "-1"), "test.csv, line 2: item -1 is not in info.txt"),
    ("test", ("u3", "__import__('os').getcwd()", "1"), "line 2: 'history_item_id' is not made of whole numbers"),
    ("test", ("u3", "[1.5]", "1"), "line 2: 'history_item_id' is not made of whole numbers: '[1.5]'"),
    ("test", ("u3", "[" * 5000, "1"), "line 2: 'history_item_id' is not made of whole numbers"),
    ("test", ("u3", "[1]", ""), "line 2: 'item_id' is not one whole number"),
    ("test", ("u3", "[1]", "1, 2"), "line 2: 'item_id' is not one whole number"),
    ("test", ("", "[1]", "1"), "line 2: no value for 'user_id'"),
]


@pytest.mark.parametrize(("split", "row", "message"), BAD)
def test_rows_that_cannot_be_are_named(tmp_path, split, row, message):
    folder = world(tmp_path, {**ROWS, split: [row]})
    with pytest.raises(DataError) as error:
        read_all("minionerec", folder)
    assert message in str(error.value)


def test_malformed_files(tmp_path):
    with pytest.raises(DataError, match="nowhere' does not exist"):
        read_all("minionerec", tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no MiniOneRec data: it needs train, valid or test"):
        read_all("minionerec", tmp_path)
    folder = world(tmp_path)
    write(folder / "test.csv", "user_id,item_id\nu,1\n")
    with pytest.raises(DataError, match=r"test\.csv, line 1: the header has no column 'history_item_id'"):
        read_all("minionerec", folder)
    write(folder / "test.csv", "user_id,history_item_id,item_id\nu,[1]\n")
    with pytest.raises(DataError, match=r"test\.csv, line 2: not as many fields"):
        read_all("minionerec", folder)
    write(folder / "test.csv", 'user_id,history_item_id,item_id\nu,"[1]",2\nu,"[1')
    with pytest.raises(DataError, match=r"test\.csv, line 3: unexpected end of data"):
        read_all("minionerec", folder)
    (folder / "test.csv").write_bytes(b"user_id,history_item_id,item_id\nu\xff,[1],2\n")
    with pytest.raises(DataError, match=r"test\.csv, line 2: not UTF-8"):
        read_all("minionerec", folder)
    for line, what in (("no tabs", "expected"), ("a\tb\tx", "expected"), ("<a>\tagain\t0", "'0' appears a second")):
        world(tmp_path, info=f"{INFO}\n{line}\n")
        with pytest.raises(DataError, match=rf"info\.txt, line 6: .*{what}"):
            read_all("minionerec", folder)


def test_the_industrial_set_has_its_published_test_rows(tmp_path):
    folder = shared("industrial/minionerec")
    dataset = prepare(config(folder), tmp_path / "prepared")
    assert (dataset.num_users, dataset.num_items) == (3285, 3686)
    assert [len(positions(dataset, split)) for split in ("valid", "test")] == [4532, 4533]
    assert dataset.item_ids == [str(number) for number in range(3686)]
    codes, _ = read_sid(f"{folder}/info.txt.gz", dataset.item_ids)
    assert codes.shape == (3686, 3)
    assert len({tuple(row) for row in codes.tolist()}) == 3686 - 16  # items beyond the first of their sid
