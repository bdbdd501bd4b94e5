"""Text that is not quite text, in every format: byte order marks, halves of surrogate pairs, words for nothing."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_worlds import atomic, inter, read_all, write
from wpauc_jax.config import DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.sources.jsonlines import as_text, id_of
from wpauc_jax.data.sources.minionerec import parse_info, read_codes
from wpauc_jax.data.sources.movielens import GENRES
from wpauc_jax.data.text import NO_WORDS, decoded, has_half, mended, without_no_words

BOM = b"\xef\xbb\xbf"
HALF = b"\xed\xa0\xbd"  # what a writer without checks makes of half a pair
ROWS = [(f"u{n % 3}", f"i{n % 4}", 1_500_000_000 + n) for n in range(12)]


def lines(*objects) -> str:
    return "".join(json.dumps(value) + "\n" for value in objects)


def flags(item, title):
    return "|".join([item, title, "", "", "", *["0"] * len(GENRES)]) + "\n"


# source, and its files; {title} stands where the title of item i1 does
FORMATS = {
    "recbole": {"a.inter": inter(ROWS), "a.item": atomic(("item_id:token", "title:token_seq"), ("i1", "{title}"))},
    "tabular": {
        "a.csv": "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in ROWS),
        "items.csv": "item_id,title\ni1,{title}\n",
    },
    "amazon": {
        "X.json": lines(*({"reviewerID": u, "asin": i, "unixReviewTime": t} for u, i, t in ROWS)),
        "meta_X.json": '{"asin": "i1", "title": "{title}"}\n',
    },
    "yelp": {
        "yelp_academic_dataset_review.json": lines(
            *({"user_id": u, "business_id": i, "date": f"2020-01-01 00:00:{t % 60:02}"} for u, i, t in ROWS)
        ),
        "yelp_academic_dataset_business.json": '{"business_id": "i1", "name": "{title}"}\n',
    },
    "movielens": {
        "ratings.csv": "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},5,{t}\n" for u, i, t in ROWS),
        "movies.csv": "movieId,title,genres\ni1,{title},(no genres listed)\n",
    },
    "sequences": {"a.txt": "".join(f"{u} {i}\n" for u, i, _ in ROWS)},
    "minionerec": {
        "train.csv": 'user_id,history_item_id,item_id\nu,"[0]",1\n',
        "info.txt": "{title}\t1\nOther\t0\n",
    },
}
TITLED = sorted(set(FORMATS) - {"sequences"})


def place(folder, source, title=b"Blue Pump", mark=b""):
    """The files of a format, each behind the mark; what to read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FORMATS[source].items():
        (folder / name).write_bytes(mark + text.encode().replace(b"{title}", title))
    alone = {"tabular": "a.csv", "sequences": "a.txt"}
    return folder / alone[source] if source in alone else folder


def titles(source, path, bad_rows="error"):
    more = {"items_path": "items.csv"} if source == "tabular" else {}
    _, items, _ = read_all(source, path, bad_rows, **more)
    return dict(items.select("item", "title").iter_rows())


@pytest.mark.parametrize("source", FORMATS)
def test_a_byte_order_mark_changes_nothing_in_any_file_of_any_format(tmp_path, source):
    more = {"items_path": "items.csv"} if source == "tabular" else {}
    plain, marked = (place(tmp_path / mark.hex(), source, mark=mark) for mark in (b"", BOM))
    for name in (source, *([] if source == "sequences" else ["auto"])):  # its ids are no numbers
        a, b = read_all(name, plain, **more), read_all(name, marked, **more)
        assert a[0].equals(b[0])
        assert a[1] is None or a[1].drop("file").equals(b[1].drop("file"))


def test_a_byte_order_mark_in_bare_latin_and_code_files(tmp_path):
    write(tmp_path / "x.csv", "\ufeffu,i0,5,1500000000\n")
    found, _, _ = read_all("tabular", tmp_path / "x.csv", user_column="1", item_column="2", time_column="4")
    assert found["user"].to_list() == ["u"]
    (tmp_path / "u.data").write_bytes(BOM + b"1\t7\t3\t5\n")
    (tmp_path / "u.item").write_bytes(BOM + flags("7", "Café").encode("latin-1"))
    found, items, _ = read_all("movielens", tmp_path)
    assert (found["user"].to_list(), items["title"].to_list()) == (["1"], ["Café"])
    (tmp_path / "codes.json").write_bytes(BOM + b'{"0": ["<a_1>", "<b_2>"]}')
    assert read_codes(tmp_path / "codes.json").rows() == [("0", "<a_1> <b_2>")]
    (tmp_path / "wide.csv").write_bytes("user_id,item_id\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"wide\.csv: the file is UTF-16, not UTF-8 text; save it as UTF-8"):
        read_all("auto", tmp_path / "wide.csv")


any_text = st.text(st.characters(codec=None), max_size=6)


@given(any_text)
def test_mended_text_can_be_written_and_whole_characters_stay(text):
    found = mended(text)
    found.encode()
    assert found == text if not has_half(text) else "\ufffd" in found or len(found) < len(text)
    assert decoded(text.encode("utf-8", "surrogatepass")) == text


def test_halves_that_belong_together_are_joined():
    assert mended("a\ud83d\ude00b\ud83d") == "a\U0001f600b\ufffd"
    assert decoded(b"\xff") is None


@pytest.mark.parametrize("source", TITLED)
def test_half_of_a_pair_in_a_title_is_replaced_in_every_format(tmp_path, source):
    path = place(tmp_path, source, title=b"Blue Pump " + HALF)
    assert "Blue Pump \ufffd" in titles(source, path).values()


@pytest.mark.parametrize("source", ["amazon", "yelp"])
def test_half_of_a_pair_that_json_escapes(tmp_path, source):
    assert "Blue Pump \ufffd" in titles(source, place(tmp_path / "a", source, title=rb"Blue Pump \ud83d")).values()
    assert "Blue \U0001f600" in titles(source, place(tmp_path / "b", source, title=rb"Blue \ud83d\ude00")).values()


IDS = {"recbole": "a.inter", "tabular": "a.csv", "sequences": "a.txt", "movielens": "ratings.csv"}
IDS |= {"amazon": "X.json", "yelp": "yelp_academic_dataset_review.json"}


@pytest.mark.parametrize("source", IDS)
def test_half_of_a_pair_in_an_id_is_refused_and_makes_no_two_users_one(tmp_path, source):
    """u1 and u2 become users that differ only in a half; nobody of the two may be read."""
    path = place(tmp_path, source)
    halves = (HALF, b"\xed\xa0\xbe") if source not in ("amazon", "yelp") else (rb"\ud83d", rb"\ud83e")
    content = (tmp_path / IDS[source]).read_bytes()
    for user, half in zip((b"u1", b"u2"), halves, strict=True):
        content = content.replace(user, b"x" + half)
    (tmp_path / IDS[source]).write_bytes(content)
    with pytest.raises(DataError, match=rf"{IDS[source]}, line \d+: .*(half of a surrogate pair|not UTF-8 text)"):
        read_all(source, path)
    found, _, raw = read_all(source, path, "skip")
    assert set(found["user"]) == {"u0"} and raw.rejects.counts.total() == 8


def test_half_of_a_pair_in_parquet(tmp_path):
    raw = pa.array([b"a", b"b" + HALF, b"c"]).view(pa.string())
    good = pa.array(["u", "v", "w"])
    pq.write_table(
        pa.table({"user_id": good, "item_id": raw, "timestamp": [1, 2, 3], "title": raw}), tmp_path / "x.parquet"
    )
    with pytest.raises(DataError, match=r"x\.parquet, line 2: 'item_id' holds half of a surrogate pair"):
        read_all("tabular", tmp_path / "x.parquet", title_column="")
    pq.write_table(pa.table({"item_id": good, "title": raw}), tmp_path / "items.parquet")
    write(tmp_path / "x.csv", "user_id,item_id,timestamp\nu,u,1500000000\n")
    _, items, _ = read_all("tabular", tmp_path / "x.csv", items_path="items.parquet")
    assert items["title"].to_list() == ["a", "b\ufffd", "c"]


MISSING = [None, float("nan"), float("inf"), float("-inf"), True, {"a": 1}, {}, [], [[], None, {"b": "c"}], "", " "]


@pytest.mark.parametrize("source", ["amazon", "yelp", "tabular"])
def test_what_is_no_title_is_none_and_no_crash(tmp_path, source):
    item, name = {"amazon": ("asin", "title"), "yelp": ("business_id", "name"), "tabular": ("item_id", "title")}[source]
    described = [{item: f"i{n}", name: value} for n, value in enumerate(MISSING)]
    described += [{item: "list", name: ["Blue", ["Pump", None]]}, {item: "number", name: 1984}]
    path = place(tmp_path, source)
    other = {"amazon": "meta_X.json", "yelp": "yelp_academic_dataset_business.json", "tabular": "items.csv"}[source]
    write(tmp_path / other, lines(*described))
    config = DataConfig(source=source, path=str(path), k_core=0, items_path=other if source == "tabular" else "")
    with pytest.raises(DataError, match="0 of 4 items"):  # none of i0 to i3 gets one, but others have titles
        prepare(config, tmp_path / "p")
    found = titles(source, path)
    assert not {title for item, title in found.items() if item.startswith("i")} - {None, " "}
    assert found["number"] == "1984"
    assert found["list"] == {"amazon": "Blue Pump", "yelp": None, "tabular": "Blue Pump"}[source]


def test_nested_lists_of_any_depth(tmp_path):
    path = place(tmp_path, "amazon")
    write(
        tmp_path / "meta_X.json",
        '{"asin": "i1", "title": "T", "description": ' + "[" * 800 + '"deep"' + "]" * 800 + "}\n",
    )
    assert read_all("amazon", path)[1]["text"].to_list() == ["T. deep"]


@pytest.mark.parametrize("source", ["recbole", "tabular", "amazon", "movielens"])
def test_words_for_a_missing_value_are_no_titles_and_this_is_said(tmp_path, source):
    path = place(tmp_path, source, title=b"nan")
    config = DataConfig(source=source, path=str(path), k_core=0, items_path="items.csv" if source == "tabular" else "")
    said = []
    dataset = prepare(config, tmp_path / "p", said.append)
    assert dataset.titles == [""] * 4
    assert any(line.startswith("1 titles are words for a missing value") for line in said)


def test_words_that_say_nothing():
    table = pl.DataFrame({"title": [*NO_WORDS, "", "  ", "Nan's Kitchen", "None of us", "null island"]})
    assert table.select(without_no_words("title"))["title"].drop_nulls().to_list() == table["title"].to_list()[-3:]


def test_ids_in_json():
    good = [("a", "a"), (7, "7"), (7.0, "7"), (1.5, "1.5"), ("é", "é"), ("nan", "nan")]
    assert [id_of(value, "x") for value, _ in good] == [(text, "") for _, text in good]
    for bad in (None, "", float("nan"), float("inf"), True, [], {}, "a\ud83d", "a\0"):
        assert id_of(bad, "x")[0] == "" and id_of(bad, "x")[1]
    assert as_text(float("nan")) == as_text(float("-inf")) == as_text(None) == ""


def test_a_float_is_the_same_id_in_a_fast_block_and_in_a_slow_one(tmp_path):
    rows = [{"user_id": 1.0, "parent_asin": "a", "timestamp": 1_500_000_000_000}] * 3
    fast, slow = tmp_path / "fast" / "X.jsonl", tmp_path / "slow" / "X.jsonl"
    write(fast, lines(*rows))
    write(slow, lines(*rows) + "{'user_id': 1.0, 'parent_asin': 'a', 'timestamp': 1500000000000}\n")
    assert set(read_all("amazon", fast)[0]["user"]) == set(read_all("amazon", slow)[0]["user"]) == {"1"}


def test_ids_that_look_like_a_missing_value_are_said(tmp_path):
    write(tmp_path / "a.inter", inter([*ROWS, ("nan", "i1", 1_500_000_000), ("v", "None", 1_500_000_000)]))
    said = []
    prepare(DataConfig(path=str(tmp_path), k_core=0), tmp_path / "p", said.append)
    assert {"warning: user ids that look like missing values: nan"} <= set(said)
    assert {"warning: item ids that look like missing values: None"} <= set(said)


def test_info_with_a_half_and_a_mark():
    assert parse_info(BOM + b"A " + HALF + b"\t0\n", "x")["title"].to_list() == ["A \ufffd"]


def test_columns_with_the_names_that_blocks_use_inside(tmp_path):
    write(tmp_path / "x.csv", "line,rest,file,user,time\nu,i0,a,9,1500000000\nu,i1,a,9,1500000001\n")
    write(tmp_path / "items.csv", "rest,line,file,text\ni0,Zero,a,b\ni1,One,c,d\n")
    names = {"user_column": "line", "item_column": "rest", "time_column": "time", "title_column": "line"}
    found, items, _ = read_all("tabular", tmp_path / "x.csv", items_path="items.csv", **names)
    assert found.select("user", "item", "time").rows() == [("u", "i0", 1500000000), ("u", "i1", 1500000001)]
    assert items.select("item", "title", "text", "line").rows() == [
        ("i0", "Zero", "Zero. a. b", 2),
        ("i1", "One", "One. c. d", 3),
    ]


def test_a_film_may_be_called_infinity():
    assert "Infinity" not in NO_WORDS and "nan" in NO_WORDS


def test_a_byte_order_mark_where_files_were_joined_makes_no_new_user(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,i,1500000000\n\ufeffu,j,1500000001\n")
    assert read_all("tabular", log)[0]["user"].to_list() == ["u", "u"]


def test_a_nul_in_an_id_is_refused_in_parquet_as_in_text(tmp_path):
    table = pl.DataFrame({"user_id": ["u\0", "v"], "item_id": ["i", "j"], "timestamp": [1_500_000_000] * 2})
    table.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet, line 1: a NUL byte"):
        read_all("tabular", tmp_path / "log.parquet")
