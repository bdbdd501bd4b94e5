"""Each check of splits, population and catalogue finds the fault planted for it; a clean world is silent."""

import dataclasses

import numpy as np
import pytest

from tests.doctor_worlds import (
    BUILDER,
    CATALOG,
    CODES,
    ITEMS,
    LENGTH,
    LIMIT,
    STYLES,
    USERS,
    changed,
    clean_dataset,
    every_finding,
    only,
)
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import CatalogConfig
from wpauc_jax.data.dataset import positions
from wpauc_jax.doctor import catalog as catalog_checks
from wpauc_jax.doctor import population, splits
from wpauc_jax.doctor.tables import baseline_table, length_table
from wpauc_jax.evaluation.baselines import last_item_ranks


@pytest.mark.parametrize("protocol", ["leave_one_out", "chronological"])
def test_a_clean_world_is_silent(protocol):
    dataset = clean_dataset(protocol)
    assert (np.bincount(dataset.item[dataset.split == 0], minlength=ITEMS) > 0).all()
    assert every_finding(dataset) == []


@pytest.mark.parametrize("style", STYLES)
def test_a_clean_world_of_titles_is_silent(style):
    builder = STYLES[style]
    assert every_finding(clean_dataset(), builder.catalog, builder) == []


def test_an_item_outside_the_table():
    finding = only(splits.tables_fit(changed("item", [9, 20], [ITEMS, -1])), is_problem=True)
    assert finding.text == "interactions with an item that is not in the table: 2"
    assert finding.references == ("row 9, row 20",)


@pytest.mark.parametrize(("column", "ids"), [("item_ids", ["i0"] * ITEMS), ("users", ["u0"] * USERS)])
def test_an_id_that_stands_in_its_table_twice(column, ids):
    finding = only(splits.tables_fit(dataclasses.replace(clean_dataset(), **{column: ids})), is_problem=True)
    assert "ids that stand in their table twice: 1" in finding.text and ids[0] in finding.references[0]


def test_ranges_that_do_not_cover_the_rows():
    dataset = clean_dataset()
    found = splits.tables_fit(dataclasses.replace(dataset, offsets=dataset.offsets[:-1]))
    assert "do not cover the interactions" in only(found, is_problem=True).text
    found = splits.tables_fit(dataclasses.replace(dataset, time=dataset.time[:-1]))
    assert "differ in number" in only(found, is_problem=True).text


def test_a_split_without_a_sample():
    found = splits.every_split_has_samples(changed("split", slice(None), 0))
    assert [finding.text for finding in found] == [
        "the split 'valid' has no sample with a history",
        "the split 'test' has no sample with a history",
    ]


def test_a_history_from_the_future():
    finding = only(splits.time_runs_forward(changed("time", LENGTH + 2, 0)), is_problem=True)
    assert finding.text.endswith("of the same user: 1")
    item = clean_dataset().item[LENGTH + 2]
    assert finding.references == (f"row {LENGTH + 2} (user 'u1', item 'i{item}', train)",)


def test_a_training_row_behind_a_test_row():
    finding = only(splits.splits_follow_each_other(changed("split", 2, 2)), is_problem=True)
    assert finding.text.endswith("is tested: 1") and finding.references[0].startswith("row 3 (user 'u0'")


def test_a_training_row_in_the_time_of_the_test():
    dataset = clean_dataset("chronological")
    row = int(np.flatnonzero(dataset.split == 2)[-1])
    leak = changed("split", row, 0, "chronological")
    assert splits.splits_are_apart_in_time(leak)[0].text == "train rows later than the first valid row: 1"
    assert splits.splits_are_apart_in_time(leak)[0].references[0].startswith(f"row {row} (")


def test_a_user_without_a_test_row():
    last = 2 * LENGTH - 1
    finding = only(splits.one_test_row_a_user(changed("split", last, 0)), is_problem=True)
    assert finding.references == ("user 'u1'",) and "test row" in finding.text
    assert splits.one_test_row_a_user(changed("split", last, 0, "chronological")) == []


@pytest.mark.parametrize(("place", "is_problem"), [(LENGTH - 2, True), (2, False)])
def test_an_interaction_recorded_twice(place, is_problem):
    dataset = clean_dataset()
    for column in ("item", "time"):
        values = getattr(dataset, column).copy()
        values[place] = values[place - 1]
        dataset = dataclasses.replace(dataset, **{column: values})
    finding = only(splits.rows_stand_in_one_split(dataset), is_problem=is_problem)
    assert finding.references[0].startswith(f"row {place} (user 'u0'")


def test_an_item_that_training_never_shows():
    dataset = clean_dataset()
    cold = int(dataset.item[LENGTH - 1])
    item = dataset.item.copy()
    item[(item == cold) & (dataset.split == 0)] = (cold + 1) % ITEMS
    texts = [finding.text for finding in population.cold_items(dataclasses.replace(dataset, item=item))]
    assert texts[0] == "1 of 16 (6.2%) items never occur in training"
    assert any("test targets are such items" in text for text in texts[1:])


def test_a_user_whom_training_never_shows():
    dataset = changed("split", slice(0, LENGTH), [1, 1, 1, 2, 2, 2])
    texts = [finding.text for finding in population.cold_users(dataset)]
    assert texts == [
        "2 of 11 (18.2%) valid samples are of users without a training row",
        "3 of 12 (25.0%) test samples are of users without a training row",
    ]


def test_a_target_from_its_history():
    dataset = clean_dataset()
    repeat = changed("item", LENGTH - 1, dataset.item[LENGTH - 2])
    finding = only(population.repeated_targets(repeat, LIMIT), is_problem=False)
    assert finding.text == "1 of 10 (10.0%) test targets stand in their history, 1 as its last item"


def test_two_samples_with_one_history():
    dataset = clean_dataset()
    train = changed("item", LENGTH, dataset.item[0])  # users 0 and 1 begin with the same item and go on differently
    finding = only(population.shared_histories(train, LIMIT), is_problem=False)
    assert finding.text.startswith("2 of 30 (6.7%) training samples have the history of a training sample")
    assert [reference[:6] for reference in finding.references] == ["row 1 ", "row 7 "]


@pytest.mark.parametrize(("other", "what"), [("train", "training"), ("valid", "validation")])
def test_shared_histories_against_a_loop(other, what):
    dataset = clean_dataset()

    def samples(split):
        return [(p, dataset.item[p - 1], dataset.item[p]) for p in positions(dataset, split)]  # histories of one item

    wrong = [p for p, last, target in samples("train") if any(o[1] == last and o[2] != target for o in samples(other))]
    found = [f for f in population.shared_histories(dataset, 1) if f"of a {what} sample" in f.text]
    assert only(found, is_problem=False).text.startswith(f"{len(wrong)} of 30 ")
    assert [reference.split()[1] for reference in found[0].references] == [str(p) for p in wrong[:3]]


def test_a_missing_title():
    titles = ["", *clean_dataset().titles[1:]]
    finding = only(
        population.items_without_title(dataclasses.replace(clean_dataset(), titles=titles)), is_problem=False
    )
    assert finding.references == ("item 'i0'",)


def test_a_catalogue_of_other_data():
    other = catalog_from_codes(CODES[:-1], [4, 4])
    finding = only(catalog_checks.catalog_fits(clean_dataset(), other), is_problem=True)
    assert finding.text.startswith("the catalog has 15 items, the data 16")


def with_tokens(item: int, tokens: list[int], length: int | None = None):
    table = CATALOG.tokens.copy()
    table[item] = tokens + [-1] * (table.shape[1] - len(tokens))
    lengths = CATALOG.lengths.copy()
    lengths[item] = len(tokens) if length is None else length
    return dataclasses.replace(CATALOG, tokens=table, lengths=lengths)


@pytest.mark.parametrize(
    ("catalog", "text"),
    [
        (with_tokens(3, [], 0), "items that have no token: 1"),
        (with_tokens(3, [-1, 4]), "items that have a gap in their tokens: 1"),
        (with_tokens(3, [4, 5], 1), "items that go on behind their end: 1"),
        (with_tokens(3, [4, 1]), "items that hold a token set aside for prompts: 1"),
        (with_tokens(3, [4, 99]), "items that hold a token beyond the vocabulary: 1"),
    ],
)
def test_tokens_that_cannot_be(catalog, text):
    found = catalog_checks.tokens_are_sound(clean_dataset(), catalog)
    assert text in [finding.text for finding in found]
    assert all(finding.references == ("item 'i3' 'Title 3'",) for finding in found)


def test_two_items_with_one_sequence():
    twin = with_tokens(3, CATALOG.tokens[7].tolist())
    finding = only(catalog_checks.sequences_are_unique(clean_dataset(), twin), is_problem=True)
    assert finding.text.startswith("items whose sequence equals another's: 1")
    assert finding.references == ("item 'i3' 'Title 3'", "item 'i7' 'Title 7'")
    prefix = with_tokens(3, CATALOG.tokens[8][:1].tolist())
    finding = only(catalog_checks.sequences_are_unique(clean_dataset(), prefix), is_problem=True)
    assert finding.text.startswith("items whose sequence begins another's: 1")


@pytest.mark.parametrize("trim", [True, False])
def test_an_item_that_the_trie_lacks_or_spells_otherwise(trim):
    dataset = clean_dataset()
    swapped = CATALOG.sequences()
    swapped[3], swapped[7] = swapped[7], swapped[3]
    finding = only(
        catalog_checks.items_are_reachable(dataset, CATALOG, build_trie(swapped, trim=trim)), is_problem=True
    )
    hit = int(np.isin(dataset.item[positions(dataset, "test")], [3, 7]).sum())
    assert finding.text.startswith(
        f"items that their tokens do not lead to in the trie: 2; they are the targets of {hit} of 10"
    )
    assert finding.references == ("item 'i3' 'Title 3'", "item 'i7' 'Title 7'")


def test_a_fourth_code_that_only_the_trie_knows():
    """The catalogue and SFT drop the disambiguating code: the walk ends before any item."""
    codes = CODES.copy()
    codes[3] = codes[7]
    full = catalog_from_codes(codes, [4, 4])
    cut = dataclasses.replace(full, tokens=full.tokens[:, :2], lengths=np.minimum(full.lengths, 2))
    finding = only(
        catalog_checks.items_are_reachable(clean_dataset(), cut, build_trie(full.sequences())), is_problem=True
    )
    assert finding.references == ("item 'i3' 'Title 3'", "item 'i7' 'Title 7'")


def test_semantic_ids_of_another_numbering(tmp_path):
    dataset = clean_dataset()
    numbered = dataclasses.replace(dataset, item_ids=[str(i) for i in range(ITEMS)])
    config = CatalogConfig(ids="file", path=str(tmp_path / "info.txt"))
    assert "is gone" in only(catalog_checks.ids_are_of_these_items(numbered, config), is_problem=False).text
    lines = [f"<a_{i}>\t{title}\t{i}\n" for i, title in enumerate(dataset.titles)]
    (tmp_path / "info.txt").write_text("".join(lines))
    assert catalog_checks.ids_are_of_these_items(numbered, config) == []
    (tmp_path / "info.txt").write_text("".join([lines[0], *(line.replace("Title", "Other") for line in lines[1:3])]))
    finding = only(catalog_checks.ids_are_of_these_items(numbered, config), is_problem=True)
    assert finding.text.startswith("2 of 3 (66.7%) items have another title in ")
    assert finding.text.endswith("it calls item '1' 'Other 1'")
    assert finding.references == ("item '1' 'Title 1'", "item '2' 'Title 2'")


def test_items_that_share_a_code_or_a_title():
    dataset = clean_dataset()
    popular, other = (int(i) for i in dataset.item[positions(dataset, "test")][:2])
    codes = CODES.copy()
    codes[popular] = codes[other]
    labels = catalog_checks.code_labels(catalog_from_codes(codes, [4, 4]))
    test = dataset.item[positions(dataset, "test")]
    both, alone = np.isin(test, [popular, other]).sum(), max((test == popular).sum(), (test == other).sum())
    group, effect = catalog_checks.shared_labels(dataset, labels, "semantic id")
    assert group.text.startswith("items that share their semantic id with another: 2, of which 1 beyond the first")
    assert f"Recall@1 {both / 10:.4f} if scored by semantic id, {alone / 10:.4f} if scored by item id" in effect.text
    assert not group.is_problem and not effect.is_problem
    titles = list(dataset.titles)
    titles[popular] = titles[other]
    retitled = dataclasses.replace(dataset, titles=titles)
    by_title = catalog_checks.shared_labels(retitled, catalog_checks.title_labels(retitled), "title")
    assert [finding.text.replace("title", "semantic id") for finding in by_title] == [group.text, effect.text]
    nameless = dataclasses.replace(dataset, titles=["", "", *dataset.titles[2:]])
    assert catalog_checks.shared_labels(nameless, catalog_checks.title_labels(nameless), "title") == []


@pytest.mark.parametrize("style", STYLES)
def test_titles_that_do_not_end_or_end_twice(style):
    catalog = STYLES[style].catalog
    open_ended = dataclasses.replace(catalog, lengths=catalog.lengths - (np.arange(ITEMS) == 3))
    found = [finding.text for finding in catalog_checks.tokens_are_sound(clean_dataset(), open_ended)]
    assert "items that do not end in the token that ends an item, or hold it before: 1" in found
    tokens = catalog.tokens.copy()
    tokens[5, 0] = catalog.end
    found = catalog_checks.tokens_are_sound(clean_dataset(), dataclasses.replace(catalog, tokens=tokens))
    assert only(found, is_problem=True).references == ("item 'i5' 'Title 5'",)


def test_the_tables():
    dataset = clean_dataset()
    lines = length_table(dataset, BUILDER).splitlines()
    # Training samples have 1 to 3 items of history, validation and test 4: 1 token and 2 an item.
    assert lines[2].split() == ["train", "30", "3", "3", "5", "7", "7", "7", "9", "44.4%", "0.0%"]  # 5 of 9 is tokens
    assert lines[4].split() == ["test", "10", "9", "9", "9", "9", "9", "9", "9", "0.0%", "100.0%"]
    repeat = changed("item", LENGTH - 1, dataset.item[LENGTH - 2])
    by_item = {"last_item": last_item_ranks(repeat, positions(repeat, "test"), LIMIT)}
    table = baseline_table(repeat, by_item, {"title": catalog_checks.title_labels(repeat)}, LIMIT)
    assert table.splitlines()[0] == "By item id, every item is ranked."
    found = {line[:10].strip() + " " + line[12:21].strip(): line[21:].split() for line in table.splitlines()[3:]}
    assert list(found) == ["last_item item id", "popularity title", "last_item title"]
    assert found["last_item item id"][0] == found["last_item title"][0] == "0.1000"  # one of ten
