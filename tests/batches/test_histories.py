"""Histories read from JSON lines and .inter files; every fault names its line."""

import dataclasses
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wpauc_jax.batches.histories import UNKNOWN, read_histories
from wpauc_jax.config import RecommendConfig
from wpauc_jax.data.errors import DataError

NAMES = ["a", "b", "7", "d"]


def read(tmp_path, text, name="h.jsonl", ids=NAMES, **options):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return [(user, items.tolist()) for user, items in read_histories(path, ids, **options)]


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
        ('{"user": NaN, "history": ["a"]}', "line 2: expected .*got "),
        ('{"user": null, "history": ["a"]}', "line 2: expected"),
        ('{"user": ["w"], "history": ["a"]}', "line 2: expected"),
        ('{"user": "w", "history": [Infinity]}', "line 2: item inf of user 'w' is not a string"),
        ('{"user": "w", "history": [null]}', "line 2: item None of user 'w' is not a string"),
        ('{"user": "w", "history": [["a"]]}', r"line 2: item \['a'\] of user 'w' is not a string"),
        ('{"user": "w", "user": "v", "history": ["a"]}', r"line 2: not JSON \('user' stands twice"),
        ('{"user": "w", "history": ["\\ud83d"]}', "line 2: the id '.ud83d' holds half a character"),
        ('{"user": "\\udc00w", "history": ["a"]}', "line 2: the id '.udc00w' holds half a character"),
        ('{"user": "w", "history": ' + "[" * 100_000, "line 2: not JSON"),
        ('{"user": "w", "history": [' + "[" * 400 + "]" * 400 + "]}", "line 2: item .* is not a string"),
        ('{"user": "w", "history": [' + "9" * 5000 + "]}", "line 2: not JSON"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, message):
    for unknown in ("error", "skip") if "not among" not in message else ("error",):
        with pytest.raises(DataError, match=r"h\.jsonl, " + message) as caught:
            read(tmp_path, GOOD + line + "\n", unknown=unknown)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
        str(caught.value).encode()


def test_a_bad_inter_line_is_named(tmp_path):
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    with pytest.raises(DataError, match=r"h\.inter, line 3: item 'x' of user 'w' is not among"):
        read(tmp_path, head + "u\ta\t1\nw\tx\t0\n", "h.inter")
    with pytest.raises(DataError, match=r"h\.inter, line 2: 'timestamp' is not a time: 'soon'"):
        read(tmp_path, head + "u\ta\tsoon\n", "h.inter")


def test_missing_and_empty_files_and_bytes(tmp_path):
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        read_histories(tmp_path / "absent.jsonl", NAMES)
    with pytest.raises(DataError, match=r"h\.jsonl: the file holds no history"):
        read(tmp_path, "\n\n")
    (tmp_path / "latin.jsonl").write_bytes(GOOD.encode() + b'{"user": "\xe9", "history": ["a"]}')
    with pytest.raises(DataError, match=r"latin\.jsonl, line 2: not JSON"):
        read_histories(tmp_path / "latin.jsonl", NAMES)


def test_a_byte_order_mark_and_a_pair_of_halves_are_no_trouble(tmp_path):
    ids = ["a", "\U0001f600", "7", "d"]
    text = "\ufeff" + '{"user": "u", "history": ["\\ud83d\\ude00", "a"]}\r\n\r\n'
    assert read(tmp_path, text, ids=ids) == [("u", [1, 0])]


def test_unknown_items_are_all_named_with_the_nearest_ids(tmp_path):
    ids = ["B00042", "alpha-blue", "7", "Delta"]
    lines = ['{"user": "u", "history": ["b00042 ", "alpha-blu", 7]}', '{"user": "v", "history": ["7.0", "zz", "zz"]}']
    with pytest.raises(DataError) as caught:
        read(tmp_path, "\n".join(lines), ids=ids)
    message = str(caught.value)
    assert "line 1: item 'b00042 ' of user 'u' is not among the 4 items" in message
    assert "5, 4 of them different: 'b00042 ' (line 1; nearest is 'B00042')" in message
    assert "'alpha-blu' (line 1; nearest is 'alpha-blue'), '7.0' (line 2; nearest is '7'), 'zz' (line 2)" in message
    assert message.endswith("remove them, or set recommend.unknown='skip'")


def test_unknown_items_can_be_left_out(tmp_path):
    said = []
    lines = ['{"user": "u", "history": ["x", "b", "y"]}', '{"user": "v", "history": ["x"]}']
    assert read(tmp_path, "\n".join(lines), unknown="skip", say=said.append) == [("u", [1])]
    assert said[0].endswith("in the catalog are left out: 3, 2 of them different: 'x' (line 1), 'y' (line 1)")
    assert said[1].endswith("users without a known item, who get no list: 1 ('v')")
    with pytest.raises(DataError, match="no user has an item of the catalog"):
        read(tmp_path, lines[1], unknown="skip", say=said.append)
    inter = "user_id:token\titem_id:token\nu\tx\nu\ta\n"
    assert read(tmp_path, inter, "h.inter", unknown="skip", say=said.append) == [("u", [0])]


def test_every_choice_for_unknown_items_is_known():
    field = next(field for field in dataclasses.fields(RecommendConfig) if field.name == "unknown")
    assert set(field.metadata["choices"]) == set(UNKNOWN)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["user", "history", "x"]), inner, max_size=3),
        st.fixed_dictionaries({"user": inner, "history": st.lists(inner, max_size=3)}),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(
    line=st.one_of(JSON.map(json.dumps).map(str.encode), st.binary(max_size=30)), unknown=st.sampled_from([*UNKNOWN])
)
def test_any_line_is_a_history_or_one_line_of_error(tmp_path_factory, line, unknown):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(GOOD.encode() + line.replace(b"\n", b" "))
    said = []
    try:
        found = read_histories(path, NAMES, unknown=unknown, say=said.append)
        assert found[0][0] == "u" and all(len(items) for _, items in found)
        json.dumps([user for user, _ in found], ensure_ascii=False).encode()
    except DataError as error:
        assert str(path) in str(error)
        said.append(str(error))
    assert all("\n" not in text.strip() and text.encode() for text in said)
