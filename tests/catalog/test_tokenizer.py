"""Tokenizers: numbers with gaps, added tokens of every kind in a text, and codes that are tokens already."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.data_worlds import atomic, dataset_of, write
from tests.text_worlds import (
    TITLES,
    added_token,
    changed_tokenizer,
    made_titles,
    small_tokenizer,
    small_tokenizer_folder,
)
from wpauc_jax.batches.prompts import text_format
from wpauc_jax.catalog import build_catalog, catalog_from_codes
from wpauc_jax.catalog.build import check_codes
from wpauc_jax.catalog.titles import catalog_from_titles, title_tokens
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import CatalogConfig, ConfigError, PromptConfig

SIZE = small_tokenizer().size
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
KMEANS = CatalogConfig(embedding="cooccurrence", embedding_width=4, levels=2, codes=3)


def last_moves_to(number):
    def change(rules):
        vocabulary = rules["model"]["vocab"]
        vocabulary[max(vocabulary, key=vocabulary.get)] = number

    return change


def far_token(rules):
    rules["model"]["vocab"]["<far>"] = 700
    rules["added_tokens"].append(added_token("<far>", 700))


def far_token_of_the_list_alone(rules):
    rules["added_tokens"].append(added_token("<far>", 700))


@pytest.mark.parametrize("change", [last_moves_to(400), far_token, far_token_of_the_list_alone])
def test_no_code_takes_the_number_of_a_token(tmp_path, change):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path / "gaps", change)))
    catalog = build_catalog(KMEANS, dataset_of([12] * 30), tokenizer, end=tokenizer.newline)
    assert set(catalog.codes.tolist()).isdisjoint(tokenizer.vocabulary.values())
    assert catalog.codes.min() == tokenizer.size > max(tokenizer.vocabulary.values())
    numbers = dict(zip(catalog.code_names, catalog.codes.tolist(), strict=True))
    tokenizer.with_codes(numbers).save_pretrained(tmp_path / "export")
    again = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert again.convert_tokens_to_ids(list(numbers)) == list(numbers.values())
    text = "".join(list(numbers)[:3])
    assert again(text + " Garden", add_special_tokens=False).input_ids == [
        *list(numbers.values())[:3],
        *tokenizer.encode([" Garden"])[0],
    ]
    assert {name: again.get_vocab()[name] for name in tokenizer.vocabulary} == tokenizer.vocabulary


def test_a_number_that_loading_changes_is_said(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path, far_token_of_the_list_alone)))
    assert len(tokenizer.remarks) == 1 and "'<far>' the number 700" in tokenizer.remarks[0]
    assert tokenizer.size == 701
    assert small_tokenizer().remarks == []


def test_a_catalog_whose_codes_share_numbers_with_tokens_is_refused(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path, last_moves_to(400))))
    old = catalog_from_codes(np.array([[0], [1]]), [2], first_code=len(tokenizer.vocabulary), end=tokenizer.newline)
    with pytest.raises(ConfigError, match=rf"begin at number {SIZE}, but .* has tokens up to number 400"):
        check_codes(old, tokenizer)


def kinds_of_added(rules):
    """One added token of each mixture of flags, a few that are words of titles, and one that merges build."""
    names = [f"<k{number}>" for number in range(2 ** len(FLAGS))] + ["Garden", " Hose", "Pump <", "a", "é"]
    for name, flags in zip(names, itertools.cycle(itertools.product((False, True), repeat=len(FLAGS))), strict=False):
        number = rules["model"]["vocab"].get(name, SIZE + len(rules["added_tokens"]))
        flags = dict(zip(FLAGS, flags, strict=True))
        rules["added_tokens"].append(
            added_token(name, number, **flags | ({"special": False} if len(name) == 1 else {}))
        )


@pytest.fixture(scope="module")
def many_added(tmp_path_factory):
    return Tokenizer(str(changed_tokenizer(tmp_path_factory.mktemp("added"), kinds_of_added)))


pieces = st.sampled_from(
    ["<k0>", "<k1", "3>", "<k31>", "<k17>", "Garden", " ", "Hose", "Pump", "<", "a", "é", "<|end|>"]
)


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=8).map("".join))
def test_what_spells_an_added_token_is_text(many_added, texts):
    (tokens,) = many_added.encode([texts])
    added = {name: number for name, number in many_added._inner.get_added_vocab().items() if len(name) > 1}
    assert len(added) > 30 and set(added.values()).isdisjoint(tokens)
    whole = texts.replace("\uffff", "\ufffd")
    assert many_added.decode(tokens) == whole
    if not any(name in texts for name in ("Garden", " Hose", "Pump <", "a", "é")):
        assert tokens == small_tokenizer().encode([texts])[0]


def pieces_of(kind):
    """Models that look whole words up, in which a control token stands among the others."""
    words = ["<unk>", "</s>", *"abcdefs</>", "##/", "##s", "##>", "cab"]
    by_number = {word: number for number, word in enumerate(words)}
    if kind == "unigram":
        return models.Unigram([(word, -1.0 if len(word) > 1 else -9.0) for word in words], unk_id=0)
    if kind == "wordpiece":
        return models.WordPiece(by_number, unk_token="<unk>")
    if kind == "wordlevel":
        return models.WordLevel(by_number, unk_token="<unk>")
    return models.BPE(by_number, [], unk_token="<unk>", ignore_merges=True)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "wordlevel", "bpe"])
def test_no_model_gives_a_text_a_control_token(tmp_path, kind):
    backend = Backend(pieces_of(kind))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>").save_pretrained(tmp_path)
    tokenizer = Tokenizer(str(tmp_path))
    assert backend.encode("</s>").ids == [1] and tokenizer.eos == 1
    spelled, word, unknown = tokenizer.encode(["</s>", "a", "?"])
    assert 1 not in spelled and (kind == "wordlevel" or (len(spelled) == 4 and 0 not in spelled))
    assert word == backend.encode("a").ids and unknown == [0] == [tokenizer.unknown]


def test_a_title_that_spells_a_code_is_text(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path, codes_added(["<a_0>", "<b_1>"]))))
    rows = title_tokens(["Hose <a_0><b_1>", "<b_1>"], ["x", "y"], tokenizer)
    assert [tokenizer.decode(row) for row in rows] == [" Hose <a_0><b_1>", " <b_1>"]
    assert max(max(row) for row in rows) < SIZE


def test_texts_have_the_tokens_they_had():
    tokenizer = small_tokenizer()
    texts = [" " + title for title in [*TITLES, *made_titles(200)]] + ["\n", "-", "", "a\r\n b"]
    inner = tokenizer._inner
    assert tokenizer.encode(texts) == inner(texts, add_special_tokens=False, split_special_tokens=True).input_ids


@given(st.text(st.characters(categories=["Cs", "Ll"]), max_size=6))
def test_half_a_character_becomes_a_sign(text):
    tokenizer = small_tokenizer()
    (tokens,) = tokenizer.encode([text])
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokens) == joined


def codes_added(names):
    def change(rules):
        rules["added_tokens"] += [added_token(name, SIZE + place) for place, name in enumerate(names)]

    return change


def test_codes_that_are_tokens_already_are_these(tmp_path):
    dataset = dataset_of([12] * 30)
    plain = build_catalog(KMEANS, dataset, small_tokenizer(), end=small_tokenizer().newline)
    names = list(plain.code_names)
    folder = changed_tokenizer(tmp_path / "all", codes_added(names[::-1]))
    tokenizer = Tokenizer(str(folder))
    catalog = build_catalog(KMEANS, dataset, tokenizer, end=tokenizer.newline)
    assert catalog.vocab_size == catalog.first_code == tokenizer.size == SIZE + len(names)
    assert catalog.codes.tolist() == [SIZE + place for place in range(len(names))][::-1]
    places = [
        [names.index(tokenizer._inner.convert_ids_to_tokens(token)) for token in row[:-1]] for row in rows(catalog)
    ]
    assert places == [[token - SIZE for token in row[:-1]] for row in rows(plain)]
    report = catalog.report()
    assert (report["codes_reused"], report["codes_new"]) == (len(names), 0)
    assert "codes_reused" not in plain.report()
    kept = [place for place in catalog.code_places()[0].tolist() if place >= 0]
    assert kept == places[0]


def rows(catalog):
    return catalog.sequences()


def test_codes_of_which_some_are_tokens_keep_these_and_add_the_others(tmp_path):
    dataset = dataset_of([12] * 30)
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path / "some", codes_added(["<b_2>", "<a_1>"]))))
    catalog = build_catalog(KMEANS, dataset, tokenizer, end=tokenizer.newline)
    numbers = dict(zip(catalog.code_names, catalog.codes.tolist(), strict=True))
    assert (numbers["<b_2>"], numbers["<a_1>"]) == (SIZE, SIZE + 1)
    new = [number for name, number in numbers.items() if name not in ("<b_2>", "<a_1>")]
    assert new == list(range(SIZE + 2, catalog.vocab_size)) and catalog.first_code == SIZE + 2
    assert (catalog.report()["codes_reused"], catalog.report()["codes_new"]) == (2, len(new))
    catalog.save(tmp_path / "catalog.npz")
    loaded = type(catalog).load(tmp_path / "catalog.npz")
    assert (loaded.code_names, loaded.codes.tolist()) == (catalog.code_names, catalog.codes.tolist())


SIDS = [("item_id:token", "sid:token_seq"), ("0", "<a_7> <b_1>"), ("1", "<a_12> <b_1>"), ("2", "<a_12> <b_1>")]


def of_file(tmp_path, table, tokenizer):
    dataset = dataset_of([3], num_items=3)
    dataset.item_ids[:] = ["0", "1", "2"]
    config = CatalogConfig(ids="file", path=str(write(tmp_path / "x.sid", atomic(*table))))
    return build_catalog(config, dataset, tokenizer, end=tokenizer.newline)


def test_a_files_codes_are_named_as_there(tmp_path):
    tokenizer = Tokenizer(str(changed_tokenizer(tmp_path / "t", codes_added(["<a_0>", "<a_12>", "<b_1>", "<c_1>"]))))
    catalog = of_file(tmp_path, SIDS, tokenizer)
    assert catalog.code_names == ("<a_7>", "<a_12>", "<b_1>", "<c_0>", "<c_1>")
    assert catalog.codes.tolist() == [SIZE + 4, SIZE + 1, SIZE + 2, SIZE + 5, SIZE + 3]
    assert [row[:-1] for row in rows(catalog)] == [
        [SIZE + 4, SIZE + 2],
        [SIZE + 1, SIZE + 2, SIZE + 5],
        [SIZE + 1, SIZE + 2, SIZE + 3],
    ]


def test_a_files_words_are_no_tokens_of_the_language(tmp_path):
    table = [SIDS[0], ("0", "7 a"), ("1", "12 a"), ("2", "a a")]
    catalog = of_file(tmp_path, table, small_tokenizer())
    assert catalog.code_names[0] == "<a_0>" and catalog.codes.min() == SIZE


def test_a_code_that_ends_texts_is_refused(tmp_path):
    table = [SIDS[0], ("0", "<|end|> <b_1>"), ("1", "<a_1> <b_1>"), ("2", "<a_2> <b_1>")]
    catalog = of_file(tmp_path, table, small_tokenizer())
    with pytest.raises(ConfigError, match=r"code '<\|end\|>' is the eos_token of the tokenizer"):
        check_codes(catalog, small_tokenizer())


def test_disambiguating_codes_have_a_letter_of_their_own():
    codes = np.array([[0, 0], [0, 0]])
    names = [["<b_0>"], ["<c_0>"]]
    assert catalog_from_codes(codes, [1, 1], names=names).code_names == ("<b_0>", "<c_0>", "<d_0>", "<d_1>")


def words(folder, *, normalizer=None, post=None, **tokens):
    """A tokenizer of whole words: what it does not know is <unk>."""
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<s>", "red", "hose", "-", "Items:", "(1)", "\n", "</s>"])}
    backend = Backend(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    if normalizer:
        backend.normalizer = normalizer
    if post:
        backend.post_processor = post
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)
    return Tokenizer(str(folder))


def of_titles(titles, tokenizer, end):
    ids = [f"id{n}" for n in range(len(titles))]
    return catalog_from_titles(titles, ids, tokenizer, max_tokens=8, end=end)


def test_titles_that_a_tokenizer_makes_alike_are_numbered_or_refused(tmp_path):
    lower = words(tmp_path / "lower", normalizer=normalizers.Lowercase(), eos_token="</s>")
    assert rows(of_titles(["red hose", "hose", "HOSE red"], lower, 8)) == [[2, 3, 8], [3, 8], [3, 2, 8]]
    assert rows(of_titles(["red hose", "RED", "Red Hose (1)"], lower, 8)) == [[2, 3, 8], [2, 8], [2, 3, 6, 8]]
    with pytest.raises(ConfigError, match=r"gives different numbers the same tokens, .* as 'id2'"):
        of_titles(["red", "RED", "Red"], lower, 8)  # (1), then <unk>, then <unk> again
    unknown = of_titles(["red pump", "hose"], lower, 8)
    assert unknown.report()["titles_with_unknown_tokens"] == 1


def test_titles_that_a_tokenizer_strips_bare_go_by_their_ids_or_are_named(tmp_path):
    bare = words(tmp_path, normalizer=normalizers.Replace("x", ""), eos_token="</s>")
    assert rows(of_titles(["xx", "red"], bare, 8)) == [[0, 8], [2, 8]]
    with pytest.raises(ConfigError, match="leaves nothing of the title and the id of item 'xxx'"):
        catalog_from_titles(["xx"], ["xxx"], bare, max_tokens=8, end=8)


def test_an_end_that_spells_the_unknown_is_refused(tmp_path):
    tokenizer = words(tmp_path, eos_token="<unk>")
    with pytest.raises(ConfigError, match="spells the title of item 'id1' with the token that ends an item"):
        of_titles(["red", "blue"], tokenizer, tokenizer.eos)


def test_a_line_end_must_be_known(tmp_path):
    assert words(tmp_path / "known").newline == 7
    stripping = words(tmp_path / "strips", normalizer=normalizers.Strip())
    with pytest.raises(ConfigError, match="no token of its own for a line's end"):
        text_format(PromptConfig(), stripping)
    unknown = words(tmp_path / "unknown", normalizer=normalizers.Replace("\n", "?"))
    with pytest.raises(ConfigError, match="no token of its own for a line's end"):
        _ = unknown.newline


def test_what_a_tokenizer_puts_before_a_text_begins_a_prompt(tmp_path):
    from tokenizers.processors import TemplateProcessing

    both = TemplateProcessing(single="<s> red $A </s>", special_tokens=[("<s>", 1), ("red", 2), ("</s>", 8)])
    assert words(tmp_path / "both", post=both, bos_token="<s>").bos == (1, 2)
    behind = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 8)])
    assert words(tmp_path / "behind", post=behind, bos_token="<s>").bos == ()


def test_code_beside_a_tokenizer_is_neither_run_nor_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    named = {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    for name, config in (("known", named), ("unknown", named | {"tokenizer_class": "Own"})):
        folder = changed_tokenizer(tmp_path / name, config=config)
        write(folder / "own.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    known = Tokenizer(str(tmp_path / "known"))
    assert known.fingerprint == small_tokenizer().fingerprint
    assert "names code of its own (auto_map), which is not run" in known.remarks[0]
    with pytest.raises(ConfigError, match=r"needs code of its own .* which this program does not run") as caught:
        Tokenizer(str(tmp_path / "unknown"))
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


def test_a_token_that_only_the_settings_name_is_refused(tmp_path):
    folder = changed_tokenizer(tmp_path, config={"eos_token": "<stop>"})
    with pytest.raises(ConfigError, match=r"names eos_token='<stop>', a token that tokenizer\.json does not have"):
        Tokenizer(str(folder))


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '"text"', '{"a": ' * 5000, "\ud83d", '{"model": 3}'])
def test_a_damaged_file_is_named(tmp_path, file, content):
    folder = changed_tokenizer(tmp_path / "t")
    (folder / file).write_bytes(content.encode("utf-8", "surrogatepass"))
    if (file, content) == ("tokenizer_config.json", '{"model": 3}'):
        assert Tokenizer(str(folder)).size == SIZE  # without an end: said where one is needed
        with pytest.raises(ConfigError, match="names no eos_token"):
            text_format(PromptConfig(style="chat"), Tokenizer(str(folder)))
        return
    with pytest.raises(ConfigError, match=f"{file} is damaged") as caught:
        Tokenizer(str(folder))
    assert "\n" not in str(caught.value)


def places(value, path=()):
    """Every place in a JSON value, but few of a long list."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in itertools.islice(inside, 12):
        yield from places(part, (*path, key))


RULES = json.loads((small_tokenizer_folder() / "tokenizer.json").read_text())
SETTINGS = json.loads((small_tokenizer_folder() / "tokenizer_config.json").read_text())
WRONG = st.sampled_from([None, 3, -1, 1.5, "", "x", "\ud800", [], [[1]], {}, {"type": "BPE"}, True, 2**70])


def replaced(content, path, value):
    content = json.loads(json.dumps(content))
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return content


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_damage_is_a_tokenizer_or_one_line(tmp_path_factory, data):
    name, content = data.draw(st.sampled_from([("tokenizer.json", RULES), ("tokenizer_config.json", SETTINGS)]))
    path = data.draw(st.sampled_from([place for place in places(content) if place]))
    folder = changed_tokenizer(tmp_path_factory.mktemp("t"))
    write(folder / name, json.dumps(replaced(content, path, data.draw(WRONG))))
    try:
        tokenizer = Tokenizer(str(folder))
        text_format(PromptConfig(), tokenizer)
        text_format(PromptConfig(style="chat"), tokenizer)
        title_tokens(TITLES, TITLES, tokenizer, max_tokens=8)
        assert tokenizer.size > max(tokenizer.vocabulary.values())
    except ConfigError as error:
        assert str(folder) in str(error) and "\n" not in str(error)
