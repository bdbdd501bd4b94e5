"""Preparation: k-core, splits, determinism, re-use, and what is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_worlds import atomic, dataset_of, inter, shared, write
from wpauc_jax.config import ConfigError, DataConfig
from wpauc_jax.data.dataset import ITEMS, MANIFEST, USERS, load_dataset, positions, train_rows
from wpauc_jax.data.filters import k_core
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.data.splits import chronological, leave_one_out

SHARD = "interactions-00000.parquet"
TABLES = (SHARD, ITEMS, USERS)


def config(path, **changes) -> DataConfig:
    return DataConfig(source="recbole", path=str(path), **{"k_core": 0, **changes})


def prepared(tmp_path, rows, name="prepared", **changes):
    source = tmp_path / f"{name}-raw"
    write(source / "a.inter", inter(rows))
    return prepare(config(source, **changes), tmp_path / name)


def sequences(dataset) -> dict[str, list[str]]:
    """Raw item ids by raw user id, in order."""
    parts = np.split(dataset.item, dataset.offsets[1:-1])
    return {user: [dataset.item_ids[i] for i in part] for user, part in zip(dataset.users, parts, strict=True)}


WORLD = [("10", "b", 5), ("9", "2", 3), ("10", "10", 1), ("9", "b", 1), ("10", "2", 5), ("x", "2", 7), ("9", "2", 9)]


def test_order_of_users_items_and_times(tmp_path):
    dataset = prepared(tmp_path, WORLD)
    assert list(dataset.users) == ["9", "10", "x"]  # numbers by value, then words
    assert dataset.item_ids == ["2", "10", "b"]
    assert sequences(dataset) == {"9": ["b", "2", "2"], "10": ["10", "b", "2"], "x": ["2"]}  # equal times: file order
    assert dataset.time.tolist() == [1, 3, 9, 1, 5, 5, 7]
    assert dataset.split.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert dataset.offsets.tolist() == [0, 3, 6, 7]


def test_repeats_first_keeps_the_first_meeting(tmp_path):
    dataset = prepared(tmp_path, [*WORLD, ("9", "b", 10), ("9", "c", 11)], repeats="first")
    assert sequences(dataset) == {"9": ["b", "2", "c"], "10": ["10", "b", "2"], "x": ["2"]}
    manifest = json.loads((tmp_path / "prepared" / MANIFEST).read_text())
    assert manifest["statistics"]["dropped"]["repeats"] == 2


def test_fractions_of_a_second_order_the_rows(tmp_path):
    dataset = prepared(tmp_path, [("u", "a", 1.75), ("u", "b", 1.5), ("u", "c", -0.5)])
    assert sequences(dataset) == {"u": ["c", "b", "a"]}
    assert dataset.time.tolist() == [-500, 1500, 1750]  # in the coarsest unit that keeps their order
    assert json.loads((tmp_path / "prepared" / MANIFEST).read_text())["time_unit"] == "ms"


def test_whole_times_beyond_float_precision_are_kept(tmp_path):
    dataset = prepared(tmp_path, [("u", "a", 2**60 + 1), ("u", "b", 2**60), ("u", "c", 2**60 + 2)])
    assert dataset.time.tolist() == [2**60, 2**60 + 1, 2**60 + 2]


def test_statistics(tmp_path):
    write(tmp_path / "raw" / "a.inter", inter([*WORLD, ("lone", "only", 4)]))
    titles = atomic(("item_id:token", "title:token_seq"), ("2", "Two"), ("never", "Unseen"), ("b", ""))
    write(tmp_path / "raw" / "a.item", titles)
    dataset = prepare(config(tmp_path / "raw"), tmp_path / "prepared")
    manifest = json.loads((tmp_path / "prepared" / MANIFEST).read_text())
    assert dataset.titles == ["Two", "", "", ""]
    statistics = manifest["statistics"]
    assert statistics.pop("density") == pytest.approx(8 / 16)
    assert statistics == {
        "users": 4,
        "items": 4,
        "interactions": 8,
        "mean_user_length": 2.0,
        "mean_item_count": 2.0,
        "protocol": "leave_one_out",
        "samples": {"train": 0, "valid": 2, "test": 2},
        "users_without_history": 2,
        "items_without_training": 0,
        "items_without_title": 3,
        "dropped": {
            "outside_window": 0,
            "by_title": {"missing": 0, "markup": 0, "long": 0},
            "rows": {},
            "repeats": 0,
            "interactions_by_k_core": 0,
            "users": 0,
            "items": 0,
            "described_items_without_interactions": 1,
        },
    }
    assert set(manifest["input"]) == {"a.inter", "a.item"}


interaction_lists = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=60)


@given(interaction_lists, st.integers(0, 4))
def test_k_core_is_the_largest_fixed_point(rows, k):
    rows = sorted(rows)
    user, item = np.array(rows).T
    kept = k_core(user, item, k)
    for ids in (user, item):
        assert all(np.count_nonzero(ids[kept] == one) >= k for one in set(ids[kept].tolist()))
    # Removing offenders one row at a time, the slow way, ends in the same rows.
    alive = list(range(len(rows)))
    while True:
        bad = [i for i in alive if min(sum(rows[j][side] == rows[i][side] for j in alive) for side in (0, 1)) < k]
        if not bad:
            break
        alive.remove(bad[0])
    assert np.flatnonzero(kept).tolist() == alive


def test_k_core_runs_to_the_fixed_point(tmp_path):
    block = [(f"u{u}", f"i{i}", u * 10 + i) for u in range(3) for i in range(3)]
    chain = [("u0", "c0", 50), ("w0", "c0", 1), ("w0", "c1", 2), ("w1", "c1", 3)]  # falls one link at a time
    dataset = prepared(tmp_path, block + chain, k_core=2)
    assert dataset.item_ids == ["i0", "i1", "i2"]
    assert list(dataset.users) == ["u0", "u1", "u2"]


user_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(user_lengths.filter(lambda lengths: max(lengths) >= 3))
def test_leave_one_out_takes_the_last_two(lengths):
    user = np.repeat(np.arange(len(lengths)), lengths)
    parts = np.split(leave_one_out(user), np.cumsum(lengths)[:-1])
    for part in parts:
        expected = [0] * len(part) if len(part) < 3 else [0] * (len(part) - 2) + [1, 2]
        assert part.tolist() == expected


@given(user_lengths.filter(lambda lengths: sum(lengths) - len(lengths) >= 10), st.integers(0, 5))
def test_chronological_cuts_the_time_line(lengths, seed):
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(lengths)), lengths)
    time = np.concatenate([np.sort(rng.integers(0, 20, length)) for length in lengths])
    split = chronological(user, time)
    first = np.cumsum([0, *lengths[:-1]])
    is_sample = ~np.isin(np.arange(len(user)), first)
    total = is_sample.sum()
    sizes = [(is_sample & (split == code)).sum() for code in range(3)]
    assert sizes == [total * 8 // 10, total * 9 // 10 - total * 8 // 10, total - total * 9 // 10]
    for part in np.split(split, first[1:]):
        assert (np.diff(part) >= 0).all()
    for code in (0, 1):  # first interactions included: no train row is later than a valid row
        assert time[split <= code].max() <= time[split > code].min()


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["leave_one_out", "chronological"]))
def test_any_order_of_lines_gives_the_same_bytes_when_times_differ(tmp_path_factory, random, split):
    rows = [(f"u{(7 * n) % 5}", f"i{(3 * n * n) % 11}", 1000 - n) for n in range(60)]
    tmp_path = tmp_path_factory.mktemp("orders")
    prepared(tmp_path, rows, "a", split=split, k_core=2)
    random.shuffle(rows)
    prepared(tmp_path, rows, "b", split=split, k_core=2)
    for name in TABLES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_same_input_gives_the_same_bytes(tmp_path):
    settings_ = config(shared("office"), k_core=5, split="chronological")
    digests = []
    for name in ("a", "b"):
        prepare(settings_, tmp_path / name)
        files = sorted((tmp_path / name).iterdir())
        assert [path.name for path in files] == sorted([*TABLES, MANIFEST])
        digests.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in files])
    assert digests[0] == digests[1]


def test_a_directory_is_reused_only_for_its_own_settings(tmp_path):
    first = prepared(tmp_path, WORLD)
    (tmp_path / "prepared-raw" / "a.inter").unlink()  # nothing is read again
    base = config(tmp_path / "prepared-raw")
    again = prepare(dataclasses.replace(base, max_history=3), tmp_path / "prepared")
    assert again.fingerprint == first.fingerprint
    for field, value in {"k_core": 2, "repeats": "first", "split": "chronological", "path": "/other"}.items():
        with pytest.raises(ConfigError, match=rf"was prepared with data\.{field}=.*data\.dir.*delete"):
            prepare(dataclasses.replace(base, **{field: value}), tmp_path / "prepared")


def test_a_directory_that_holds_something_else_is_left_alone(tmp_path):
    keep = write(tmp_path / "prepared" / "thesis.txt", "years of work")
    with pytest.raises(ConfigError, match="no manifest"):
        prepared(tmp_path, WORLD)
    assert keep.read_text() == "years of work"
    with pytest.raises(ConfigError, match="is a file"):
        prepare(config(tmp_path), keep)


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_or_missing_file_is_noticed(tmp_path, name):
    prepared(tmp_path, WORLD)
    path = tmp_path / "prepared" / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match=f"{name} is not what was prepared"):
        load_dataset(tmp_path / "prepared")
    path.unlink()
    with pytest.raises(DataError, match=f"cannot read .*{name}"):
        load_dataset(tmp_path / "prepared")


def test_a_manifest_of_another_format_is_refused(tmp_path):
    prepared(tmp_path, WORLD)
    path = tmp_path / "prepared" / MANIFEST
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(DataError, match="has format 99"):
        load_dataset(tmp_path / "prepared")
    path.write_text("{")
    with pytest.raises(DataError, match="damaged"):
        load_dataset(tmp_path / "prepared")


def test_what_cannot_be_prepared_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match=r"nothing is left .* data\.k_core=9"):
        prepared(tmp_path, WORLD, k_core=9)
    with pytest.raises(DataError, match="valid and test splits are empty: no user has 3"):
        prepared(tmp_path, [("u", "a", 1), ("u", "b", 2)])
    with pytest.raises(DataError, match="4 samples cannot be split 8:1:1"):
        prepared(tmp_path, WORLD, split="chronological")
    with pytest.raises(ConfigError, match=r"data\.path is empty"):
        prepare(config(""), tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_a_failed_or_killed_write_leaves_no_directory(tmp_path, monkeypatch):
    write(tmp_path / ".prepared.unfinished" / "left", "by a killed run")

    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("wpauc_jax.data.store.file_digest", fail)
        with pytest.raises(OSError, match="disk full"):
            prepared(tmp_path, WORLD)
    assert {path.name for path in tmp_path.iterdir()} == {"prepared-raw", ".prepared.reading"}
    assert prepared(tmp_path, WORLD).num_users == 3


def test_what_a_kill_at_the_very_end_left_beside_the_directory_goes(tmp_path):
    prepared(tmp_path, WORLD)
    left = write(tmp_path / ".prepared.reading" / "left", "by a run that was killed after the directory was there")
    prepared(tmp_path, WORLD)
    assert not left.parent.exists()


@pytest.mark.parametrize("protocol", ["leave_one_out", "chronological"])
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9])
def test_train_rows_partition_the_training_samples(protocol, fraction):
    dataset = dataset_of([1, 2, 3, 4, 5, 6, 12, 30], protocol=protocol)
    limits, held_out = train_rows(dataset, fraction)
    train = positions(dataset, "train")
    user = dataset.user_of(train)
    used = train[train - dataset.offsets[user] < limits[user]]
    assert sorted([*used, *held_out.tolist()]) == train.tolist()
    if protocol == "chronological":
        assert len(held_out) == int(len(train) * fraction + 1e-9)
        if len(held_out):
            assert dataset.time[used].max() <= dataset.time[held_out].min()
    else:
        lengths = dataset.train_lengths()
        expected = [
            max(int((n - 1) * fraction + 1e-9), 1) if n >= 3 and fraction else int((n - 1) * fraction) for n in lengths
        ]
        assert np.bincount(dataset.user_of(held_out), minlength=8).tolist() == expected


def test_a_share_that_is_whole_is_not_rounded_down():
    assert 100 * 0.29 < 29  # in floating point
    assert len(train_rows(dataset_of([103]), 0.29)[1]) == 29  # 103 less the last two less the first


def test_train_rows_refuses_a_fraction_of_everything():
    with pytest.raises(ValueError, match="fraction=1"):
        train_rows(dataset_of([5]), 1.0)


@pytest.mark.parametrize("protocol", ["leave_one_out", "chronological"])
def test_positions_are_the_samples(protocol):
    dataset = dataset_of([1, 2, 5, 20], protocol=protocol)
    found = [positions(dataset, name) for name in ("train", "valid", "test")]
    everything = np.setdiff1d(np.arange(len(dataset.item)), dataset.offsets[:-1])
    assert np.sort(np.concatenate(found)).tolist() == everything.tolist()
    assert all((dataset.split[p] == code).all() for code, p in enumerate(found))
    with pytest.raises(ValueError, match="'dev' is unknown"):
        positions(dataset, "dev")


@pytest.mark.parametrize(
    ("name", "k", "counts", "described"),
    [
        ("office", 5, (4905, 2420, 53258), True),
        ("toys", 5, (19412, 11924, 167597), False),
        ("yelp", 5, (30431, 20033, 316354), True),
        ("industrial", 0, (3285, 3541, 21737), True),
    ],
)
def test_real_sets_have_the_counts_of_their_readme(tmp_path, name, k, counts, described):
    dataset = prepare(config(shared(name), k_core=k), tmp_path / "prepared")
    assert (dataset.num_users, dataset.num_items, len(dataset.item)) == counts
    assert any(dataset.texts) == described
    assert len(positions(dataset, "test")) == sum(np.diff(dataset.offsets) >= 3)
    if name == "industrial":
        assert "A0289048PRWFY7ZXQKCD" in list(dataset.users)
        user = dataset.user_of(np.arange(len(dataset.item)))
        assert (np.diff(dataset.time)[user[1:] == user[:-1]] >= 0).all()
