"""The catalog of a work directory: opened again, refused, and made anew where a file is damaged."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.catalog.test_tokenizer import codes_added, last_moves_to
from tests.data_worlds import dataset_of
from tests.text_worlds import changed_tokenizer
from wpauc_jax.catalog import Catalog, catalog_from_codes
from wpauc_jax.catalog.stored import open_catalog
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError
from wpauc_jax.data.errors import DataError

KMEANS = CatalogConfig(embedding="cooccurrence", embedding_width=4, levels=2, codes=3)
DATASET = dataset_of([12] * 30)
FILES = ("catalog.npz", "catalog.json")


def opened(folder, config=KMEANS, tokenizer=None, **options):
    said: list[str] = []
    end = tokenizer.newline if tokenizer else -1
    catalog = open_catalog(config, folder, DATASET, tokenizer, end, said.append, **options)
    return catalog, said


def test_a_catalog_is_built_once_and_reported(tmp_path):
    catalog, said = opened(tmp_path)
    assert said[0] == "building the catalog of item token sequences" and said[1].startswith("catalog: items 40, ")
    again, silence = opened(tmp_path)
    assert again.fingerprint == catalog.fingerprint and not silence
    assert json.loads((tmp_path / "catalog.json").read_text())["report"] == catalog.report()
    with pytest.raises(ConfigError, match=r"was built with catalog\.codes=3, this run has 4"):
        opened(tmp_path, dataclasses.replace(KMEANS, codes=4))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 1, 40, -9])
def test_a_damaged_file_is_made_anew(tmp_path, name, cut):
    catalog, _ = opened(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:cut])
    again, said = opened(tmp_path)
    assert again.fingerprint == catalog.fingerprint
    assert name in said[-1] and "damaged" in said[-1] and said[-1].endswith("it is made anew")
    assert opened(tmp_path)[1] == []


@pytest.mark.parametrize("name", FILES)
def test_what_is_made_anew_must_be_what_was(tmp_path, name):
    opened(tmp_path)
    other = catalog_from_codes(np.arange(40)[:, None], [40])
    if name == "catalog.npz":  # catalog.json knows another catalog
        facts = json.loads((tmp_path / "catalog.json").read_text())
        (tmp_path / "catalog.json").write_text(json.dumps(facts | {"fingerprint": other.fingerprint}))
    else:
        other.save(tmp_path / "catalog.npz")
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"made anew it is another catalog than before; delete catalog\.npz and"):
        opened(tmp_path)


def test_a_catalog_of_another_run_is_refused_but_for_the_doctor(tmp_path):
    opened(tmp_path)
    other = catalog_from_codes(np.arange(40)[:, None], [40])
    other.save(tmp_path / "catalog.npz")
    with pytest.raises(ConfigError, match=r"is another run's, and not the one that catalog\.json describes; delete"):
        opened(tmp_path)
    assert opened(tmp_path, strict=False)[0].fingerprint == other.fingerprint
    catalog_from_codes(np.arange(9)[:, None], [9]).save(tmp_path / "catalog.npz")
    with pytest.raises(ConfigError, match="has 9 items, the data 40: it is another run's; delete"):
        opened(tmp_path)


def as_before(folder):
    """The files as the version before wrote them: without names of codes, without a fingerprint."""
    with np.load(folder / "catalog.npz") as arrays:
        old = {name: arrays[name] for name in arrays.files if name not in ("codes", "code_names", "unknown")}
    np.savez(folder / "catalog.npz", **old)
    facts = json.loads((folder / "catalog.json").read_text())
    del facts["fingerprint"]
    (folder / "catalog.json").write_text(json.dumps(facts))


def test_files_of_the_version_before_open(tmp_path):
    catalog, _ = opened(tmp_path)
    as_before(tmp_path)
    old, said = opened(tmp_path)
    assert not said and old.fingerprint == catalog.fingerprint
    assert (old.code_names, old.codes.tolist(), old.unknown) == (catalog.code_names, catalog.codes.tolist(), 0)


def test_codes_that_collided_before_are_refused(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path / "t", last_moves_to(325))))
    opened(tmp_path, tokenizer=tokenizer)
    codes = np.arange(40)[:, None]
    catalog_from_codes(codes, [40], first_code=320, end=tokenizer.newline).save(tmp_path / "catalog.npz")
    as_before(tmp_path)
    with pytest.raises(ConfigError, match=r"begin at number 320, but .* up to number 325: they would share rows"):
        opened(tmp_path, tokenizer=tokenizer)


def test_reused_codes_are_said_and_kept(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path / "t", codes_added(["<a_1>", "<b_0>"]))))
    catalog, said = opened(tmp_path, tokenizer=tokenizer)
    new = len(catalog.codes) - 2
    assert said[-1].startswith("2 codes are tokens of") and "such as <a_1>" in said[-1]
    assert said[-1].endswith(f"{new} codes are new tokens")
    report = json.loads((tmp_path / "catalog.json").read_text())["report"]
    assert (report["codes_reused"], report["codes_new"]) == (2, new)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    opened(folder)
    return (folder / "catalog.npz").read_bytes()


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_damaged_archive_is_a_catalog_or_one_line(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("damaged") / "catalog.npz"
    place, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    content = bytearray(whole[: data.draw(st.integers(place, len(whole)))])
    content[place : place + 1] = bytes([value])
    path.write_bytes(content)
    try:
        assert Catalog.load(path).num_items == 40
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
