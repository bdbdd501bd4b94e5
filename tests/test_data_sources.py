"""Readers: hand-written files of each format, and an error with file and line for each way to be wrong."""

import zipfile

import pytest
from data_worlds import atomic, inter, write

from wpauc_jax.data.sources import DataError, read_movielens100k, read_recbole
from wpauc_jax.data.sources.movielens import GENRES
from wpauc_jax.data.sources.tables import no_items

ITEMS = atomic(
    ("item_id:token", "price:float", "movie_title:token_seq", "brand:token", "notes:token_seq"),
    ("7", "1.5", 'A "quoted" title', "Ann", "two words"),
    ("b", "", "", "", ""),
    ("9", "2", "Élan", "", "x"),
)


def interactions(raw):
    return raw.interactions.select("user", "item", "time").rows()


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_recbole_folder(tmp_path, suffix):
    header = ("item_id:token", "weight:float", "timestamp:float", "user_id:token")
    text = atomic(header, ("7", "x", "20", "u 1"), ("b", "", "-3", "A02"), ("9", "1", "20", "u 1"))
    write(tmp_path / f"shop.inter{suffix}", text.replace("\n", "\r\n"))
    write(tmp_path / f"shop.item{suffix}", ITEMS)
    raw = read_recbole(tmp_path)
    assert interactions(raw) == [("u 1", "7", 20), ("A02", "b", -3), ("u 1", "9", 20)]
    assert raw.items.rows() == [
        ("7", 'A "quoted" title', 'A "quoted" title. Ann. two words'),
        ("b", None, None),
        ("9", "Élan", "Élan. x"),
    ]
    assert [name for name, _ in raw.files] == [f"shop.inter{suffix}", f"shop.item{suffix}"]


def test_recbole_without_timestamp_takes_the_order_of_lines_and_needs_no_items(tmp_path):
    path = write(tmp_path / "a.inter", atomic(("user_id:token", "item_id:token"), ("2", "1"), (), ("2", "0")))
    raw = read_recbole(path)
    assert interactions(raw) == [("2", "1", 2), ("2", "0", 4)]  # the blank line is skipped and still counted
    assert raw.items.equals(no_items())


def test_fractional_times_keep_their_order(tmp_path):
    write(tmp_path / "a.inter", inter([("u", "x", "1.75"), ("u", "y", "1e0")]))
    assert interactions(read_recbole(tmp_path)) == [("u", "x", 1.75), ("u", "y", 1.0)]


def test_large_whole_times_are_exact(tmp_path):
    write(tmp_path / "a.inter", inter([("u", "x", 2**60 + 1), ("u", "y", 2**60)]))
    assert interactions(read_recbole(tmp_path)) == [("u", "x", 2**60 + 1), ("u", "y", 2**60)]


GOOD = inter([("u", "x", 1), ("u", "y", 2)])


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (GOOD + "u\tz\t3\t4\n", "line 4", "4 fields where 3 are expected: 'u"),
        (GOOD + "u\n", "line 4", "no value for 'item_id'"),
        (GOOD + "\n\t\t\nu\tz\n", "line 6", "no value for 'timestamp'"),
        (GOOD + "u\tz\tnoon\n", "line 4", "'timestamp' is 'noon'"),
        (GOOD + "u\tz\tnan\n", "line 4", "'nan'"),
        (GOOD + "u\tz\t1e300\n", "line 4", "'1e300'"),
        (GOOD.replace("user_id:token", "user_id"), "line 1", "'user_id' lacks its type"),
        (GOOD.replace("user_id", "who"), "line 1", "no field 'user_id'; it has who, item_id, timestamp"),
        (GOOD.replace("timestamp:float", "item_id:float"), "line 1", "names 'item_id' twice"),
        (inter([]), "a.inter", "no interaction"),
        ("", "a.inter", "is empty"),
    ],
)
def test_malformed_interactions_name_file_and_line(tmp_path, text, where, what):
    path = write(tmp_path / "a.inter", text)
    with pytest.raises(DataError) as error:
        read_recbole(tmp_path)
    assert str(path) in str(error.value)
    assert where in str(error.value)
    assert what in str(error.value)


def test_bytes_that_are_not_utf8_name_the_line(tmp_path):
    (tmp_path / "a.inter").write_bytes(GOOD.encode() + b"u\t\xe9\t3\n")
    with pytest.raises(DataError, match=r"a\.inter, line 4: not UTF-8 text: 'u\\t\\\\xe9"):
        read_recbole(tmp_path)


def test_an_item_described_twice_is_an_error(tmp_path):
    write(tmp_path / "a.inter", GOOD)
    write(tmp_path / "a.item", ITEMS + "7\t\tother\n")
    with pytest.raises(DataError, match=r"a\.item, line 5: item_id '7' appears a second time"):
        read_recbole(tmp_path)


@pytest.mark.parametrize("cut", [5, 40, -4])
def test_a_cut_gzip_file_is_an_error(tmp_path, cut):
    path = write(tmp_path / "a.inter.gz", GOOD * 20)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.inter\.gz: damaged gzip file"):
        read_recbole(tmp_path)


def test_missing_and_ambiguous_files(tmp_path):
    with pytest.raises(DataError, match="nowhere' does not exist"):
        read_recbole(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no \.inter or \.inter\.gz file"):
        read_recbole(tmp_path)
    write(tmp_path / "a.inter", GOOD)
    write(tmp_path / "b.inter.gz", GOOD)
    with pytest.raises(DataError, match=r"several \.inter files: a\.inter, b\.inter\.gz"):
        read_recbole(tmp_path)
    write(tmp_path / "c.item", ITEMS)
    assert len(read_recbole(tmp_path / "a.inter").items) == 3  # the only .item file there is
    write(tmp_path / "d.item", ITEMS)
    with pytest.raises(DataError, match=r"several \.item files: c\.item, d\.item"):
        read_recbole(tmp_path / "a.inter")
    write(tmp_path / "a.item", atomic(("item_id:token", "title:token_seq"), ("7", "own")))
    assert read_recbole(tmp_path / "a.inter").items["title"].to_list() == ["own"]


def movielens_files() -> dict[str, bytes]:
    def film(item, title, *genres):
        flags = ["1" if name in genres else "0" for name in GENRES]
        return "|".join([item, title, "01-Jan-1995", "", "http://x/", *flags]) + "\n"

    films = film("1", "Café (1995)", "Comedy", "Drama") + film("12", "Dark (1990)", "Film-Noir")
    return {"u.data": b"196\t12\t3\t881250949\n22\t1\t1\t878887116\n", "u.item": films.encode("latin-1")}


@pytest.mark.parametrize("layout", ["folder", "nested", "zip"])
def test_movielens_official_layout(tmp_path, layout):
    folder = tmp_path / "ml-100k" if layout == "nested" else tmp_path
    folder.mkdir(exist_ok=True)
    path = tmp_path
    if layout == "zip":
        path = tmp_path / "any.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in movielens_files().items():
                archive.writestr(f"ml-100k/{name}", content)
    else:
        for name, content in movielens_files().items():
            (folder / name).write_bytes(content)
    raw = read_movielens100k(path)
    assert interactions(raw) == [("196", "12", 881250949), ("22", "1", 878887116)]
    assert raw.interactions["line"].to_list() == [1, 2]
    assert raw.items.rows() == [
        ("1", "Café (1995)", "Café (1995). Comedy Drama"),
        ("12", "Dark (1990)", "Dark (1990). Film-Noir"),
    ]


def test_movielens_malformed(tmp_path):
    files = movielens_files()
    (tmp_path / "u.item").write_bytes(files["u.item"] + b"3|Short|1995\n")
    (tmp_path / "u.data").write_bytes(files["u.data"])
    with pytest.raises(DataError, match=r"u\.item, line 3: no value for 'unknown'"):
        read_movielens100k(tmp_path)
    (tmp_path / "u.item").write_bytes(files["u.item"])
    (tmp_path / "u.data").write_bytes(files["u.data"] + b"1\t2\t3\n")
    with pytest.raises(DataError, match=r"u\.data, line 3: no value for 'timestamp'"):
        read_movielens100k(tmp_path)


def test_movielens_elsewhere(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_movielens100k(tmp_path / "none.zip")
    with pytest.raises(DataError, match="not MovieLens-100K"):
        read_movielens100k(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        read_movielens100k(write(tmp_path / "a.zip", "no zip"))
