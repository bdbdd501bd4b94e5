"""Titles as items: unique, ended, cut at the limit, in a stated way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_worlds import dataset_of
from tests.text_worlds import TITLES, made_titles, small_tokenizer, small_tokenizer_folder, title_catalog
from wpauc_jax.catalog import Catalog, build_catalog, build_trie
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError


def texts(catalog: Catalog) -> list[str]:
    return [small_tokenizer().decode(row) for row in catalog.sequences()]


def test_titles_are_numbered_cut_and_ended_as_stated():
    catalog = title_catalog()
    assert texts(catalog) == [
        " Red Garden Hose\n",
        " Garden\n",
        " Garden Hose (1)\n",
        " Garden Hose (2)\n",  # its own title: the number is passed over for the others
        " Garden Hose (3)\n",
        " Blue Pump\n",
        " Garden Hose (4)\n",
        " Blue Pump, 3/8 inch, for the garden (1)\n",
        " Blue Pump, 3/8 inch, for the garden (2)\n",
        " <|end|>\n",
        " Pump <|start|>user\n",
        " Café 東京都渋谷\n",  # cut at the border of a character
        " id12\n",
        " item 12\n",
    ]
    assert catalog.report() == {
        "items": 14,
        "vocab_size": small_tokenizer().size,
        "longest": 17,
        "titles_cut": 3,
        "repairs": 5,
        "duplicates": 3,
        "largest_group": 3,
    }


def test_the_end_of_a_chat_answer_is_the_tokenizers_own():
    tokenizer = small_tokenizer()
    rows = title_catalog(style="chat").sequences()
    assert {row[-1] for row in rows} == {tokenizer.eos}
    assert all(tokenizer.eos not in row[:-1] for row in rows), "a title that spells a special token is text"
    assert [row[:-1] for row in rows] == [row[:-1] for row in title_catalog().sequences()]


title_lists = st.lists(st.sampled_from([*TITLES, *made_titles(20)]), min_size=1, max_size=30)


@settings(deadline=None)
@given(title_lists, st.integers(9, 20))
def test_no_title_equals_or_begins_another(titles, limit):
    catalog = title_catalog(titles, max_tokens=limit)
    rows = [tuple(row) for row in catalog.sequences()]
    assert len(set(rows)) == len(titles)
    assert max(map(len, rows)) <= limit + 1
    for one in rows:
        assert one[-1] == catalog.end and catalog.end not in one[:-1]
    assert build_trie(rows).num_items == len(titles)  # refuses prefixes
    numbered = sum(row.endswith(")\n") and " (" in row for row in texts(catalog))
    assert numbered >= catalog.repairs
    assert catalog.duplicates == catalog.repairs - len({tuple(r) for r in _groups(titles, limit)})


def _groups(titles, limit):
    """The cut titles that more than one item has."""
    plain = [" ".join((title or f"id{i}").split()) for i, title in enumerate(titles)]
    cut = [tuple(_cut(tokens, limit)) for tokens in small_tokenizer().encode([" " + line for line in plain])]
    return {tokens for tokens in cut if cut.count(tokens) > 1}


def _cut(tokens, limit):
    kept = tokens[:limit]
    while len(kept) < len(tokens) and small_tokenizer().decode(kept).endswith("\ufffd"):
        kept = kept[:-1]
    return kept


def test_a_catalogue_of_titles_survives_its_file(tmp_path):
    catalog = title_catalog()
    catalog.save(tmp_path / "catalog.npz")
    loaded = Catalog.load(tmp_path / "catalog.npz")
    assert loaded.sequences() == catalog.sequences()
    assert (loaded.end, loaded.cut, loaded.level_sizes) == (catalog.end, 3, ())


def test_settings_that_make_no_catalogue_of_titles():
    dataset = dataset_of([5], num_items=20)
    config = CatalogConfig(ids="title")
    with pytest.raises(ConfigError, match=r"needs a tokenizer: set model\.pretrained or catalog\.tokenizer"):
        build_catalog(config, dataset)
    with pytest.raises(ConfigError, match="this data set has none"):
        build_catalog(config, dataset, small_tokenizer(), end=0)
    with pytest.raises(ConfigError, match="max_title_tokens=3 has no room for a title and the number 1"):
        title_catalog(["Garden Hose", "Garden Hose"], max_tokens=3)


def test_semantic_ids_stand_behind_the_tokenizers_vocabulary():
    dataset, tokenizer = dataset_of([12] * 30, num_items=40), small_tokenizer()
    config = CatalogConfig(embedding="cooccurrence", embedding_width=4, levels=2, codes=4)
    plain, inside = build_catalog(config, dataset), build_catalog(config, dataset, tokenizer, end=tokenizer.newline)
    shift = tokenizer.size - plain.first_code
    assert inside.sequences() == [[code + shift for code in row] + [tokenizer.newline] for row in plain.sequences()]
    assert inside.vocab_size == plain.vocab_size + shift
    assert (inside.repairs, inside.duplicates) == (plain.repairs, plain.duplicates)
    assert inside.first_code == tokenizer.size


def test_tokenizers_that_cannot_serve_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer in '/no/such/folder'"):
        Tokenizer("/no/such/folder")
    with pytest.raises(ConfigError, match=f"no tokenizer in '{tmp_path}'"):
        Tokenizer(str(tmp_path))


def test_a_tokenizer_is_known_by_its_content(tmp_path):
    folder = small_tokenizer_folder()
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert Tokenizer(str(tmp_path)).fingerprint == small_tokenizer().fingerprint
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace("<|start|>", "<|begin|>"))
    assert Tokenizer(str(tmp_path)).fingerprint != small_tokenizer().fingerprint


def test_encoding_is_the_tokenizers_own_and_decodes_back():
    tokenizer = small_tokenizer()
    for text in (" Garden Hose", "Café Zürich 東京", "a <|end|> b"):
        (tokens,) = tokenizer.encode([text])
        assert tokenizer.decode(tokens) == text
    assert tokenizer.bos == ()
    assert np.shape(tokenizer.encode(["\n"])) == (1, 1)
