"""Damaged files of every format: an error that names the file, or rows left out and counted; never a traceback.

Each format has a sound file of 40 rows. Hypothesis damages it, in bytes or in fields, and the reader must end in one of
three ways: all rows read; a DataError with the file's name; or, with bad_rows="skip", as many rows lost as counted.
"""

import gzip
import io
import json
import warnings
import zipfile

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, inter, write
from wpauc_jax.config import DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import READERS, DataError, ReadOptions, detect, read
from wpauc_jax.data.sources.movielens import GENRES

ROWS = [(f"u{n % 7}", f"i{n % 5}", 1_000_000 + n) for n in range(40)]


def json_lines(*names):
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS)


def yelp_lines():
    rows = ({"user_id": u, "business_id": i, "date": f"2020-01-01 00:00:{t % 60:02}"} for u, i, t in ROWS)
    return "".join(json.dumps(row) + "\n" for row in rows)


def film_flags(title):
    return "|".join(["i0", title, "", "", "", *["0"] * len(GENRES)]) + "\n"


# source, the file to damage, and the files that stay sound beside it
WORLDS = {
    "amazon 2018": ("amazon", "X.json", json_lines("reviewerID", "asin", "unixReviewTime"), {}),
    "amazon 2023": ("amazon", "X.jsonl", json_lines("user_id", "parent_asin", "timestamp"), {}),
    "amazon metadata": (
        "amazon",
        "meta_X.json",
        "".join(f"{{'asin': 'i{n}', 'title': \"It's {n}\", 'description': ['x']}}\n" for n in range(40)),
        {"X.json": json_lines("reviewerID", "asin", "unixReviewTime")},
    ),
    "yelp": (
        "yelp",
        "yelp_academic_dataset_review.json",
        yelp_lines(),
        {"yelp_academic_dataset_business.json": json.dumps({"business_id": "i1", "name": "One"}) + "\n"},
    ),
    "yelp businesses": (
        "yelp",
        "yelp_academic_dataset_business.json",
        "".join(json.dumps({"business_id": f"i{n}", "name": "One", "city": None}) + "\n" for n in range(40)),
        {"yelp_academic_dataset_review.json": yelp_lines()},
    ),
    "movielens 100k": (
        "movielens",
        "u.data",
        "".join(f"{u}\t{i}\t5\t{t}\n" for u, i, t in ROWS),
        {"u.item": film_flags("One")},
    ),
    "movielens 1m": (
        "movielens",
        "ratings.dat",
        "".join(f"{u}::{i}::5::{t}\n" for u, i, t in ROWS),
        {"movies.dat": "i0::One::Drama\n"},
    ),
    "movielens 25m": (
        "movielens",
        "ratings.csv",
        "userId,movieId,rating,timestamp\n" + "".join(f"{u},{i},5.0,{t}\n" for u, i, t in ROWS),
        {"movies.csv": "movieId,title,genres\ni0,One,Drama\n"},
    ),
    "movielens films": (
        "movielens",
        "movies.csv",
        "movieId,title,genres\n" + "".join(f'i{n},"One, {n}",Drama\n' for n in range(40)),
        {"ratings.csv": "userId,movieId,rating,timestamp\n1,i1,5,7\n"},
    ),
    "recbole": ("recbole", "a.inter", inter(ROWS), {}),
    "recbole items": (
        "recbole",
        "a.item",
        atomic(("item_id:token", "title:token_seq"), *((f"i{n}", f"One {n}") for n in range(40))),
        {"a.inter": inter(ROWS)},
    ),
    "sequences": ("sequences", "x.txt", "".join(f"{u} {i}\n" for u, i, _ in ROWS), {}),
    "tabular": (
        "tabular",
        "x.csv",
        "user_id,item_id,timestamp\n" + "".join(f'"{u}",{i},{t}\n' for u, i, t in ROWS),
        {},
    ),
    "minionerec": (
        "minionerec",
        "train.csv",
        "user_id,history_item_id,item_id\n" + "".join(f'u{n},"[{n % 5}]",{(n + 1) % 5}\n' for n in range(40)),
        {"info.txt": "".join(f"<a_{n}>\tItem {n}\t{n}\n" for n in range(5))},
    ),
    "minionerec info": (
        "minionerec",
        "info.txt",
        "".join(f"<a_{n}>\tItem {n}\t{n}\n" for n in range(40)),
        {"train.csv": 'user_id,history_item_id,item_id\nu,"[0, 1]",2\n'},
    ),
}
STRICT = ("minionerec",)  # their rows hang together: nothing can be left out

WORDS = [
    b"\x00",
    b"\xff\xfe",
    b'"',
    b"'",
    b"\t",
    b",",
    b"::",
    b"\r",
    b"\n",
    b"\n\n",
    b"{",
    b"[[[",
    b"-1",
    b"1e400",
    b"NaN",
]
WORDS += [
    b"null",
    b"true",
    b"9" * 400,
    b"x" * 200_000,
    "\u2028".encode(),
    b"\\ud800",
    b"\xed\xa0\x80",
    b"",
    b"\x1a",
    b" ",
]
place = st.integers(0, 10_000)
damage = st.one_of(
    st.tuples(st.just("insert"), place, st.sampled_from(WORDS)),
    st.tuples(st.just("insert"), place, st.binary(max_size=12)),
    st.tuples(st.just("cut"), place, st.integers(1, 60)),
    st.tuples(st.just("truncate"), place, st.none()),
    st.tuples(st.just("repeat"), place, st.none()),
)


def damaged(content: bytes, harms) -> bytes:
    for kind, where, what in harms:
        where %= len(content) + 1
        if kind == "insert":
            content = content[:where] + what + content[where:]
        elif kind == "cut":
            content = content[:where] + content[where + what :]
        elif kind == "truncate":
            content = content[:where]
        else:  # a line once more
            line = content[content.rfind(b"\n", 0, where) + 1 :].partition(b"\n")[0]
            content = content[:where] + b"\n" + line + b"\n" + content[where:]
    return content


def consume(source, folder, bad_rows):
    """How many rows and items were read, and the rejects."""
    raw = read(source, folder, ReadOptions(), "error" if source in STRICT else bad_rows)
    items = sum(len(block) for block in raw.items)
    interactions = 0
    for block in raw.interactions:
        assert block["user"].null_count() == block["item"].null_count() == block["time"].null_count() == 0
        assert not (block["user"] == "").any() and not (block["item"] == "").any()
        assert block["time"].dtype == pl.Int64
        interactions += len(block)
    return interactions, items, raw.rejects


def records(content: bytes) -> int:
    return sum(bool(line.strip()) for line in content.split(b"\n"))


quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # Python warns of odd escapes in literals
        yield


@pytest.mark.parametrize("name", WORLDS)
@quick
@given(st.lists(damage, min_size=1, max_size=4))
def test_damage_is_an_error_with_the_file_or_a_counted_skip(tmp_path_factory, name, harms):
    source, file, text, others = WORLDS[name]
    folder = tmp_path_factory.mktemp("fuzz")
    for other, sound in others.items():
        write(folder / other, sound)
    whole = damaged(text.encode(), harms)
    (folder / file).write_bytes(whole)
    outcomes = {}
    for policy in ("error", "skip"):
        try:
            outcomes[policy] = consume(source, folder if others else folder / file, policy)
        except DataError as error:
            assert file in str(error)
            assert len(str(error)) < 1000
    if "error" in outcomes:  # nothing was wrong: nothing is left out either
        assert not outcomes["error"][2].counts
        assert outcomes["skip"][:2] == outcomes["error"][:2]
    if "skip" in outcomes and source in ("amazon", "yelp", "sequences"):  # one record a line, whatever stands there
        interactions, items, rejects = outcomes["skip"]
        read_rows = items if file.startswith(("meta_", "yelp_academic_dataset_b")) else interactions
        if source == "sequences":
            read_rows = sum(len(set(line.split())) > 0 for line in whole.split(b"\n")) - rejects.counts.total()
        assert read_rows + rejects.counts.total() == records(whole)


@pytest.mark.parametrize("name", [name for name, world in WORLDS.items() if world[0] not in STRICT])
@quick
@given(st.integers(0, 39), st.sampled_from([b"\xff", b"\x00"]))
def test_one_bad_line_costs_one_row(tmp_path_factory, name, row, sign):
    source, file, text, others = WORLDS[name]
    folder = tmp_path_factory.mktemp("fuzz")
    for other, sound in others.items():
        write(folder / other, sound)
    place = folder if others else folder / file
    (folder / file).write_bytes(text.encode())
    before = consume(source, place, "error")
    lines = text.encode().splitlines(keepends=True)
    row += len(lines) - 40  # headers stay
    if file == "u.item" or (source == "movielens" and file.endswith(".dat") and sign == b"\xff"):
        return  # every byte is latin-1
    if file in ("X.json", "X.jsonl") and row == 0:
        return  # the first review tells which year's layout it is
    middle = len(lines[row]) // 2
    lines[row] = lines[row][:middle] + sign + lines[row][middle:]
    (folder / file).write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=f"{file}, line {row + 1}: "):
        consume(source, place, "error")
    after = consume(source, place, "skip")
    assert sum(before[:2]) - sum(after[:2]) == after[2].counts.total() == 1


@pytest.mark.parametrize("name", WORLDS)
@quick
@given(st.integers(1, 10_000), st.booleans())
def test_a_cut_or_altered_gzip_file_is_an_error_that_names_it(tmp_path_factory, name, where, alter):
    source, file, text, others = WORLDS[name]
    if source == "movielens":
        return  # its archives are zip files; see below
    folder = tmp_path_factory.mktemp("fuzz")
    for other, sound in others.items():
        write(folder / other, sound)
    packed = bytearray(gzip.compress(text.encode(), mtime=0))
    where = 10 + where % (len(packed) - 18)  # behind the header, where every byte counts, and before the checksum
    if alter:
        packed[where] ^= 0x55
    else:
        del packed[where:]
    (folder / f"{file}.gz").write_bytes(packed)
    with pytest.raises(DataError, match=rf"{file}\.gz"):
        consume(source, folder if others else folder / f"{file}.gz", "skip")


@quick
@given(st.integers(0, 10_000), st.sampled_from([0x01, 0x55, 0xFF]))
def test_a_damaged_zip_file_is_an_error_that_names_it(tmp_path_factory, where, bit):
    folder = tmp_path_factory.mktemp("fuzz")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", WORLDS["movielens 1m"][2] * 20)
        archive.writestr("movies.dat", "i0::One::Drama\n")
    content = out.getvalue()
    where %= len(content)
    (folder / "a.zip").write_bytes(content[:where])
    with pytest.raises(DataError, match=r"a\.zip"):
        consume("movielens", folder / "a.zip", "skip")
    (folder / "a.zip").write_bytes(content[:where] + bytes([content[where] ^ bit]) + content[where + 1 :])
    try:
        consume("movielens", folder / "a.zip", "skip")
    except DataError as error:
        assert "a.zip" in str(error)


@pytest.mark.parametrize("source", ["auto", *READERS])
@quick
@given(st.binary(max_size=300))
def test_random_bytes(tmp_path_factory, source, content):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "data").write_bytes(content)
    for path in (folder / "data", folder):
        for policy in ("error", "skip"):
            try:
                consume(source, path, policy)
            except DataError as error:
                assert str(folder) in str(error)


@quick
@given(st.lists(damage, max_size=3), st.sampled_from(sorted(WORLDS)))
def test_what_is_damaged_is_still_detected_or_refused_in_words(tmp_path_factory, harms, name):
    _, file, text, others = WORLDS[name]
    folder = tmp_path_factory.mktemp("fuzz")
    for other, sound in others.items():
        write(folder / other, sound)
    (folder / file).write_bytes(damaged(text.encode(), harms))
    try:
        assert detect(folder, ReadOptions()) in READERS
    except DataError as error:
        assert str(folder) in str(error)


@pytest.mark.parametrize("name", ["amazon 2018", "recbole", "tabular", "sequences"])
@settings(max_examples=10, deadline=None)
@given(st.lists(damage, min_size=1, max_size=3))
def test_preparation_ends_whole_or_leaves_no_directory(tmp_path_factory, name, harms):
    source, file, text, _ = WORLDS[name]
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / file).write_bytes(damaged(text.encode(), harms))
    config = DataConfig(source=source, path=str(folder / file), k_core=2, bad_rows="skip")
    try:
        dataset = prepare(config, folder / "prepared")
        assert len(dataset.item) == dataset.offsets[-1]
    except DataError:
        assert not (folder / "prepared").exists()
