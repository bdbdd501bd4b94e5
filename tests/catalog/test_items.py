"""The catalogue: token numbering, repairs, uniqueness, files."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wpauc_jax.catalog import Catalog, build_trie, catalog_from_codes
from wpauc_jax.data.sources import DataError


def sequences(catalog: Catalog) -> list[list[int]]:
    return catalog.sequences()


def test_tokens_count_on_from_level_to_level():
    catalog = catalog_from_codes(np.array([[0, 0], [3, 1], [0, 2]]), [4, 3])
    assert sequences(catalog) == [[3, 7], [6, 8], [3, 9]]
    assert catalog.vocab_size == 3 + 4 + 3
    assert (catalog.repairs, catalog.duplicates, catalog.largest_group) == (0, 0, 1)
    assert catalog.tokens.shape == (3, 2)
    assert catalog.codes_used == (2, 3)


def test_colliding_items_get_a_last_code_in_their_order():
    catalog = catalog_from_codes(np.array([[1, 1], [0, 1], [1, 1], [0, 0], [1, 1], [0, 1]]), [2, 2])
    assert sequences(catalog) == [[4, 6, 7], [3, 6, 7], [4, 6, 8], [3, 5], [4, 6, 9], [3, 6, 8]]
    assert (catalog.repairs, catalog.duplicates, catalog.largest_group) == (5, 3, 3)
    assert catalog.vocab_size == 3 + 2 + 2 + 3
    assert catalog.report() == {
        "items": 6,
        "vocab_size": 10,
        "longest": 3,
        "codes_used": [2, 2],
        "code_perplexity": [2.0, 1.6],  # 3 and 3 of 6; 5 and 1 of 6: exp(.451)
        "repairs": 5,
        "duplicates": 3,
        "largest_group": 3,
    }


def test_an_item_that_begins_another_gets_a_last_code():
    catalog = catalog_from_codes(np.array([[1, -1, -1], [1, 0, -1], [1, 0, 1], [0, -1, -1]]), [2, 1, 2])
    assert sequences(catalog) == [[4, 8], [4, 5, 8], [4, 5, 7], [3]]
    assert (catalog.repairs, catalog.duplicates, catalog.largest_group) == (2, 0, 1)
    assert catalog.vocab_size == 9


code_tables = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=4).map(lambda row: row + [-1] * (4 - len(row))),
    min_size=1,
    max_size=30,
)


@given(code_tables)
def test_no_sequence_equals_or_begins_another(codes):
    catalog = catalog_from_codes(np.array(codes), [3] * 4)
    rows = sequences(catalog)
    for i, one in enumerate(rows):
        assert 3 <= min(one) <= max(one) < catalog.vocab_size
        assert not any(other[: len(one)] == one for j, other in enumerate(rows) if i != j)
    assert build_trie(rows).num_items == len(codes)
    given_codes = [[code for code in row if code >= 0] for row in codes]
    needs = [
        any(i != j and other[: len(one)] == one for j, other in enumerate(given_codes))
        for i, one in enumerate(given_codes)
    ]
    assert [len(row) - len(plain) for row, plain in zip(rows, given_codes, strict=True)] == [int(n) for n in needs]
    assert catalog.repairs == sum(needs)


def test_save_and_load(tmp_path):
    catalog = catalog_from_codes(np.array([[1, -1], [1, 0], [0, 0], [0, 0]]), [2, 1])
    path = tmp_path / "new" / "catalog.npz"
    catalog.save(path)
    loaded = Catalog.load(path)
    for field in dataclasses.fields(Catalog):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(catalog, field.name))
    assert loaded.fingerprint == catalog.fingerprint
    assert loaded.vocab_size == catalog.vocab_size
    assert isinstance(loaded.repairs, int)
    content = path.read_bytes()
    catalog.save(path)
    assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["catalog.npz"]


def test_the_fingerprint_is_of_sequences_and_vocabulary():
    codes = np.array([[1, 0], [0, 1]])
    prints = [
        catalog_from_codes(codes, [2, 2]).fingerprint,
        catalog_from_codes(codes[::-1], [2, 2]).fingerprint,
        catalog_from_codes(codes, [2, 3]).fingerprint,
    ]
    assert len(set(prints)) == 3
    assert catalog_from_codes(codes.astype(np.int64), [2, 2]).fingerprint == prints[0]


def test_a_file_that_is_no_catalogue(tmp_path):
    path = tmp_path / "catalog.npz"
    with pytest.raises(DataError, match=r"catalog\.npz is not a catalog"):
        Catalog.load(path)
    path.write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match="is not a catalog written by"):
        Catalog.load(path)
    np.savez(path, tokens=np.zeros((1, 1)))
    with pytest.raises(DataError, match="is not a catalog written by"):
        Catalog.load(path)


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        (np.zeros((0, 2), int), [2, 2], "not empty"),
        (np.zeros((3, 2), int), [2], r"must be \[items, 1\]"),
        ([[0, 0], [-1, -1]], [2, 2], "item 1 has no code"),
        ([[-1, 0]], [2, 2], "behind a missing one"),
        ([[0, 0], [1, 2]], [2, 2], "item 1 has code 2 at level 1, which has 2"),
    ],
)
def test_codes_that_make_no_catalogue(codes, sizes, message):
    with pytest.raises(ValueError, match=message):
        catalog_from_codes(np.array(codes), sizes)
