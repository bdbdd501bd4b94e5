"""The evaluation of a work directory: ranks of the test split by every trained stage, a table, results.json, plots."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from wpauc_jax.config.recorded import differences
from wpauc_jax.data.dataset import positions
from wpauc_jax.evaluation.evaluate import evaluate, evaluate_exact
from wpauc_jax.evaluation.plots import plot_stages, plot_training
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import Report, exact_table, write_results
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.stages.baselines import BASELINES
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.train import STAGES
from wpauc_jax.stages.workspace import Workspace
from wpauc_jax.training.checkpoint import best_seal, load_best


def evaluate_workspace(work: Workspace, say: Callable[[str], None]) -> None:
    """Ranks of the whole test split by baselines and by every trained stage; table, results.json, plots.

    A stage whose parameters were evaluated before, in the same way, is not evaluated again.
    """
    config, rows = work.config, positions(work.dataset, "test")
    found = {name: baseline.ranks(work, rows) for name, baseline in BASELINES.items() if baseline.shown(config)}
    evaluated = _evaluated_before(work)
    stages = [stage for stage in STAGES if best_folder(work, stage).is_dir()]
    new = [stage for stage in stages if stage not in evaluated]
    for stage in new:
        facts = _evaluate_stage(work, stage, rows)
        evaluated[stage] = facts | _evaluation_of(work, stage)
    if not is_main_process():
        return
    for name in (name for stage in stages for name in _lists(work, stage)):
        found[name] = Ranks.load(_ranks_path(work, name))
    report = Report(
        found,
        recall_at=config.eval.recall_at,
        ndcg_at=config.eval.ndcg_at,
        num_items=work.catalog.num_items,
        scoring=config.scoring,
    )
    if new or not stages:
        _write_report(work, report, evaluated)
    else:
        say("evaluated before, with the same parameters and settings")
    print(report.table())
    if config.eval.exact and stages:
        print("\n" + exact_table({stage: evaluated[stage]["exact"] for stage in stages}))


def _evaluate_stage(work: Workspace, stage: str, rows: np.ndarray) -> dict[str, Any]:
    """Writes the ranks by a stage's best parameters; says at which step these were found, and what is exact."""
    config = work.config.eval
    trained, best = load_best(best_folder(work, stage), work.first_params)
    params = work.frozen.join(trained)
    batches = work.eval_batches(rows)
    with Progress(len(rows), f"test of {stage}", unit="users", enabled=is_main_process()) as progress:
        if not config.exact:
            search = work.search(config.num_beams)
            _save(work, stage, evaluate(search, params, batches, on_batch=progress.update))
            return {"step": best.step, "exact": {}}
        found = evaluate_exact(work.exact_search(), params, batches, on_batch=progress.update)
    _save(work, stage, found.beams)
    _save(work, f"{stage}-exact", found.ranks)
    return {"step": best.step, "exact": found.metrics()}


def _lists(work: Workspace, stage: str) -> list[str]:
    """The names of the ranks that a stage's evaluation leaves."""
    return [stage, f"{stage}-exact"] if work.config.eval.exact else [stage]


def _save(work: Workspace, name: str, ranks: Ranks) -> None:
    if is_main_process():
        ranks.save(_ranks_path(work, name))


def _ranks_path(work: Workspace, name: str) -> pathlib.Path:
    return work.folder / "ranks" / f"{name}.npz"


def _evaluation_of(work: Workspace, stage: str) -> dict[str, Any]:
    """What tells an evaluation: the parameters, and the files of its ranks."""
    paths = {name: _ranks_path(work, name) for name in _lists(work, stage)}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.exists()}
    return {"parameters": best_seal(best_folder(work, stage)), "ranks": hashes}


def _evaluated_before(work: Workspace) -> dict[str, dict[str, Any]]:
    """What results.json says of the stages whose ranks are still theirs: same run, settings, parameters and files."""
    path = work.folder / "results.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "identity" not in before or differences(before["identity"], work.identity()):
        return {}
    known = {stage: facts for stage, facts in before["evaluated"].items() if stage in STAGES}
    return {stage: facts for stage, facts in known.items() if facts == facts | _evaluation_of(work, stage)}


def _write_report(work: Workspace, report: Report, evaluated: dict[str, dict[str, Any]]) -> None:
    """results.json, the ranks of what needs no training, and plots."""
    for name in report.stages.keys() - {name for stage in evaluated for name in _lists(work, stage)}:
        report.stages[name].save(_ranks_path(work, name))
    run_facts = {
        "num_beams": work.config.eval.num_beams,
        "best_steps": {stage: facts["step"] for stage, facts in evaluated.items()},
        "exact": {stage: facts["exact"] for stage, facts in evaluated.items() if facts["exact"]},
        "data": work.dataset.fingerprint,
        "catalog": work.catalog.fingerprint,
        "config": dataclasses.asdict(work.config),
        "identity": work.identity(),
        "evaluated": evaluated,
    }
    plot_training(work.folder / "metrics.jsonl", work.folder / "plots")
    plot_stages(report.stages, work.folder / "plots" / "stages.png", recall_at=report.recall_at, ndcg_at=report.ndcg_at)
    write_results(work.folder / "results.json", report.summary() | run_facts)
