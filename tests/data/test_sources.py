"""Readers: hand-written files of each format, and an error with file and line for each way to be wrong."""

import pytest

from tests.data_worlds import atomic, inter, read_all, write
from wpauc_jax.config import DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.tables import REST

ITEMS = atomic(
    ("item_id:token", "price:float", "movie_title:token_seq", "brand:token", "notes:token_seq"),
    ("7", "1.5", 'A "quoted" title', "Ann", "two words"),
    ("b", "", "", "", ""),
    ("9", "2", "Élan", "", "x"),
)


def described(items):
    return items.select("item", "title", "text").rows()


def triples(interactions):
    return interactions.select("user", "item", "time").rows()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_recbole_folder(tmp_path, suffix):
    header = ("item_id:token", "weight:float", "timestamp:float", "user_id:token")
    text = atomic(header, ("7", "x", "20", "u 1"), ("b", "", "-3", "A02"), ("9", "1", "20", "u 1"))
    write(tmp_path / f"shop.inter{suffix}", text.replace("\n", "\r\n"))
    write(tmp_path / f"shop.item{suffix}", ITEMS)
    interactions, items, raw = read_all("recbole", tmp_path)
    assert triples(interactions) == [("u 1", "7", 20), ("A02", "b", -3), ("u 1", "9", 20)]
    assert described(items) == [
        ("7", 'A "quoted" title', 'A "quoted" title. Ann. two words'),
        ("b", None, None),
        ("9", "Élan", "Élan. x"),
    ]
    assert {name: len(digest) for name, digest in raw.files.items()} == {
        f"shop.inter{suffix}": 64,
        f"shop.item{suffix}": 64,
    }


def test_recbole_without_timestamp_takes_the_order_of_lines_and_needs_no_items(tmp_path):
    path = write(tmp_path / "a.inter", atomic(("user_id:token", "item_id:token"), ("2", "1"), (), ("2", "0")))
    interactions, items, _ = read_all("recbole", path)
    assert triples(interactions) == [("2", "1", 2), ("2", "0", 4)]  # the blank line is skipped and still counted
    assert items is None


def test_fractional_times_keep_their_order(tmp_path):
    write(tmp_path / "a.inter", inter([("u", "x", "1.75"), ("u", "y", "1e0")]))
    interactions, _, _ = read_all("recbole", tmp_path)
    assert triples(interactions) == [("u", "x", 1), ("u", "y", 1)]
    assert interactions[REST].to_list() == [750_000_000, 0]


def test_large_whole_times_are_exact(tmp_path):
    write(tmp_path / "a.inter", inter([("u", "x", 2**60 + 1), ("u", "y", 2**60)]))
    assert triples(read_all("recbole", tmp_path)[0]) == [("u", "x", 2**60 + 1), ("u", "y", 2**60)]


GOOD = inter([("u", "x", 1), ("u", "y", 2)])


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (GOOD + "u\tz\t3\t4\n", "line 4", "more than the 3 fields expected: '4' is too many"),
        (GOOD + "u\n", "line 4", "no value for 'item_id'"),
        (GOOD + "\n\t\t\nu\tz\n", "line 6", "no value for 'timestamp'"),
        (GOOD + "u\tz\tnoon\n", "line 4", "'timestamp' is not a time: 'noon' (accepted are a number of data.time_unit"),
        (GOOD + "u\tz\tnan\n", "line 4", ": 'nan'"),
        (GOOD + "u\tz\t1e300\n", "line 4", ": '1e300'"),
        (GOOD.replace("user_id:token", "user_id"), "line 1", "'user_id' lacks its type"),
        (GOOD.replace("user_id", "who"), "line 1", "no field 'user_id'; it has who, item_id, timestamp"),
        (GOOD.replace("timestamp:float", "item_id:float"), "line 1", "names 'item_id' twice"),
        ("", "a.inter", "is empty"),
    ],
)
def test_malformed_interactions_name_file_and_line(tmp_path, text, where, what):
    path = write(tmp_path / "a.inter", text)
    with pytest.raises(DataError) as error:
        read_all("recbole", tmp_path)
    assert str(path) in str(error.value)
    assert where in str(error.value)
    assert what in str(error.value)


def test_bytes_that_are_not_utf8_name_the_line(tmp_path):
    (tmp_path / "a.inter").write_bytes(GOOD.encode() + b"u\t\xe9\t3\n")
    with pytest.raises(DataError, match=r"a\.inter, line 4: not UTF-8 text: '\\\\xe9'"):
        read_all("recbole", tmp_path)


def test_an_item_described_twice_is_an_error(tmp_path):
    write(tmp_path / "raw" / "a.inter", GOOD)
    write(tmp_path / "raw" / "a.item", ITEMS + "7\t\tother\n")
    with pytest.raises(DataError, match="item '7' is described a second time in line 5"):
        prepare(DataConfig(path=str(tmp_path / "raw"), k_core=0), tmp_path / "prepared")


@pytest.mark.parametrize("cut", [5, 40, -4])
def test_a_cut_gzip_file_is_an_error(tmp_path, cut):
    path = write(tmp_path / "a.inter.gz", GOOD * 20)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.inter\.gz: damaged gzip file"):
        read_all("recbole", tmp_path)


def test_missing_and_ambiguous_files(tmp_path):
    with pytest.raises(DataError, match="nowhere' does not exist"):
        read_all("recbole", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no \.inter or \.inter\.gz file"):
        read_all("recbole", tmp_path)
    write(tmp_path / "a.inter", GOOD)
    write(tmp_path / "b.inter.gz", GOOD)
    with pytest.raises(DataError, match=r"several \.inter files: a\.inter, b\.inter\.gz"):
        read_all("recbole", tmp_path)
    write(tmp_path / "c.item", ITEMS)
    assert len(read_all("recbole", tmp_path / "a.inter")[1]) == 3  # the only .item file there is
    write(tmp_path / "d.item", ITEMS)
    with pytest.raises(DataError, match=r"several \.item files: c\.item, d\.item"):
        read_all("recbole", tmp_path / "a.inter")
    write(tmp_path / "a.item", atomic(("item_id:token", "title:token_seq"), ("7", "own")))
    assert read_all("recbole", tmp_path / "a.inter")[1]["title"].to_list() == ["own"]
