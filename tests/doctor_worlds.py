"""The clean world in which tests plant faults for the doctor, and all that it says of a world."""

import dataclasses

import numpy as np

from tests.text_worlds import text_builder
from wpauc_jax.batches.prompts import PromptBuilder
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.data.dataset import Dataset, positions, train_rows
from wpauc_jax.data.splits import chronological, leave_one_out
from wpauc_jax.doctor import catalog as catalog_checks
from wpauc_jax.doctor import population, prompts, splits

ITEMS, USERS, LENGTH, LIMIT = 16, 10, 6, 4
SEED = 1  # a draw in which every item occurs in training


def clean_dataset(protocol: str = "leave_one_out") -> Dataset:
    """Users who meet distinct items, no two with the same history; every item occurs in training."""
    rng = np.random.default_rng(SEED)
    item = np.stack([[u, *rng.permutation(np.delete(np.arange(ITEMS), u))[: LENGTH - 1]] for u in range(USERS)])
    user = np.repeat(np.arange(USERS), LENGTH)
    # All begin early, so that everybody has a training row; then each takes turns on one time line.
    time = (np.arange(LENGTH) * 100 + np.arange(USERS)[:, None]).ravel()
    return Dataset(
        users=[f"u{u}" for u in range(USERS)],
        item_ids=[f"i{i}" for i in range(ITEMS)],
        titles=[f"Title {i}" for i in range(ITEMS)],
        texts=[""] * ITEMS,
        item=item.ravel().astype(np.int32),
        time=time,
        split=leave_one_out(user) if protocol == "leave_one_out" else chronological(user, time),
        offsets=np.arange(0, USERS * LENGTH + 1, LENGTH),
        fingerprint="",
        protocol=protocol,
    )


CODES = np.stack([np.arange(ITEMS) // 4, np.arange(ITEMS) % 4], axis=1)
CATALOG = catalog_from_codes(CODES, [4, 4])
BUILDER = PromptBuilder(CATALOG, LIMIT)


def changed(column: str, where, value, protocol: str = "leave_one_out") -> Dataset:
    dataset = clean_dataset(protocol)
    values = getattr(dataset, column).copy()
    values[where] = value
    return dataclasses.replace(dataset, **{column: values})


def fed(dataset, builder=BUILDER):
    return list(prompts.batches_of(dataset, builder, positions(dataset, "train")))


def every_finding(dataset, catalog=CATALOG, builder=BUILDER) -> list:
    batches = fed(dataset, builder)
    limits, held_out = train_rows(dataset, 0.2)
    found = [
        splits.tables_fit(dataset),
        splits.every_split_has_samples(dataset),
        splits.time_runs_forward(dataset),
        splits.splits_follow_each_other(dataset),
        splits.splits_are_apart_in_time(dataset),
        splits.one_test_row_a_user(dataset),
        splits.rows_stand_in_one_split(dataset),
        population.cold_items(dataset),
        population.cold_users(dataset),
        population.repeated_targets(dataset, LIMIT),
        population.shared_histories(dataset, LIMIT),
        population.items_without_title(dataset),
        catalog_checks.catalog_fits(dataset, catalog),
        catalog_checks.tokens_are_sound(dataset, catalog),
        catalog_checks.sequences_are_unique(dataset, catalog),
        catalog_checks.items_are_reachable(dataset, catalog, build_trie(catalog.sequences())),
        catalog_checks.items_are_reachable(dataset, catalog, build_trie(catalog.sequences(), trim=False)),
        *(
            catalog_checks.shared_labels(dataset, labels, "label")
            for labels in (catalog_checks.code_labels(catalog), catalog_checks.title_labels(dataset))
            if labels is not None
        ),
        prompts.targets_are_bound_by_id(dataset, batches),
        prompts.prompts_hold_no_answer(dataset, catalog, builder, batches),
        prompts.prompts_are_the_builders(dataset, builder, batches),
        prompts.sft_teaches_what_is_asked(dataset, catalog, builder, limits),
        prompts.rl_rows_are_kept_from_sft(dataset, limits, held_out),
        prompts.prompts_begin_and_fit(builder, batches),
    ]
    return [finding for each in found for finding in each]


STYLES = {style: text_builder(style, max_history=LIMIT, titles=clean_dataset().titles) for style in ("list", "chat")}


def only(findings, *, is_problem: bool):
    """The one finding there is, of the expected kind."""
    assert len(findings) == 1
    assert findings[0].is_problem == is_problem
    return findings[0]
