"""MovieLens in each of its layouts."""

import zipfile

import pytest

from tests.data_worlds import read_all, write
from wpauc_jax.data.sources import DataError, ReadOptions, detect
from wpauc_jax.data.sources.movielens import GENRES


def film(item, title, *genres):
    flags = ["1" if name in genres else "0" for name in GENRES]
    return "|".join([item, title, "01-Jan-1995", "", "http://x/", *flags]) + "\n"


LAYOUTS = {
    "100k": {
        "u.data": b"196\t12\t3\t881250949\n22\t1\t1\t878887116\n",
        "u.item": (film("1", "Café (1995)", "Comedy", "Drama") + film("12", "Dark (1990)", "Film-Noir")).encode(
            "latin-1"
        ),
    },
    "1m": {
        "ratings.dat": b"196::12::3::881250949\n22::1::1::878887116\n",
        "movies.dat": "1::Café (1995)::Comedy|Drama\n12::Dark (1990)::Film-Noir\n".encode("latin-1"),
    },
    "10m": {
        "ratings.dat": b"196::12::3.5::881250949\n22::1::1::878887116\n",
        "movies.dat": "1::Café (1995)::Comedy|Drama\n12::Dark (1990)::Film-Noir\n".encode(),
    },
    "25m": {
        "ratings.csv": b"userId,movieId,rating,timestamp\n196,12,3.5,881250949\r\n22,1,1.0,878887116\r\n",
        "movies.csv": 'movieId,title,genres\n1,Café (1995),Comedy|Drama\n12,"Dark (1990)",Film-Noir\n'.encode(),
    },
}


def place(tmp_path, files, form):
    if form == "zip":
        path = tmp_path / "any.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(f"ml/{name}", content)
        return path
    folder = tmp_path / "ml" if form == "nested" else tmp_path
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("form", ["folder", "nested", "zip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path, layout, form):
    path = place(tmp_path, LAYOUTS[layout], form)
    assert detect(path, ReadOptions()) == "movielens"
    interactions, items, raw = read_all("auto", path)
    assert interactions.select("user", "item", "time").rows() == [("196", "12", 881250949), ("22", "1", 878887116)]
    assert items.select("item", "title", "text").rows() == [
        ("1", "Café (1995)", "Café (1995). Comedy Drama"),
        ("12", "Dark (1990)", "Dark (1990). Film-Noir"),
    ]
    assert list(raw.files) == list(LAYOUTS[layout])[::-1]


def test_quotes_hold_commas_and_line_breaks_and_a_film_may_have_no_genre(tmp_path):
    films = 'movieId,title,genres\n1,"He said ""No,\nnever"" (1990)",(no genres listed)\n'
    path = place(tmp_path, LAYOUTS["25m"] | {"movies.csv": films.encode()}, "folder")
    _, items, _ = read_all("movielens", path)
    assert items.select("item", "title", "text").rows() == [
        ("1", 'He said "No,\nnever" (1990)', 'He said "No,\nnever" (1990)')
    ]


@pytest.mark.parametrize(
    ("layout", "name", "more", "message"),
    [
        ("100k", "u.item", b"3|Short|1995\n", r"u\.item, line 3: no value for 'unknown'"),
        ("100k", "u.data", b"1\t2\t3\n", r"u\.data, line 3: no value for 'time'"),
        ("1m", "ratings.dat", b"1::2::3::4::5\n", r"ratings\.dat, line 3: more than the 4 fields"),
        ("1m", "movies.dat", b"3\n", r"movies\.dat, line 3: no value for 'title'"),
        ("25m", "ratings.csv", b"1,2,3,noon\n", r"ratings\.csv, line 4: 'time' is not a time"),
        ("25m", "movies.csv", b"7,a,b,c\n", r"movies\.csv, line 4: more than the 3 fields"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, layout, name, more, message):
    files = LAYOUTS[layout]
    path = place(tmp_path, files | {name: files[name] + more}, "folder")
    with pytest.raises(DataError, match=message):
        read_all("movielens", path)


def test_elsewhere(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_all("movielens", tmp_path / "none.zip")
    with pytest.raises(DataError, match=r"is not MovieLens: it holds none of u\.data and u\.item, ratings\.dat"):
        read_all("movielens", tmp_path)
    with pytest.raises(DataError, match="neither a folder nor a readable zip"):
        read_all("movielens", write(tmp_path / "a.zip", "no zip"))
    path = place(tmp_path, LAYOUTS["25m"] | {"ratings.csv": b"user,movie\n"}, "folder")
    with pytest.raises(DataError, match=r"ratings\.csv, line 1: expected the header 'userId,movieId,rating,timestamp'"):
        read_all("movielens", path)
