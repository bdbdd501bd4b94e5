"""The evaluation of a work directory: ranks of the test split by every trained stage, results.json, a table, plots."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from wpauc_jax.config import Config
from wpauc_jax.config.recorded import differences
from wpauc_jax.data.dataset import Dataset, positions, repeats
from wpauc_jax.evaluation.evaluate import evaluate, evaluate_exact
from wpauc_jax.evaluation.lists import SampleLists, sample_rows
from wpauc_jax.evaluation.plots import plot_stages, plot_training
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import Report, exact_table, write_results
from wpauc_jax.evaluation.sets import set_metrics
from wpauc_jax.evaluation.verdict import Verdict, verdicts
from wpauc_jax.models import Params
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import read_json, unless_read_only
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.runtime.versions import made_with
from wpauc_jax.stages.baselines import rivals, untrained_ranks
from wpauc_jax.stages.homes import is_trained
from wpauc_jax.stages.recommender import tell_of_lost
from wpauc_jax.stages.run import Say, best_folder
from wpauc_jax.stages.train import STAGES, select_metric
from wpauc_jax.stages.trained import refuse_changes
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.checkpoint import best_seal, load_best


def evaluate_workspace(work: Workspace, say: Say) -> None:
    """Ranks of the whole test split by baselines and by every trained stage; results.json, table, plots.

    A stage whose parameters were evaluated before, in the same way, is not evaluated again. Where the work directory
    cannot be written to, the table is all there is.

    Raises ConfigError where a stage was trained with other settings of the model or of the ranking.
    """
    config, rows = work.config, positions(work.dataset, "test")
    stages = [stage for stage in STAGES if is_trained(config, work.folder, stage)]
    changes = {stage: list(refuse_changes(work, stage, say, also=_beside(work, stage))) for stage in stages}
    tell_of_lost(work, say)
    if not stages:
        say("no stage is trained here: what needs no training is ranked alone")
    untrained = untrained_ranks(work, rows)
    found = dict(untrained)
    before = _results(work, say)
    evaluated = _evaluated_before(work, before)
    new = [stage for stage in stages if stage not in evaluated]
    ranks: dict[str, Ranks] = {}
    for stage in new:
        facts, made = _evaluate_stage(work, stage, rows, say)
        evaluated[stage] = facts | _evaluation_of(work, stage)
        ranks |= made
    if not is_main_process():
        return
    for name in (name for stage in stages for name in _lists(work, stage)):
        found[name] = ranks[name] if name in ranks else Ranks.load(_ranks_path(work, name))
    report = Report(
        found,
        recall_at=config.eval.recall_at,
        ndcg_at=config.eval.ndcg_at,
        num_items=work.catalog.num_items,
        scoring=config.scoring,
    )
    judged = dict.fromkeys(select_metric(config, stage) for stage in STAGES)
    judgement = verdicts({stage: found[stage] for stage in stages}, rivals(untrained), judged)
    lines = [
        *(verdict.line() for verdict in judgement),
        *_without_gain(config, {name: evaluated[name] for name in stages}),
    ]
    table = "\n".join([report.table(), *lines])
    if config.eval.exact and stages:
        table += "\n\n" + exact_table({stage: evaluated[stage]["exact"] for stage in stages})
    if config.eval.sets and stages:
        table += "\n\n" + exact_table({stage: evaluated[stage]["sets"] for stage in stages}, of="sets")
    renewed = bool(new) or before.get("stages", {}).keys() != report.stages.keys()
    if not renewed:
        say("evaluated before, with the same parameters and settings")
    try:
        if renewed:
            _write_report(work, report, judgement, {stage: evaluated[stage] for stage in stages}, changes, before, say)
    finally:  # the results are there, whatever becomes of the files
        print(table)
    if renewed or not _stages_plot(work).exists():
        _plot(work, report, say)


def _without_gain(config: Config, evaluated: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each stage whose best parameters are those that it began with."""
    began = {"rl": "the SFT that it began with", "sft": config.sft.start_from and f"the SFT of {config.sft.start_from}"}
    return [
        f"{stage}: no step was better on validation ({select_metric(config, stage)}) than step 0, so this row is that "
        f"of {began[stage]}"
        for stage, facts in evaluated.items()
        if facts["step"] == 0 and began[stage]
    ]


def _beside(work: Workspace, stage: str) -> dict[str, Any]:
    """What RL's row of the table depends on beside RL: the SFT row above it is that of its own SFT."""
    return {"sft_from": work.config.sft_from} if stage == "rl" else {}


def _evaluate_stage(work: Workspace, stage: str, rows: np.ndarray, say: Say) -> tuple[dict[str, Any], dict[str, Ranks]]:
    """Keeps the ranks by a stage's best parameters. At which step these were found, what is exact, and a few lists."""
    config = work.config.eval
    trained, best = load_best(best_folder(work, stage), work.first_params)
    params = work.frozen.join(trained)
    batches, few = work.eval_batches(rows), SampleLists(sample_rows(rows))
    search = work.search(config.num_beams)
    facts: dict[str, Any] = {"step": best.step, "exact": {}}
    label, compiles = f"test of {stage}", "compiling the search"
    with Progress(len(rows), label, unit="users", doing=compiles, enabled=is_main_process()) as progress:
        if config.exact or work.one_token:
            found = evaluate_exact(work.exact_search(), params, batches, on_batch=progress.update)
            evaluate(search, params, work.eval_batches(sample_rows(rows)), on_lists=few.add)
            lists = (found.ranks,) if work.one_token else (found.beams, found.ranks)
            facts["exact"] = found.metrics() if config.exact else {}
        else:
            lists = (evaluate(search, params, batches, on_batch=progress.update, on_lists=few.add),)
    made = dict(zip(_lists(work, stage), lists, strict=True))
    for name, ranks in made.items():
        _save(work, name, ranks, say)
    ids = work.dataset.item_ids
    facts["sets"] = _sets(work, params, rows)
    facts["lists"] = {str(sample): [ids[item] for item in items] for sample, items in sorted(few.found.items())}
    return facts, made


def _sets(work: Workspace, params: Params, rows: np.ndarray) -> dict[str, float]:
    """Measures of users' test items as sets, where they are asked for."""
    config = work.config.eval
    if not config.sets:
        return {}
    members, shown = users_sets(work.dataset, rows, exclude_history=work.builder.exclude_history)
    found = evaluate_exact(work.exact_search(), params, work.eval_batches(members, shown=shown))
    return set_metrics(found.ranks, config.recall_at)


def users_sets(dataset: Dataset, rows: np.ndarray, *, exclude_history: bool) -> tuple[np.ndarray, np.ndarray]:
    """The samples of users' sets, each item of a user once, and beside each the user's first one, of `rows` ascending.

    An item that cannot be ranked, because the user has it already, is in no set.
    """
    user = dataset.user_of(rows)
    _, first, inverse = np.unique(user, return_index=True, return_inverse=True)
    _, distinct = np.unique(np.stack([user, dataset.item[rows]]), axis=1, return_index=True)
    kept = np.sort(distinct)
    if exclude_history:
        kept = kept[~repeats(dataset)[rows[kept]]]
    return rows[kept], rows[first[inverse[kept]]]


def _lists(work: Workspace, stage: str) -> list[str]:
    """The names of the ranks that a stage's evaluation leaves."""
    return [stage, f"{stage}-exact"] if work.config.eval.exact and not work.one_token else [stage]


def _save(work: Workspace, name: str, ranks: Ranks, say: Say) -> None:
    if not is_main_process():
        return
    with unless_read_only(_ranks_path(work, name), say):
        ranks.save(_ranks_path(work, name))


def _ranks_path(work: Workspace, name: str) -> pathlib.Path:
    return work.folder / "ranks" / f"{name}.npz"


def _evaluation_of(work: Workspace, stage: str) -> dict[str, Any]:
    """What tells an evaluation: the parameters, and the files of its ranks."""
    paths = {name: _ranks_path(work, name) for name in _lists(work, stage)}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.exists()}
    guide = {"guide": work.guide.seal()} if work.guide else {}
    return {"parameters": best_seal(best_folder(work, stage)), "ranks": hashes, **guide}


def _results(work: Workspace, say: Say) -> dict[str, Any]:
    """What results.json holds; nothing where it is missing, or damaged, which is said."""
    path = work.folder / "results.json"
    results = read_json(path)
    facts = results.get("evaluated"), results.get("stages"), results.get("identity")
    if all(isinstance(part, dict) for part in facts):
        return results
    if path.exists():
        say(f"{path} is damaged: it is made anew")
    return {}


def _evaluated_before(work: Workspace, before: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What results.json says of the stages whose ranks are still theirs: same run, settings, parameters and files."""
    if not before or differences(before["identity"], work.identity()):
        return {}
    known = {stage: facts for stage, facts in before["evaluated"].items() if stage in STAGES and _is_whole(facts)}
    return {stage: facts for stage, facts in known.items() if facts == facts | _evaluation_of(work, stage)}


def _is_whole(facts: Any) -> bool:
    return isinstance(facts, dict) and type(facts.get("step")) is int and isinstance(facts.get("exact"), dict)


def _write_report(
    work: Workspace,
    report: Report,
    judgement: list[Verdict],
    evaluated: dict[str, dict[str, Any]],
    changes: dict[str, list[str]],
    before: dict[str, Any],
    say: Say,
) -> None:
    """results.json, and the ranks of what needs no training. Says where results of other settings give way."""
    for name in report.stages.keys() - {name for stage in evaluated for name in _lists(work, stage)}:
        _save(work, name, report.stages[name], say)
    run_facts = {
        "verdicts": [verdict.facts() for verdict in judgement],
        "notes": _without_gain(work.config, evaluated),
        "num_beams": work.config.eval.num_beams,
        "best_steps": {stage: facts["step"] for stage, facts in evaluated.items()},
        "exact": {stage: facts["exact"] for stage, facts in evaluated.items() if facts["exact"]},
        "sets": {stage: facts["sets"] for stage, facts in evaluated.items() if facts.get("sets")},
        "changes": {stage: found for stage, found in changes.items() if found},
        "data": work.dataset.fingerprint,
        "catalog": work.catalog.fingerprint,
        "config": dataclasses.asdict(work.config),
        "identity": work.identity(),
        "evaluated": evaluated,
        "made_with": made_with(),
    }
    path = work.folder / "results.json"
    other = differences(before["identity"], work.identity()) if before else []
    if other:
        say(f"{path} is rewritten: its results were of other settings ({'; '.join(other)})")
    with unless_read_only(path, say):
        write_results(path, report.summary() | run_facts)


def _plot(work: Workspace, report: Report, say: Say) -> None:
    """Pictures come last, and none of them is worth the results: one that cannot be made is told in a line."""
    try:
        plot_training(work.folder / "metrics.jsonl", work.folder / "plots")
        plot_stages(report.stages, _stages_plot(work), recall_at=report.recall_at, ndcg_at=report.ndcg_at)
    except Exception as error:
        say(f"the plots could not be made ({type(error).__name__}: {error}); the results are there")


def _stages_plot(work: Workspace) -> pathlib.Path:
    return work.folder / "plots" / "stages.png"
