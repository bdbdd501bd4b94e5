"""Histories read from JSON lines and .inter files; every fault names its line."""

import gzip

import numpy as np
import pytest

from wpauc_jax.batches.histories import read_histories
from wpauc_jax.data.dataset import Dataset
from wpauc_jax.data.errors import DataError

NAMES = ["a", "b", "7", "d"]
DATASET = Dataset(
    users=[],
    item_ids=NAMES,
    titles=["Alpha", "Bêta", "", "Delta"],
    texts=[""] * 4,
    item=np.zeros(0, np.int32),
    time=np.zeros(0, np.int64),
    split=np.zeros(0, np.int8),
    offsets=np.zeros(1, np.int64),
    fingerprint="",
)


def read(tmp_path, text, name="h.jsonl"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return [(user, items.tolist()) for user, items in read_histories(path, DATASET)]


@pytest.mark.parametrize("name", ["h.jsonl", "h.jsonl.gz", "h.txt"])
def test_json_lines(tmp_path, name):
    text = '{"user": "u", "history": ["b", 7, "b"]}\n\n{"user": 3, "history": ["d"]}\n{"user": "u", "history": ["a"]}'
    assert read(tmp_path, text, name) == [("u", [1, 2, 1]), ("3", [3]), ("u", [0])]


@pytest.mark.parametrize("name", ["h.inter", "h.inter.gz"])
def test_inter_is_sorted_by_time_and_stable(tmp_path, name):
    lines = ["user_id:token\titem_id:token\ttimestamp:float", "v\ta\t5", "u\tb\t9", "u\td\t2", "v\t7\t5", "u\ta\t2"]
    assert read(tmp_path, "\n".join(lines) + "\n", name) == [("v", [0, 2]), ("u", [3, 0, 1])]


GOOD = '{"user": "u", "history": ["a"]}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", r"line 2: expected .*got \[1\]"),
        ('{"user": "u"}', "line 2: expected"),
        ('{"history": ["a"]}', "line 2: expected"),
        ('{"user": true, "history": ["a"]}', "line 2: expected"),
        ('{"user": "u", "history": "a"}', "line 2: expected"),
        ('{"user": "w", "history": []}', "line 2: the history of user 'w' is empty"),
        ('{"user": "w", "history": [1.5]}', "line 2: item 1.5 of user 'w' is not a string or an integer"),
        ('{"user": "w", "history": ["a", "x"]}', "line 2: item 'x' of user 'w' is not among the 4 items"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, message):
    with pytest.raises(DataError, match=r"h\.jsonl, " + message):
        read(tmp_path, GOOD + line + "\n")


def test_a_bad_inter_line_is_named(tmp_path):
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    with pytest.raises(DataError, match=r"h\.inter, line 3: item 'x' of user 'w' is not among"):
        read(tmp_path, head + "u\ta\t1\nw\tx\t0\n", "h.inter")
    with pytest.raises(DataError, match=r"h\.inter, line 2: 'timestamp' is not a time: 'soon'"):
        read(tmp_path, head + "u\ta\tsoon\n", "h.inter")


def test_missing_and_empty_files_and_bytes(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        read_histories(tmp_path / "absent.jsonl", DATASET)
    with pytest.raises(DataError, match=r"h\.jsonl: the file holds no history"):
        read(tmp_path, "\n\n")
    (tmp_path / "latin.jsonl").write_bytes(GOOD.encode() + b'{"user": "\xe9", "history": ["a"]}')
    with pytest.raises(DataError, match=r"latin\.jsonl, line 2: not JSON"):
        read_histories(tmp_path / "latin.jsonl", DATASET)
