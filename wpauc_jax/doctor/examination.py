"""Runs all checks in their order, and makes the page that shows what they found."""

import dataclasses
import functools
import textwrap
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from wpauc_jax.batches.title_tasks import Alignment
from wpauc_jax.data.dataset import Dataset, positions
from wpauc_jax.doctor import catalog as catalog_checks
from wpauc_jax.doctor import checkpoints, population, prompts, splits
from wpauc_jax.doctor.findings import Finding, note
from wpauc_jax.doctor.tables import baseline_table, length_table
from wpauc_jax.stages.baselines import untrained_ranks
from wpauc_jax.stages.homes import is_trained
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.train import STAGES
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.sft import SFT_SCORING

Check = tuple[str, Callable[[], list[Finding]]]


@dataclasses.dataclass(frozen=True)
class Examination:
    """What every check found, by its name, and the tables."""

    head: str
    findings: dict[str, list[Finding]]
    tables: dict[str, str]

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.is_problem for found in self.findings.values() for finding in found)

    def page(self) -> str:
        """One page of text: each check on a line, what it found below, then the tables and the verdict."""
        lines = [self.head, ""]
        for check, found in self.findings.items():
            mark = "PROBLEM" if any(finding.is_problem for finding in found) else "note" if found else "ok"
            lines.append(f"{mark:<8} {check}")
            for finding in found:
                lines += textwrap.wrap(finding.text, 112, initial_indent="         - ", subsequent_indent="           ")
                lines += [f"             {reference}" for reference in finding.references]
        for title, table in self.tables.items():
            lines += ["", title, table]
        verdict = f"{self.problems} problems" if self.problems != 1 else "1 problem"
        if not self.tables:
            verdict += "; mend them and examine again: the other checks need what is wrong here"
        return "\n".join([*lines, "", verdict if self.problems else "no problem"])


def examine(work: Workspace) -> Examination:
    """Runs all checks. What needs sound tables or a sound catalog is left out where they are not."""
    dataset = work.dataset
    head = (
        f"{work.folder}: {dataset.num_users:,} users, {dataset.num_items:,} items, {len(dataset.item):,} interactions; "
        f"data {dataset.fingerprint[:8]}, catalog {work.catalog.fingerprint[:8]}"
    )
    findings = examine_data(dataset, work.builder.max_history)
    if not _sound(findings, _TABLE_CHECKS):
        return Examination(head, findings, {})
    of_catalog = _run(_catalog_checks(work))
    findings |= of_catalog
    if not _sound(of_catalog, of_catalog):
        return Examination(head, findings, {})
    findings |= _run(_label_checks(work))
    findings |= _run(_trie_checks(work))
    findings |= _run(_prompt_checks(work))
    findings |= _checkpoint_findings(work)
    return Examination(head, findings, _tables(work))


def examine_data(dataset: Dataset, max_history: int) -> dict[str, list[Finding]]:
    """What the checks of the interactions alone find, by their names; of unsound tables only the first of them."""
    findings = _run((name, functools.partial(check, dataset)) for name, check in _TABLE_CHECKS.items())
    if not _sound(findings, findings):
        return findings
    findings |= _run(_split_checks(dataset))
    return findings | _run(_population_checks(dataset, max_history))


def _run(checks: Iterable[Check]) -> dict[str, list[Finding]]:
    return {name: check() for name, check in checks}


def _sound(findings: dict[str, list[Finding]], names: Iterable[str]) -> bool:
    """Whether none of the checks by these names found a problem."""
    return not any(finding.is_problem for name in names for finding in findings[name])


# What all other checks rely on.
_TABLE_CHECKS = {
    "the tables fit together": splits.tables_fit,
    "every split has samples": splits.every_split_has_samples,
}


def _split_checks(dataset: Dataset) -> Iterator[Check]:
    yield "a history is the past", lambda: splits.time_runs_forward(dataset)
    yield "a user's splits follow each other", lambda: splits.splits_follow_each_other(dataset)
    yield "splits are apart in time", lambda: splits.splits_are_apart_in_time(dataset)
    yield "leave-one-out leaves one out", lambda: splits.one_test_row_a_user(dataset)
    yield "an interaction stands in one split", lambda: splits.rows_stand_in_one_split(dataset)


def _population_checks(dataset: Dataset, limit: int) -> Iterator[Check]:
    yield "cold items", lambda: population.cold_items(dataset)
    yield "cold users", lambda: population.cold_users(dataset)
    yield "targets repeated from their history", lambda: population.repeated_targets(dataset, limit)
    yield "histories shared by several targets", lambda: population.shared_histories(dataset, limit)
    yield "items without a title", lambda: population.items_without_title(dataset)


def _catalog_checks(work: Workspace) -> Iterator[Check]:
    dataset, catalog = work.dataset, work.catalog
    yield "the catalog is of this data", lambda: catalog_checks.catalog_fits(dataset, catalog)
    yield "items' tokens are sound", lambda: catalog_checks.tokens_are_sound(dataset, catalog)
    yield "items' sequences are unique", lambda: catalog_checks.sequences_are_unique(dataset, catalog)


def _label_checks(work: Workspace) -> Iterator[Check]:
    settings = work.config.catalog
    yield "semantic ids are of these items", lambda: catalog_checks.ids_are_of_these_items(work.dataset, settings)
    for name, labels in _labels(work).items():
        yield f"items share a {name}", functools.partial(catalog_checks.shared_labels, work.dataset, labels, name)


def _trie_checks(work: Workspace) -> Iterator[Check]:
    rules = {work.config.scoring, SFT_SCORING[work.config.sft.loss]}
    for rule in sorted(rules):
        yield (
            f"items are reachable by their tokens ({rule})",
            functools.partial(catalog_checks.items_are_reachable, work.dataset, work.catalog, work.ranker(rule).trie),
        )


def _prompt_checks(work: Workspace) -> Iterator[Check]:
    dataset, catalog, builder = work.dataset, work.catalog, work.builder
    fed = list(prompts.batches_of(dataset, builder, work.rl_positions))
    yield "targets are bound by id", lambda: prompts.targets_are_bound_by_id(dataset, fed)
    yield "no prompt holds its answer", lambda: prompts.prompts_hold_no_answer(dataset, catalog, builder, fed)
    yield "RL and evaluation ask alike", lambda: prompts.prompts_are_the_builders(dataset, builder, fed)
    yield (
        "SFT teaches what is asked",
        lambda: prompts.sft_teaches_what_is_asked(dataset, catalog, builder, work.sft_limits),
    )
    rows = {task: work.alignment(task) for task in work.config.sft.tasks}
    aligned = {task: one for task, one in rows.items() if isinstance(one, Alignment)}
    if aligned:
        yield (
            "title tasks ask for the item that they show",
            lambda: prompts.title_tasks_ask_for_what_they_show(dataset, catalog, work.titles or [], aligned),
        )
    if work.config.rl.rows == "latest":
        yield (
            "RL's rows are kept from SFT",
            lambda: prompts.rl_rows_are_kept_from_sft(dataset, work.sft_limits, work.rl_positions),
        )
    yield "prompts begin alike and fit", lambda: prompts.prompts_begin_and_fit(builder, fed)


def _checkpoint_findings(work: Workspace) -> dict[str, list[Finding]]:
    found = {"ranks are of this data": checkpoints.ranks_are_of_this_data(work)}
    for stage in STAGES:
        if not is_trained(work.config, work.folder, stage):
            if (work.folder / stage).is_dir():
                lost = f"{best_folder(work, stage)} holds no parameters, though {work.folder / stage} is there"
                found[f"{stage}: the parameters are usable"] = [note(lost)]
            continue
        found[f"{stage}: the checkpoint is of this run"] = checkpoints.checkpoint_is_of_this_run(work, stage)
        params, found[f"{stage}: the parameters are usable"] = checkpoints.parameters_load(work, stage)
        if params is not None:
            lists = checkpoints.lists_are_of_the_catalog(work, stage, params)
            found[f"{stage}: lists hold items of the catalog"] = lists
    return found


def _labels(work: Workspace) -> dict[str, np.ndarray]:
    """By which identities other than its id an item can be scored."""
    labels = {
        "semantic id": catalog_checks.code_labels(work.catalog),
        "title": catalog_checks.title_labels(work.dataset),
    }
    return {name: label for name, label in labels.items() if label is not None}


def _tables(work: Workspace) -> dict[str, str]:
    by_item = untrained_ranks(work, positions(work.dataset, "test"))
    return {
        "Tokens of the prompts": length_table(work.dataset, work.builder),
        "Test split, without a model": baseline_table(work.dataset, by_item, _labels(work), work.builder.max_history),
    }
