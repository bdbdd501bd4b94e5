"""Amazon, Yelp, sequences, tables and detection: small files written by hand, and what each refuses."""

import datetime
import json

import polars as pl
import pytest

from tests.data_worlds import atomic, inter, read_all, write
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError, ReadOptions, detect
from wpauc_jax.data.sources.jsonlines import as_text
from wpauc_jax.data.tables import REST


def triples(interactions):
    return interactions.select("user", "item", "time").rows()


def described(items):
    return items.select("item", "title", "text").rows()


def lines(*objects) -> str:
    return "".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in objects)


def old_review(user, item, time, **more):
    return {
        "overall": 5.0,
        "reviewerID": user,
        "asin": item,
        "reviewText": 'Good,\n"very"',
        "unixReviewTime": time,
    } | more


def new_review(user, item, time, **more):
    fields = {"rating": 4.0, "title": "ok", "asin": "B0VARIANT1", "parent_asin": item, "user_id": user}
    return fields | {"timestamp": time, "verified_purchase": True} | more


META_2014 = lines(
    "{'asin': '0001', 'title': \"Kids' rope, 3 m\", 'brand': 'Acme', 'categories': [['Toys', 'Outdoor'], ['Gifts']], "
    "'price': 3.5, 'related': {'also_bought': ['0002']}}",
    "{'asin': '0002', 'description': 'No title here'}",
)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("core", ["", "_5"])
def test_amazon_2014_has_metadata_in_python_literals(tmp_path, suffix, core):
    path = write(
        tmp_path / f"reviews_Toys{core}.json{suffix}",
        lines(old_review("A1", "0001", 1390000000), old_review("A2", "0002", 1380000000), ""),
    )
    write(tmp_path / f"meta_Toys.json{suffix}", META_2014)
    for source, place in (("amazon", path), ("auto", path), ("auto", tmp_path)):
        interactions, items, raw = read_all(source, place)
        assert triples(interactions) == [("A1", "0001", 1390000000), ("A2", "0002", 1380000000)]
        assert described(items) == [
            ("0001", "Kids' rope, 3 m", "Kids' rope, 3 m. Acme. Toys Outdoor Gifts"),
            ("0002", None, "No title here"),
        ]
        assert raw.time_unit == "s"


def test_amazon_2018_repeats_items_and_holds_entities(tmp_path):
    write(
        tmp_path / "Office_5.json.gz",
        lines(old_review("A1", "B1", 5), old_review("A1", "B2", 6), old_review("A1", "B3", 7)),
    )
    write(
        tmp_path / "meta_Office.json.gz",
        lines(
            {
                "asin": "B1",
                "title": "Pen &amp; ink  &quot;blue&quot;",
                "brand": "",
                "description": ["Fine.", "Dry &lt;fast&gt;"],
            },
            {"asin": "B2", "title": '<span class="a-size">Loading', "category": ["Office"]},
            {"asin": "B1", "title": "another description of the first"},
        ),
    )
    dataset = prepare(DataConfig(path=str(tmp_path), k_core=0), tmp_path / "prepared")
    assert dataset.item_ids == ["B1", "B2", "B3"]
    assert dataset.titles == ['Pen & ink "blue"', '<span class="a-size">Loading', ""]
    assert dataset.texts[0] == 'Pen & ink "blue". Fine. Dry <fast>'


def test_amazon_2023_goes_by_parent_and_milliseconds(tmp_path):
    write(
        tmp_path / "All_Beauty.jsonl",
        lines(new_review("AE1", "P1", 1588687728923), new_review("AE1", "P2", 1588687728001)),
    )
    write(
        tmp_path / "meta_All_Beauty.jsonl.gz",
        lines(
            {
                "parent_asin": "P1",
                "title": "Soap",
                "store": "S",
                "features": ["Mild"],
                "categories": [],
                "description": [],
            }
        ),
    )
    interactions, items, raw = read_all("auto", tmp_path)
    assert triples(interactions) == [("AE1", "P1", 1588687728923), ("AE1", "P2", 1588687728001)]
    assert described(items) == [("P1", "Soap", "Soap. S. Mild")]
    assert raw.time_unit == "ms"
    config = DataConfig(path=str(tmp_path), k_core=0, start="2020-05-05", end="2020-05-06")
    with pytest.raises(DataError, match="no user has 3"):  # both rows lie in the window, and are too few
        prepare(config, tmp_path / "prepared")


def test_amazon_ambiguous_or_absent(tmp_path):
    with pytest.raises(DataError, match="holds no file of reviews"):
        read_all("amazon", tmp_path)
    write(tmp_path / "meta_A.json", META_2014)
    write(tmp_path / "A.json", lines(old_review("u", "i", 1)))
    write(tmp_path / "B.jsonl", lines(old_review("u", "i", 1)))
    with pytest.raises(DataError, match=r"several files of reviews: A\.json, B\.jsonl"):
        read_all("amazon", tmp_path)
    write(tmp_path / "meta_A.jsonl.gz", META_2014)
    with pytest.raises(DataError, match=r"metadata of .*A\.json may be meta_A\.json or meta_A\.jsonl\.gz"):
        read_all("amazon", tmp_path / "A.json")
    with pytest.raises(
        DataError, match=r"meta_A\.json, line 1: not an Amazon review, which has reviewerID, .*: .*0001"
    ):
        read_all("amazon", tmp_path / "meta_A.json")


BAD_REVIEWS = [
    ("{'reviewerID': __import__('os').getcwd(), 'asin': 'i', 'unixReviewTime': 1}", "not a JSON object"),
    ('{"reviewerID": "u", "asin": "i", "unixReviewTime"', "not a JSON object"),
    ("[1, 2]", "not a JSON object"),
    ("[" * 100_000, "not a JSON object"),
    (json.dumps({"asin": "i", "unixReviewTime": 1}), "no value for 'reviewerID'"),
    (json.dumps(old_review("", "i", 1)), "no value for 'reviewerID'"),
    (json.dumps(old_review("u", None, 1)), "no value for 'asin'"),
    (json.dumps(old_review(["u"], "i", 1)), "'reviewerID' is no text and no number"),
    (json.dumps(old_review("u", {"x": 1}, 1)), "'asin' is no text and no number"),
    (json.dumps(old_review("u", True, 1)), "'asin' is no text and no number"),
    (json.dumps(old_review("u", "i", "noon")), "'unixReviewTime' is not a time"),
    (json.dumps(old_review("u", "i", None)), "no value for 'unixReviewTime'"),
    (json.dumps(old_review("u", "i", 1e300)), "'unixReviewTime' is not a time"),
    (json.dumps(old_review("u", "i", 10**30)), "'unixReviewTime' is not a time"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_REVIEWS)
def test_a_bad_review_is_an_error_with_its_line_or_a_counted_skip(tmp_path, bad, reason):
    good = [old_review("u", f"i{n}", n) for n in range(4)]
    path = write(tmp_path / "A.json", lines(good[0], good[1], bad, *good[2:]))
    with pytest.raises(DataError) as error:
        read_all("amazon", path)
    assert f"A.json, line 3: {reason}: " in str(error.value)
    assert len(str(error.value)) < 400
    interactions, _, raw = read_all("amazon", path, bad_rows="skip")
    assert triples(interactions) == [("u", f"i{n}", n) for n in range(4)]
    assert raw.rejects.counts == {reason: 1}
    assert "A.json, line 3: " in raw.rejects.first[reason]


def test_numbers_as_ids_and_text_as_times_are_read(tmp_path):
    path = write(
        tmp_path / "A.json",
        lines(old_review(7, "i", "12"), old_review("u", 8, 1.5), old_review("v", "j", "2014-01-01")),
    )
    interactions, _, _ = read_all("amazon", path)
    assert triples(interactions) == [("7", "i", 12), ("u", "8", 1), ("v", "j", 1388534400)]
    assert interactions[REST].to_list() == [0, 500_000_000, 0]


def test_yelp(tmp_path):
    reviews = lines(
        {"review_id": "r", "user_id": "_u1", "business_id": "-b1", "stars": 4.0, "date": "2018-07-07 22:09:11"},
        {"review_id": "s", "user_id": "true story", "business_id": "b2", "stars": 1.0, "date": "1969-12-31 23:59:59"},
    )
    businesses = lines(
        {
            "business_id": "-b1",
            "name": "Café  One",
            "address": "1 Main St, Ste 2",
            "city": "Reno",
            "state": "NV",
            "categories": "Food, Bars",
        },
        {"business_id": "b2", "name": "Two", "address": "Reno", "city": "Reno", "state": "", "categories": None},
        {"business_id": "b3", "name": ""},
    )
    write(tmp_path / "yelp_academic_dataset_review.json", reviews)
    with pytest.raises(DataError, match=r"it has no yelp_academic_dataset_business\.json"):
        read_all("yelp", tmp_path)
    write(tmp_path / "yelp_academic_dataset_business.json.gz", businesses)
    interactions, items, _ = read_all("auto", tmp_path)
    assert triples(interactions) == [("_u1", "-b1", 1531001351), ("true story", "b2", -1)]
    assert described(items) == [
        ("-b1", "Café One (1 Main St, Ste 2, Reno, NV)", "Café One (1 Main St, Ste 2, Reno, NV). Food, Bars"),
        ("b2", "Two (Reno)", "Two (Reno)"),
        ("b3", None, None),
    ]
    write(tmp_path / "yelp_academic_dataset_review.json", reviews.replace("2018-07-07 22:09:11", "2018-07-32"))
    with pytest.raises(DataError, match=r"review\.json, line 1: 'date' is not a time"):
        read_all("yelp", tmp_path)


@pytest.mark.parametrize(
    "text",
    ["1 10 11 10\n2 12\n", "1 10\n1 11\n2 12\n1 10\n", "1\t10\t11\n\n2 12 \n1 10\r\n"],
    ids=["S3-Rec", "SASRec", "mixed"],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_sequences(tmp_path, text, suffix):
    path = write(tmp_path / f"Beauty.txt{suffix}", text)
    interactions, items, raw = read_all("auto", path)
    assert sorted(triples(interactions)) == [("1", "10", 0), ("1", "10", 2), ("1", "11", 1), ("2", "12", 0)]
    assert items is None
    assert raw.time_unit == "order"
    dataset = prepare(DataConfig(path=str(path), k_core=0), tmp_path / "prepared")
    assert [dataset.item_ids[item] for item in dataset.item] == ["10", "11", "10", "12"]


def test_sequences_have_no_common_time_line(tmp_path):
    path = str(write(tmp_path / "x.txt", "1 2 3 4\n"))
    with pytest.raises(DataError, match="'chronological' needs times"):
        prepare(DataConfig(path=path, k_core=0, split="chronological"), tmp_path / "prepared")
    with pytest.raises(DataError, match=r"data\.start and data\.end need times"):
        prepare(DataConfig(path=path, k_core=0, start="2020-01-01"), tmp_path / "prepared")
    write(tmp_path / "x.txt", "1 2 3 4\n5\n")
    with pytest.raises(DataError, match=r"x\.txt, line 2: a user without an item: '5'"):
        read_all("sequences", tmp_path / "x.txt")
    with pytest.raises(DataError, match="is a folder; set data"):
        read_all("sequences", tmp_path)


NAMES = {
    "user_column": "who",
    "item_column": "what",
    "time_column": "when",
    "title_column": "name",
    "items_path": "items.csv",
}
TABLE = 'when,what,note,who\n20,b,"x, ""y""",U 1\n10,a,,"U,2"\n'
THINGS = 'what,name,colour,weight\na,Apple,red,1\nb,,green,\nc,"Cherry, sour",,2\n'


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(tmp_path, separator):
    path = write(tmp_path / "log.csv", TABLE.replace(",", separator) if separator != "," else TABLE)
    write(tmp_path / "items.csv", THINGS)
    interactions, items, _ = read_all("auto", path, **NAMES)
    user = "U,2".replace(",", separator)
    assert triples(interactions) == [("U 1", "b", 20), (user, "a", 10)]
    assert described(items) == [
        ("a", "Apple", "Apple. red. 1"),
        ("b", None, "green"),
        ("c", "Cherry, sour", "Cherry, sour. 2"),
    ]


def test_csv_without_times_goes_by_rows_and_a_quoted_line_break_is_no_row(tmp_path):
    path = write(tmp_path / "log.csv", 'user_id,item_id,text\nu,b,"one\ntwo"\nu,a,\nv,c,"x\n')
    options = {"time_column": ""}
    with pytest.raises(DataError, match=r"log\.csv, line 5: a quoted field does not end"):
        read_all("tabular", path, **options)
    write(path, 'user_id,item_id,text\nu,b,"one\ntwo"\nu,a,\n')
    interactions, _, _ = read_all("tabular", path, **options)
    assert interactions.select("user", "item").rows() == [("u", "b"), ("u", "a")]
    assert interactions["time"].is_sorted()
    write(path, 'user_id,item_id,text\nu,b,"one\ntwo"\nu,,\n')
    with pytest.raises(DataError, match=r"log\.csv, line 4: no value for 'item_id'"):
        read_all("tabular", path, **options)


@pytest.mark.parametrize(
    "times",
    [
        pl.Series([20, 10], dtype=pl.Int64),
        pl.Series([20, 10], dtype=pl.UInt32),
        pl.Series(["20", "10"]),
        pl.Series([20.0, 10.0]),
        pl.Series([datetime.datetime(1970, 1, 1, 0, 0, s) for s in (20, 10)]),
        pl.Series(["1970-01-01 00:00:20", "1970-01-01T00:00:10"]),
    ],
)
def test_parquet(tmp_path, times):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"when": times, "what": [1, 2], "who": ["u", "v"], "extra": [None, None]}).write_parquet(path)
    things = pl.DataFrame({"what": [2, 1], "name": ["Two", None], "size": [1.5, 2.0]})
    things.write_parquet(tmp_path / "items.parquet")
    interactions, items, raw = read_all("auto", path, **NAMES | {"items_path": "items.parquet"})
    assert triples(interactions) == [("u", "1", 20), ("v", "2", 10)]
    assert described(items) == [("2", "Two", "Two. 1.5"), ("1", None, "2.0")]
    assert set(raw.files) == {"log.parquet", "items.parquet"}


def test_parquet_rows_that_cannot_be_used(tmp_path):
    path = tmp_path / "log.parquet"
    table = {
        "user_id": ["u", None, "", "v"],
        "item_id": ["a", "b", "c", "d"],
        "timestamp": [1.0, 2.0, 3.0, float("nan")],
    }
    pl.DataFrame(table).write_parquet(path)
    with pytest.raises(DataError, match=r"log\.parquet, line 2: no value for 'user_id'"):
        read_all("tabular", path)
    interactions, _, raw = read_all("tabular", path, bad_rows="skip")
    assert triples(interactions) == [("u", "a", 1.0)]
    assert raw.rejects.counts == {"no value for 'user_id'": 2, "'timestamp' is not a time": 1}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"log\.parquet: damaged Parquet file"):
        read_all("tabular", path)


def test_tables_whose_columns_are_not_there(tmp_path):
    path = write(tmp_path / "log.csv", TABLE)
    with pytest.raises(
        DataError, match=r"has no column 'user_id'; it has when, what, note, who; name the columns in data"
    ):
        read_all("tabular", path)
    with pytest.raises(DataError, match="there is no such file"):
        read_all("tabular", path, **NAMES)
    write(tmp_path / "items.csv", "what,colour\n")
    with pytest.raises(
        DataError, match=r"has no column 'name'; it has what, colour; name the columns in .*data\.title_column"
    ):
        read_all("tabular", path, **NAMES)
    write(tmp_path / "items.csv", THINGS)
    write(path, "who,who,what\n")
    with pytest.raises(DataError, match="names a column twice"):
        read_all("tabular", path, **NAMES)


DETECTED = {
    "recbole": {"any.inter": inter([("u", "i", 1)])},
    "amazon": {"X.jsonl": lines(new_review("u", "i", 1))},
    "yelp": {"yelp_academic_dataset_review.json": "{}\n"},
    "minionerec": {"info.txt": "t\t0\n", "train.csv": "user_id,history_item_id,item_id\nu,[0],0\n"},
    "movielens": {"ratings.dat": "1::2::3::4\n", "movies.dat": "2::T::G\n"},
}


@pytest.mark.parametrize("name", DETECTED)
def test_folders_are_detected(tmp_path, name):
    for file, text in DETECTED[name].items():
        write(tmp_path / file, text)
    assert detect(tmp_path, ReadOptions()) == name


FILES = {
    "recbole": atomic(("user_id:token", "item_id:token"), ("u", "i")),
    "amazon": lines(old_review("u", "i", 1)),
    "sequences": "1 2 3\n",
    "tabular": "item_id,user_id\n1,2\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_are_detected_whatever_their_name(tmp_path, name, suffix):
    assert detect(write(tmp_path / f"data{suffix}", FILES[name]), ReadOptions()) == name


def test_an_unknown_format_shows_its_first_line(tmp_path):
    path = write(tmp_path / "data.txt", "Dear diary, \x07 today\nI\n")
    with pytest.raises(DataError, match=r"data\.txt: unknown format; its first line is 'Dear diary, \\x07 today'"):
        read_all("auto", path)
    with pytest.raises(
        DataError, match=r"holds only data\.txt: no table .* Its first file is data\.txt, which begins 'Dear diary"
    ):
        read_all("auto", tmp_path)
    with pytest.raises(DataError, match=r"empty\.txt: the file is empty"):
        read_all("auto", write(tmp_path / "empty.txt", ""))
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"binary, line 1: not UTF-8 text: '\\\\x89PNG"):
        read_all("auto", tmp_path / "binary")
    with pytest.raises(ConfigError, match=r"data\.source='csv' is unknown; choose one of auto, amazon"):
        DataConfig(source="csv")


def test_half_a_surrogate_pair_in_a_text_is_replaced():
    values = ("é\U0001f600", "a\ud800", 7, 1.5, True, None, ["a"])
    assert [as_text(value) for value in values] == ["é\U0001f600", "a\ufffd", "7", "1.5", "", "", ""]
