"""What is taken for what: folders with other files, parts of one table, ratings, tables without a header, settings."""

import gzip
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, inter, read_all, write
from wpauc_jax.config import ConfigError, DataConfig, SyntheticConfig
from wpauc_jax.data.folders import parts_of, visible
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import READERS, DataError, ReadOptions, detect

JUNK = b"\x00\x05\x16\x07Mac OS X\xff\xfe"
ROWS = [(f"u{n % 3}", f"i{n % 4}", 1_500_000_000 + n) for n in range(12)]
HEADER = "user_id,item_id,timestamp\n"


def csv_rows(rows) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def json_rows(rows, names=("user_id", "item_id", "timestamp")) -> str:
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


def triples(found):
    return found.select("user", "item", "time").rows()


FOLDERS = {
    "recbole": {"a.inter": inter(ROWS), "a.item": atomic(("item_id:token", "title:token_seq"), ("i1", "One"))},
    "amazon": {
        "X.jsonl": json_rows(ROWS, ("user_id", "parent_asin", "timestamp")),
        "meta_X.jsonl": '{"parent_asin": "i1", "title": "One"}\n',
    },
    "tabular": {"part-0.csv": HEADER + csv_rows(ROWS)},
    "movielens": {"ratings.dat": "".join(f"{u}::{i}::5::{t}\n" for u, i, t in ROWS), "movies.dat": "i1::One::Drama\n"},
    "minionerec": {
        "train/a.csv": 'user_id,history_item_id,item_id\nu,"[0]",1\n',
        "info/a.txt": "One\t1\nOther\t0\n",
    },
}


@pytest.mark.parametrize("source", FOLDERS)
def test_what_begins_with_a_dot_or_an_underscore_is_no_data(tmp_path, source):
    for name, text in FOLDERS[source].items():
        write(tmp_path / "raw" / name, text)
        path = tmp_path / "raw" / name
        path.with_name(f"._{path.name}").write_bytes(JUNK)
        path.with_name(f"_{path.name}").write_bytes(JUNK)
    (tmp_path / "raw" / ".DS_Store").write_bytes(JUNK)
    (tmp_path / "raw" / "_SUCCESS").touch()
    (tmp_path / "raw" / "__MACOSX").mkdir()
    assert detect(tmp_path / "raw", ReadOptions()) == source
    found, items, _ = read_all("auto", tmp_path / "raw")
    assert len(found) == (2 if source == "minionerec" else 12)
    assert items is None or "One" in items["title"].to_list()


KINDS = {
    "csv": lambda path, rows: write(path, HEADER + csv_rows(rows)),
    "csv.gz": lambda path, rows: write(path, HEADER + csv_rows(rows)),
    "tsv": lambda path, rows: write(path, (HEADER + csv_rows(rows)).replace(",", "\t")),
    "jsonl": lambda path, rows: write(path, json_rows(rows)),
    "json": lambda path, rows: write(path, json_rows(rows)),
    "snappy.parquet": lambda path, rows: pl.DataFrame(
        rows, schema=["user_id", "item_id", "timestamp"], orient="row"
    ).write_parquet(path),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["auto", "tabular"])
def test_a_folder_of_parts_is_one_table_and_what_is_left_aside_is_named(tmp_path, source, kind):
    folder = tmp_path / "raw"
    folder.mkdir()
    names = ["part-2", "part-10", "part-1"]  # read in the order of their numbers
    for name in names:
        KINDS[kind](folder / f"{name}.{kind}", [(f"u{n % 3}", f"{name}-{n}", 1_500_000_000) for n in range(6)])
    for name in ("README.md", "LICENSE", "SHA256SUMS", "notes.txt", "_SUCCESS", f".part-1.{kind}.crc"):
        write(folder / name, "x")
    found, _, raw = read_all(source, folder)
    assert [item for item in found["item"] if item.endswith("-0")] == ["part-1-0", "part-2-0", "part-10-0"]
    assert len(raw.files) == 3
    (note,) = raw.notes
    assert "one table in 3 files" in note and "LICENSE, notes.txt, README.md, SHA256SUMS" in note.replace(
        "LICENSE, README.md, SHA256SUMS, notes.txt", "LICENSE, notes.txt, README.md, SHA256SUMS"
    )


def test_rows_without_times_go_on_from_part_to_part(tmp_path):
    for name, items in {"part-0": "ab", "part-1": "cd", "part-10": "ef"}.items():
        write(tmp_path / "raw" / f"{name}.csv", "user_id,item_id\n" + "".join(f"u,{item}\n" for item in items))
    dataset = prepare(DataConfig(path=str(tmp_path / "raw"), time_column="", k_core=0), tmp_path / "p")
    assert [dataset.item_ids[item] for item in dataset.item] == list("abcdef")


def test_items_in_the_folder_are_no_part_of_it(tmp_path):
    write(tmp_path / "part-0.csv", HEADER + csv_rows(ROWS))
    write(tmp_path / "items.csv", "item_id,title\ni1,One\n")
    with pytest.raises(DataError, match=r"these are no parts of one table; set data\.path .*data\.items_path"):
        read_all("tabular", tmp_path)
    found, items, _ = read_all("auto", tmp_path, items_path="items.csv")
    assert len(found) == 12 and items["title"].to_list() == ["One"]
    (tmp_path / "items.csv").unlink()
    for number in range(2):
        write(tmp_path / "items" / f"part-{number}.csv", f"item_id,title\ni{number},T{number}\n")
    _, items, _ = read_all("auto", tmp_path, items_path="items")
    assert items["title"].to_list() == ["T0", "T1"]


def test_folders_that_hold_no_table_or_several(tmp_path):
    with pytest.raises(DataError, match="holds no file; set"):
        read_all("auto", tmp_path)
    write(tmp_path / "inner" / "a.csv", HEADER)
    with pytest.raises(DataError, match=r"holds no file, only folders \(inner\)"):
        read_all("auto", tmp_path)
    write(tmp_path / "README.md", "x")
    with pytest.raises(DataError, match=r"holds only README\.md, inner/: no table"):
        read_all("tabular", tmp_path)
    write(tmp_path / "a.csv", HEADER + csv_rows(ROWS))
    write(tmp_path / "dataset_info.json", "{}")  # says something of the table
    assert len(read_all("auto", tmp_path)[0]) == 12
    assert parts_of(tmp_path)[1] == ["README.md", "dataset_info.json", "inner/"]
    write(tmp_path / "b.jsonl", json_rows(ROWS))
    with pytest.raises(DataError, match=r"tables of several kinds: a\.csv, b\.jsonl"):
        read_all("tabular", tmp_path)
    assert [path.name for path in visible(tmp_path)] == ["README.md", "a.csv", "b.jsonl", "dataset_info.json"]


def test_parts_of_amazons_reviews(tmp_path):
    names = ("user_id", "parent_asin", "timestamp")
    for number in range(2):
        write(tmp_path / f"part-0000{number}.jsonl", json_rows(ROWS[number * 6 : number * 6 + 6], names))
    assert detect(tmp_path, ReadOptions()) == "amazon"
    assert triples(read_all("auto", tmp_path)[0]) == ROWS


RATING = st.sampled_from(["1", "3", "5", "4.5"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 999), RATING), min_size=3, max_size=20),
    st.sampled_from(["\t", " "]),
    st.sampled_from([1, 1000]),
    st.booleans(),
)
def test_ratings_are_never_read_as_sequences(tmp_path_factory, rows, sign, scale, rated):
    """u.data and its like, whatever stands between the fields: refused, or read by the numbers of the columns."""
    folder = tmp_path_factory.mktemp("ratings")
    lines = [
        (str(u), str(i), *([r] if rated else []), str((881_250_949 + n) * scale)) for n, (u, i, r) in enumerate(rows)
    ]
    path = write(folder / "u.data", "".join(sign.join(line) + "\n" for line in lines))
    for source in ("auto", "sequences"):
        with pytest.raises(DataError, match=r"u\.data: (every line has|unknown format)"):
            read_all(source, path)
    count = len(lines[0])
    columns = {"user_column": "1", "item_column": "2", "time_column": str(count)}
    found, _, raw = read_all("auto", path, time_unit="s" if scale == 1 else "ms", **columns)
    assert triples(found) == [(line[0], line[1], int(line[-1])) for line in lines]
    assert "no header; columns count from 1, so that the first row is user" in raw.notes[0]


def test_what_may_be_ratings_is_asked_and_what_cannot_is_read(tmp_path):
    same = write(tmp_path / "a.txt", "".join(f"{u} {i} {i % 5}\n" for u in range(3) for i in range(9)))
    with pytest.raises(DataError, match=r"users have several lines: .* first line is '0 0 0'.*data\.source=sequences"):
        read_all("auto", same)
    assert len(read_all("sequences", same)[0]) == 54  # who says so is believed
    for text in ("1 10 11 10\n2 12\n", "1 10\n1 11\n2 12\n", "7 21 22\n"):
        assert detect(write(tmp_path / "b.txt", text), ReadOptions()) == "sequences"
    with pytest.raises(DataError, match=r"c\.txt, line 1: this is a header: 'user_id item_id'"):
        read_all("sequences", write(tmp_path / "c.txt", "user_id item_id\n1 2\n"))


BARE = [("B1", "A1", "5.0", "1500000000"), ("B2", "A1", "4.0", "1500000001")]  # item, user, rating, time
NUMBERS = {
    "from 0": {"user_column": "1", "item_column": "0", "time_column": "3"},
    "from 1": {"user_column": "2", "item_column": "1", "time_column": "4"},
}


@pytest.mark.parametrize("base", NUMBERS)
@pytest.mark.parametrize("sign", [",", "\t", ";", "|", "::"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tables_without_a_header_are_read_by_numbers(tmp_path, base, sign, suffix):
    path = write(tmp_path / f"r.csv{suffix}", "".join(sign.join(row) + "\n" for row in BARE))
    found, _, raw = read_all("auto", path, **NUMBERS[base])
    assert triples(found) == [("A1", "B1", 1500000000), ("A1", "B2", 1500000001)]
    assert f"columns count {base}, so that the first row is user 'A1', item 'B1', time '1500000000'" in raw.notes[0]
    with pytest.raises(DataError, match=r"unknown format; its first line is .*data\.source=tabular with the numbers"):
        read_all("auto", path)


def test_numbers_of_columns_that_cannot_be(tmp_path):
    path = write(tmp_path / "r.csv", csv_rows(BARE))
    for names, message in [
        ({"user_column": "1", "item_column": "asin"}, "name both, or give the numbers of both"),
        ({"user_column": "1", "item_column": "2"}, "give data.time_column its number, too"),
        ({"user_column": "1", "item_column": "2", "time_column": "date"}, "give its number, as for the other columns"),
        ({"user_column": "1", "item_column": "2", "time_column": "5"}, "the first line has 4 fields: 'B1,A1,5.0"),
        ({"user_column": "1", "item_column": "1", "time_column": "4"}, "the first line has 4 fields"),
    ]:
        with pytest.raises(DataError, match=message):
            read_all("tabular", path, **names)
    found, _, raw = read_all("tabular", path, user_column="1", item_column="0", time_column="")
    assert found["item"].to_list() == ["B1", "B2"] and raw.time_unit == "rows"
    write(path, HEADER + csv_rows(ROWS))
    with pytest.raises(DataError, match=r"r\.csv, line 1: this is a header: 'user_id,item_id,timestamp'; name"):
        read_all("tabular", path, user_column="1", item_column="2", time_column="3")
    write(path, "0,1,2,3\n" + csv_rows(BARE))  # as pandas writes columns without names
    found, _, raw = read_all("auto", path, **NUMBERS["from 0"])
    assert triples(found)[0] == ("A1", "B1", 1500000000) and "the header is 0, 1, 2" in raw.notes[0]


def test_the_file_of_ratings_finds_its_films_or_says_where_they_belong(tmp_path):
    ratings = write(tmp_path / "ratings.dat", FOLDERS["movielens"]["ratings.dat"])
    with pytest.raises(DataError, match=r"MovieLens needs movies\.dat beside it"):
        read_all("auto", ratings)
    with pytest.raises(DataError, match=r"is not MovieLens: .*both files must lie in one folder"):
        read_all("movielens", ratings)
    write(tmp_path / "movies.dat", FOLDERS["movielens"]["movies.dat"])
    for source in ("auto", "movielens"):
        found, items, _ = read_all(source, ratings)
        assert len(found) == 12 and items["title"].to_list() == ["One"]


OTHER = atomic(
    ("session_id:token", "product_id:token", "date:float", "name:token"),
    ("s", "p1", 1500000000, "x"),
    ("s", "p2", 1500000001, "y"),
)
NAMED = {"user_column": "session_id", "item_column": "product_id", "time_column": "date", "title_column": "name"}


@pytest.mark.parametrize("typed", [False, True])
def test_recboles_fields_go_by_the_names_that_are_set(tmp_path, typed):
    write(tmp_path / "a.inter", OTHER)
    write(tmp_path / "a.item", atomic(("product_id:token", "name:float"), ("p1", "One")))
    types = {"user_column": ":token", "item_column": ":token", "time_column": ":float", "title_column": ":token_seq"}
    names = {setting: name + (types[setting] if typed else "") for setting, name in NAMED.items()}
    found, items, _ = read_all("recbole", tmp_path, **names)
    assert triples(found) == [("s", "p1", 1500000000), ("s", "p2", 1500000001)]
    assert items["title"].to_list() == ["One"]
    for setting, message in [
        ("user_column", "no field 'user_id'; it has session_id, product_id, date, name; name the fields in data"),
        ("time_column", "no field 'timestamp', but 'date': set data.time_column=date, or ''"),
    ]:
        with pytest.raises(DataError, match=message):
            read_all("recbole", tmp_path, **{name: value for name, value in names.items() if name != setting})
    for setting in ("time_column", "title_column"):
        with pytest.raises(DataError, match=rf"no field 'nowhere' \(data\.{setting}\)"):
            read_all("recbole", tmp_path, **names | {setting: "nowhere"})
    assert read_all("recbole", tmp_path, **names | {"time_column": ""})[2].time_unit == "rows"


def test_a_table_with_titles_of_its_own(tmp_path):
    rows = [(*row, f"Film {row[1]}") for row in ROWS]
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp,title\n" + csv_rows(rows))
    said = []
    dataset = prepare(DataConfig(path=str(path), k_core=0), tmp_path / "p", said.append)
    assert dataset.titles == [f"Film i{n}" for n in range(4)] == dataset.texts
    assert any("its column 'title' has the titles" in line for line in said)
    missing = [("u8", "i1", 1_500_000_000, "nan"), ("u9", "i2", 1_500_000_000, "")]
    write(path, "user_id,item_id,timestamp,title\n" + csv_rows([*missing, *rows]))
    assert prepare(DataConfig(path=str(path), k_core=0), tmp_path / "m").titles == dataset.titles
    write(path, "user_id,item_id,timestamp,title\n" + csv_rows([*rows, ("u9", "i1", 1_500_000_000, "Loved it")]))
    with pytest.raises(DataError, match=r"line 14: item 'i1' has the title 'Loved it', and 'Film i1' in line 3; if"):
        prepare(DataConfig(path=str(path), k_core=0), tmp_path / "q")
    assert prepare(DataConfig(path=str(path), k_core=0, title_column=""), tmp_path / "q").titles == [""] * 4


def test_a_name_that_no_table_has(tmp_path):
    path = write(tmp_path / "log.csv", HEADER + csv_rows(ROWS))
    with pytest.raises(DataError, match=r"has no column 'name' \(data\.title_column\)"):
        read_all("tabular", path, title_column="name")
    with pytest.raises(DataError, match="name one column twice: user_id, user_id, timestamp"):
        read_all("tabular", path, item_column="user_id")
    with pytest.raises(DataError, match="it has 'user_id', ' item_id'; name"):
        read_all("tabular", write(path, "user_id, item_id\n1,2\n"), time_column="")


OTHERWISE = {"user_column": "u", "item_column": "i", "time_column": "t", "title_column": "n"}
OTHERWISE |= {"items_path": "x", "time_unit": "ms", "bad_rows": "skip"}


@pytest.mark.parametrize("setting", OTHERWISE)
@pytest.mark.parametrize("source", READERS)
def test_a_setting_that_a_format_does_not_use_is_refused(tmp_path, source, setting):
    write(tmp_path / "x", "x")
    options = {setting: OTHERWISE[setting]} if setting != "bad_rows" else {}
    try:
        read_all(source, tmp_path, "skip" if setting == "bad_rows" else "error", **options)
        raise AssertionError("there is nothing to read")
    except DataError as error:
        is_refused = (
            f"data.{setting}={OTHERWISE[setting]!r} has no use for data.source={source!r}, which is set" in str(error)
        )
        assert is_refused == (setting not in READERS[source].settings)


def test_every_source_has_a_reader():
    choices = DataConfig.__dataclass_fields__["source"].metadata["choices"]
    assert set(choices) == {"auto", "synthetic", *READERS}


def test_settings_of_data_without_times_and_of_drawn_data(tmp_path):
    path = write(tmp_path / "x.txt", "1 2 3 4\n")
    with pytest.raises(DataError, match=r"data\.time_unit='ms' has no use"):
        read_all("auto", path, time_unit="ms")
    with pytest.raises(DataError, match="has no use: these data have no times"):
        read_all("tabular", write(tmp_path / "a.csv", "user_id,item_id\n1,2\n"), time_column="", time_unit="ms")
    small = SyntheticConfig(num_users=9)
    for config, name in [
        (DataConfig(source="synthetic", k_core=0, path="x", synthetic=small), "path"),
        (DataConfig(source="synthetic", k_core=0, time_unit="ms"), "time_unit"),
        (DataConfig(path=str(path), synthetic=small), "synthetic.num_users"),
    ]:
        with pytest.raises(ConfigError, match=rf"data\.{name}=.* has no use for data\.source="):
            prepare(config, tmp_path / "p")


def test_an_error_shows_the_field_at_fault_and_not_the_beginning_of_a_long_line(tmp_path):
    text = "x" * 5000
    path = write(tmp_path / "a.csv", f"note,user_id,item_id,timestamp\n{text},u,i,noon\n")
    with pytest.raises(DataError, match="'timestamp' is not a time: 'noon'") as error:
        read_all("tabular", path)
    assert "xxx" not in str(error.value)
    write(path, f"note,user_id,item_id,timestamp\n{text},u,i,5,more,fields\n")
    with pytest.raises(DataError, match="more than the 4 fields expected: 'more,fields' is too many"):
        read_all("tabular", path)
    path.write_bytes(f"note,user_id,item_id,timestamp\n{text}".encode() + b"\xe9t\xe9,u,i,5\n")
    with pytest.raises(DataError, match=r"not UTF-8 text: '\.\.\.x+\\\\xe9t\\\\xe9'"):
        read_all("tabular", path)
    review = {"reviewText": text, "reviewerID": "u", "asin": "i", "unixReviewTime": 1}
    write(tmp_path / "X.json", json.dumps(review) + "\n" + json.dumps(review | {"unixReviewTime": ["noon"]}) + "\n")
    with pytest.raises(DataError, match=r"'unixReviewTime' is no text and no number: \"\['noon'\]\"") as error:
        read_all("amazon", tmp_path / "X.json")
    write(tmp_path / "X.json", json.dumps(review) + "\n" + json.dumps(review)[:-5] + "\n")
    with pytest.raises(DataError, match=r"X\.json, line 2: not a JSON object: '\.\.\.") as error:
        read_all("amazon", tmp_path / "X.json")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (["1 2 3 1500000000 7", "1 3 4 1500000001 9", "2 2 5 1500000002 8"], 4),
        (["1 2 40 3 1500000000", "2 3 41 4 1500000001"], 5),
        (["1 2 1500000000000 3", "3 3 1500000000001 4"], 3),
    ],
)
def test_a_time_in_any_field_says_that_lines_are_no_sequences(tmp_path, lines, place):
    path = write(tmp_path / "log.txt", "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=rf"number {place} is a time .* data\.time_column={place};"):
        read_all("auto", path)
    with pytest.raises(DataError, match=rf"number {place} is a time"):
        read_all("sequences", path)


def test_one_table_that_lies_there_twice(tmp_path):
    write(tmp_path / "a.csv", HEADER + csv_rows(ROWS))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    with pytest.raises(DataError, match=r"holds a\.csv and a\.csv\.gz, which are one table twice; keep one"):
        read_all("auto", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv.zst", b"\x28\xb5\x2f\xfd\0", "is packed by zstd; unpack it"),
        ("a.csv.bz2", b"BZh91AY\0", "is packed by bzip2"),
        ("a.json", b'[{"user_id": 1}]', "is one JSON array: .*; write one object a line"),
        ("a.csv", HEADER.replace("\n", "\r").encode() + b"u,i,1\r", "lines end in carriage returns alone"),
    ],
)
def test_files_that_are_no_lines_say_what_they_are(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_all("auto", tmp_path / name)


def test_a_copy_that_lies_beside_its_original_is_told(tmp_path):
    for name in ("a.csv", "a (1).csv"):
        write(tmp_path / "parts" / name, HEADER + csv_rows(ROWS))
    said = []
    prepare(DataConfig(path=str(tmp_path / "parts"), k_core=0), tmp_path / "data", said.append)
    assert "warning: a (1).csv, a.csv hold the same bytes, and their rows count more than once" in said
