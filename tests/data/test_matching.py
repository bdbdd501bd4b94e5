"""Titles find their items, or it is said why not."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_worlds import write
from wpauc_jax.config import DataConfig
from wpauc_jax.data.matching import share_with_titles
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError

HEADER = "user_id,item_id,timestamp\n"
WAYS = {
    "without '.0' behind numbers": lambda n: f"{n}.0",
    "without zeros before numbers": lambda n: f"{n:06}",
    "without blanks": lambda n: f" {n}",
}


def described(ids, titles=None):
    return pl.DataFrame(
        {"item": ids, "title": titles or [f"T{one}" for one in ids]}, schema_overrides={"title": pl.String}
    )


@pytest.mark.parametrize("way", WAYS)
@given(st.sets(st.integers(1, 99_999), min_size=1, max_size=30))
def test_ids_that_are_written_in_another_way_are_an_error_that_says_how(way, numbers):
    items, others = [str(n) for n in numbers], [WAYS[way](n) for n in numbers]
    for one, other in ((items, others), (others, items)):
        with pytest.raises(DataError, match=rf"0 of {len(items):,} items \(0.0%\) have a title: .* ids would agree"):
            share_with_titles(pl.Series(one), described(other))


def test_case_of_letters_and_ids_that_nothing_brings_together():
    with pytest.raises(DataError, match="ids would agree in one case of letters"):
        share_with_titles(pl.Series(["A1", "B2"]), described(["a1", "b2"]))
    with pytest.raises(DataError, match="have the items 'x', 'y', the descriptions have 'p', 'q'; write ids alike"):
        share_with_titles(pl.Series(["x", "y"]), described(["p", "q"]))


@given(st.integers(1, 40), st.integers(0, 40))
def test_the_share_is_said_and_below_one_half_it_is_a_warning(known, unknown):
    items = [str(n) for n in range(known + unknown)]
    (line,) = share_with_titles(pl.Series(items), described([*items[:known], "other"]))
    assert f"{known:,} of {known + unknown:,} items ({known / (known + unknown):.1%}) have a title" in line
    assert line.startswith("warning: ") == (2 * known < known + unknown)
    assert not line.startswith("warning: ") or f"the interactions have the items '{known}'" in line


def test_titles_that_are_missing_though_ids_agree():
    items = ["a", "b", "c"]
    assert share_with_titles(pl.Series(items), described(items, [None] * 3)) == [
        "no item has a title, though items are described"
    ]
    (line,) = share_with_titles(pl.Series(items), described(items, ["A", None, None]))
    assert line == "warning: 1 of 3 items (33.3%) have a title; without one are 'b', 'c'"
    assert share_with_titles(pl.Series(items), described([])) == []


def test_preparation_stops_or_says_so(tmp_path):
    path = write(tmp_path / "log.csv", HEADER + "".join(f"u,{n}.0,{1_500_000_000 + n}\n" for n in range(1, 6)))
    write(tmp_path / "items.csv", "item_id,title\n" + "".join(f"{n},T{n}\n" for n in range(1, 6)))
    config = DataConfig(path=str(path), items_path="items.csv", k_core=0)
    with pytest.raises(DataError, match=r"log\.csv: 0 of 5 items .*'1\.0', '2\.0', '3\.0', .* '1', '2', '3'"):
        prepare(config, tmp_path / "p")
    assert not (tmp_path / "p").exists()
    write(tmp_path / "items.csv", "item_id,title\n1.0,One\n2,Two\n")
    said = []
    prepare(config, tmp_path / "p", said.append)
    assert any(line.startswith("warning: 1 of 5 items (20.0%) have a title; the interactions have") for line in said)
