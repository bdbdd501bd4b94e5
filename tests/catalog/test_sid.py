"""Semantic ids: embeddings, residual k-means, id files."""

import dataclasses

import numpy as np
import pytest

from tests.data_worlds import atomic, clustered_points, dataset_of, shared, write
from wpauc_jax.catalog import build_catalog
from wpauc_jax.catalog.clustering import residual_kmeans
from wpauc_jax.catalog.embeddings import cooccurrence_embeddings, item_embeddings, text_embeddings
from wpauc_jax.catalog.sid import read_sid
from wpauc_jax.config import CatalogConfig, ConfigError, DataConfig
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError

SMALL = CatalogConfig(codes=4, embedding_width=8)


def test_a_catalogue_is_the_same_each_time_and_follows_its_seed():
    dataset = dataset_of([12] * 60, num_items=120)
    first, again = (build_catalog(SMALL, dataset) for _ in range(2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert build_catalog(dataclasses.replace(SMALL, seed=1), dataset).fingerprint != first.fingerprint
    assert first.level_sizes == (4, 4, 4)
    assert len({tuple(row) for row in first.sequences()}) == 120


@pytest.mark.parametrize("embedding", ["text", "cooccurrence", "text+cooccurrence"])
def test_embeddings_have_rows_of_length_one(embedding):
    dataset = dataset_of([12] * 60, num_items=50)
    rows = item_embeddings(dataclasses.replace(SMALL, embedding=embedding), dataset)
    parts = 1 + embedding.count("+")
    assert rows.shape == (50, 8 * parts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows.reshape(50, parts, 8), axis=2), 1, rtol=1e-5)


def test_items_with_the_same_words_are_near_and_an_item_without_any_is_zero():
    dataset = dataclasses.replace(dataset_of([5], num_items=4), texts=["red pen", "Red pen!", "oak desk", ""])
    rows = text_embeddings(dataset, 2, 0)
    similarity = rows @ rows.T
    assert similarity[0, 1] == pytest.approx(1, abs=1e-5)
    assert abs(similarity[0, 2]) < 1e-5
    assert (rows[3] == 0).all()


def test_cooccurrence_sees_training_alone():
    dataset = dataset_of([12] * 30)
    changed = dataclasses.replace(dataset, item=np.where(dataset.split == 0, dataset.item, 7).astype(np.int32))
    assert (changed.item != dataset.item).any()
    np.testing.assert_array_equal(cooccurrence_embeddings(dataset, 8, 0), cooccurrence_embeddings(changed, 8, 0))


def test_cooccurrence_against_a_loop():
    dataset = dataset_of([14, 9, 4], num_items=12, seed=2)
    counts = np.zeros((12, 12))
    for user in range(3):
        items = dataset.item[dataset.offsets[user] : dataset.offsets[user + 1] - 2]
        for i in range(len(items)):
            for j in range(len(items)):
                if 0 < abs(i - j) <= 5:
                    counts[items[i], items[j]] += 1
    total, rows = counts.sum(), counts.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ppmi = np.nan_to_num(np.maximum(np.log(counts * total / np.outer(rows, rows)), 0), neginf=0)
    norms = np.linalg.norm(ppmi, axis=1, keepdims=True)
    expected = ppmi / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(cooccurrence_embeddings(dataset, 64, 0), expected, atol=1e-6)  # width beyond the rank
    reduced = cooccurrence_embeddings(dataset, 5, 0)
    left, values, _ = np.linalg.svd(ppmi)
    exact = left[:, :5] * values[:5]
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    exact /= np.where(lengths > 1e-8, lengths, np.inf)  # an item that training does not show has only rounding here
    np.testing.assert_allclose(reduced @ reduced.T, exact @ exact.T, atol=1e-4)


def test_the_default_does_without_texts_and_says_so(capsys):
    dataset = dataclasses.replace(dataset_of([5, 9]), texts=[""] * 40)
    rows = item_embeddings(CatalogConfig(), dataset)
    assert "no item has a text" in capsys.readouterr().err
    np.testing.assert_array_equal(rows, item_embeddings(CatalogConfig(embedding="cooccurrence"), dataset))
    item_embeddings(CatalogConfig(), dataclasses.replace(dataset, texts=[*[""] * 39, "red pen"]))
    assert not capsys.readouterr().err


def test_no_texts_says_what_to_use_instead():
    dataset = dataclasses.replace(dataset_of([5]), texts=[""] * 40)
    with pytest.raises(ConfigError, match=r"catalog\.embedding='text' needs texts.*use cooccurrence"):
        build_catalog(dataclasses.replace(SMALL, embedding="text"), dataset)
    with pytest.raises(ConfigError, match="no words"):
        build_catalog(SMALL, dataclasses.replace(dataset, texts=["?!"] * 40))


@pytest.mark.parametrize("embedding", ["words", "text+text", "", "text+"])
def test_an_unknown_embedding_is_named(embedding):
    with pytest.raises(ConfigError, match="is unknown; choose text, cooccurrence"):
        build_catalog(dataclasses.replace(SMALL, embedding=embedding), dataset_of([5]))


def test_embeddings_from_a_file_with_names(tmp_path):
    """Rows go by item id; other items in the file do not matter."""
    dataset, path = dataset_of([5], num_items=60), tmp_path / "rows.npz"
    order = np.random.default_rng(0).permutation(62)
    names, rows = np.array([*dataset.item_ids, "x", "y"]), np.concatenate([clustered_points(), np.ones((2, 6))])
    np.savez(path, item_ids=names[order], embeddings=rows[order])
    config = CatalogConfig(embedding=str(path))
    np.testing.assert_allclose(item_embeddings(config, dataset), clustered_points(), rtol=1e-6)
    for facts, message in [
        ({"item_ids": names[:59], "embeddings": rows[:59]}, "lacks 1 of 60 items, the first is"),
        ({"item_ids": names, "embeddings": rows[:59]}, r"needs floats \[62, width\]"),
        ({"item_ids": names[[0, 0]], "embeddings": rows[:2]}, "names an item twice"),
        ({"embeddings": rows}, "needs item_ids and embeddings"),
    ]:
        np.savez(path, **facts)
        with pytest.raises(ConfigError, match=message):
            item_embeddings(config, dataset)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="cannot be read"):
        item_embeddings(config, dataset)


def test_embeddings_from_a_file(tmp_path):
    dataset, path = dataset_of([5], num_items=60), tmp_path / "rows.npy"
    np.save(path, clustered_points())
    config = dataclasses.replace(SMALL, embedding=str(path), levels=2)
    expected = residual_kmeans(clustered_points(), 2, 4, 0) + np.array([3, 7])
    np.testing.assert_array_equal(build_catalog(config, dataset).tokens[:, :2], expected)
    for rows, message in [
        (np.ones((59, 2)), r"is float64\[59, 2\]; it needs floats \[60, width\]"),
        (np.ones((60, 2), int), "needs floats"),
        (np.where(np.arange(120).reshape(60, 2) == 9, np.nan, 1.0), "row 4 has a value that is not finite"),
        (np.array([{}]), "cannot be read"),
    ]:
        np.save(path, rows, allow_pickle=True)
        with pytest.raises(ConfigError, match=message):
            build_catalog(config, dataset)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        build_catalog(config, dataset)


SID = [
    ("item_id:token", "sid:token_seq"),
    ("b", "<a_9> <b_0>"),
    ("x", "<a_77>"),
    ("a", "<a_10> <b_0> <c_5>"),
    ("c", "<a_9> <b_0>"),
]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_ids_from_a_file(tmp_path, suffix):
    path = write(tmp_path / f"a.sid{suffix}", atomic(*SID))
    codes, names = read_sid(path, ["a", "b", "c"])
    assert codes.tolist() == [[1, 0, 0], [0, 0, -1], [0, 0, -1]]  # a_9 before a_10; x is not asked for
    assert names == [["<a_9>", "<a_10>"], ["<b_0>"], ["<c_5>"]]
    dataset = dataclasses.replace(dataset_of([3], num_items=3), item_ids=["a", "b", "c"])
    catalog = build_catalog(CatalogConfig(ids="file", path=str(path)), dataset)
    assert catalog.sequences() == [[4, 5, 6], [3, 5, 7], [3, 5, 8]]
    assert catalog.repairs == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (SID[:3], r"a\.sid: 2 of 3 items have no sid, the first is 'a'"),
        ([*SID, ("b", "<a_1>")], r"a\.sid, line 6: item_id 'b' appears a second time"),
        ([*SID, ("d", "")], r"a\.sid, line 6: no value for 'sid'"),
        ([*SID[:-1], ("c", "  ")], r"the sid of item 'c' has no token"),
        ([("item_id:token", "codes:token_seq"), *SID[1:]], "no field 'sid'; it has item_id, codes"),
    ],
)
def test_an_id_file_that_does_not_fit(tmp_path, rows, message):
    path = write(tmp_path / "a.sid", atomic(*rows))
    with pytest.raises(DataError, match=message):
        read_sid(path, ["a", "b", "c"])


def test_an_id_file_must_be_given():
    with pytest.raises(ConfigError, match=r"catalog\.path is empty"):
        build_catalog(CatalogConfig(ids="file"), dataset_of([3]))


@pytest.mark.parametrize(("name", "levels", "duplicates"), [("office", 5, 1414), ("yelp", 4, 832)])
def test_published_ids_are_repaired(tmp_path, name, levels, duplicates):
    folder = shared(name)
    dataset = prepare(DataConfig(source="recbole", path=folder), tmp_path / "prepared")
    catalog = build_catalog(CatalogConfig(ids="file", path=f"{folder}/{name}.sid.gz"), dataset)
    assert catalog.duplicates == duplicates
    assert len({tuple(row) for row in catalog.sequences()}) == dataset.num_items
    assert catalog.repairs == np.count_nonzero(catalog.lengths == levels + 1)
