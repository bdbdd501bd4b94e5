"""What each `--config.mode` does with a work directory."""

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wpauc_jax.compile_check.check import compile_check
from wpauc_jax.config import Config
from wpauc_jax.data.dataset import positions
from wpauc_jax.data.sources.synthetic import make_world
from wpauc_jax.doctor import examine
from wpauc_jax.evaluation.baselines import optimal_ranks, popularity_ranks
from wpauc_jax.evaluation.evaluate import evaluate, evaluate_exact
from wpauc_jax.evaluation.plots import plot_stages, plot_training
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import Report, exact_table, write_results
from wpauc_jax.models import Params
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_path
from wpauc_jax.runtime.lock import respected, taken, unlocked
from wpauc_jax.runtime.progress import Progress
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages.export import export
from wpauc_jax.stages.recommend import recommend
from wpauc_jax.stages.train import best_folder, run_rl, run_sft
from wpauc_jax.stages.workspace import Workspace, open_workspace
from wpauc_jax.training.checkpoint import best_seal, load_best, load_params

STAGES = ("sft", "rl")


def run_all(config: Config, folder: pathlib.Path) -> None:
    """Prepare, SFT, RL, evaluate; what is done already is not done again."""
    _evaluate(_train(config, folder, *([] if config.sft_from else [run_sft]), run_rl))


def _prepare_only(config: Config, folder: pathlib.Path) -> None:
    open_workspace(config, folder, _say)


def _sft_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, run_sft)


def _rl_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, run_rl)


def _evaluate_only(config: Config, folder: pathlib.Path) -> None:
    _evaluate(open_workspace(config, folder, _say))


def _recommend_only(config: Config, folder: pathlib.Path) -> None:
    work = open_workspace(config, folder, _say)
    recommend(work, _latest_params(work), say=_say)


def _export_only(config: Config, folder: pathlib.Path) -> None:
    work = open_workspace(config, folder, _say)
    export(work, _latest_params(work), say=_say)


def _latest_params(work: Workspace) -> Params:
    """All parameters as the last stage that was trained left them at its best."""
    stage = next((stage for stage in reversed(STAGES) if best_folder(work, stage).is_dir()), "sft")
    return work.frozen.join(load_params(best_folder(work, stage), work.first_params))


def _doctor(config: Config, folder: pathlib.Path) -> int:
    examination = examine(open_workspace(config, folder, _say))
    if is_main_process():
        print(examination.page())
    return 1 if examination.problems else 0


def run(config: Config, folder: pathlib.Path) -> int | None:
    """Does what `config.mode` says, on the mesh of all devices; the program ends with what it returns, None being 0."""
    if config.mode == "compile_check":
        return compile_check(config, print)  # on a mesh of devices that are not here
    with LOCKS[config.mode](folder, _say), jax.set_mesh(make_mesh(config.mesh)):
        return MODES[config.mode](config, folder)


MODES: dict[str, Callable[[Config, pathlib.Path], int | None]] = {
    "all": run_all,
    "prepare": _prepare_only,
    "doctor": _doctor,
    "sft": _sft_only,
    "rl": _rl_only,
    "evaluate": _evaluate_only,
    "recommend": _recommend_only,
    "export": _export_only,
}


# Who writes in the work directory is alone there; who only reads does not do so while another one writes.
LOCKS = {
    **dict.fromkeys(("all", "prepare", "sft", "rl", "evaluate"), taken),
    **dict.fromkeys(("recommend", "export"), respected),
    "doctor": unlocked,
}


def _say(text: str) -> None:
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def _train(config: Config, folder: pathlib.Path, *stages: Callable[[Workspace], object]) -> Workspace:
    """config.json says how the directory was trained: other modes leave it alone, and so does a run that is refused."""
    work = open_workspace(config, folder, _say)
    if not (folder / "config.json").exists():
        _write_json(folder / "config.json", dataclasses.asdict(config))
    for stage in stages:
        stage(work)
    _write_json(folder / "config.json", dataclasses.asdict(config))
    return work


def _write_json(path: pathlib.Path, content: Any) -> None:
    if not is_main_process():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _evaluate(work: Workspace) -> None:
    """Ranks of the whole test split by popularity and by every trained stage; table, results.json, plots.

    A stage whose parameters were evaluated before, in the same way, is not evaluated again.
    """
    config, rows = work.config, positions(work.dataset, "test")
    found = {"popularity": popularity_ranks(work.dataset, rows)}
    if config.data.source == "synthetic":
        world = make_world(config.data.synthetic)
        found["optimum"] = optimal_ranks(world, work.dataset, rows, config.data.max_history)
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
        _say("evaluated before, with the same parameters and settings")
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
    if before.get("identity") != json.loads(json.dumps(work.identity())):
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
