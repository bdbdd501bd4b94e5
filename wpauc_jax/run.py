"""What each `--config.mode` does with a work directory."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax

from wpauc_jax.baselines import optimal_ranks, popularity_ranks
from wpauc_jax.checkpoint import BestCheckpoint, load_params
from wpauc_jax.compile_check import compile_check
from wpauc_jax.config import Config
from wpauc_jax.data.dataset import positions
from wpauc_jax.data.sources.synthetic import make_world
from wpauc_jax.distributed import is_main_process
from wpauc_jax.doctor import examine
from wpauc_jax.evaluate import Exact, evaluate, evaluate_exact
from wpauc_jax.export import export
from wpauc_jax.files import atomic_path
from wpauc_jax.models import Params
from wpauc_jax.plots import plot_stages, plot_training
from wpauc_jax.ranks import Ranks
from wpauc_jax.recommend import recommend
from wpauc_jax.report import exact_table, final_table, summarise, write_results
from wpauc_jax.sharding import make_mesh
from wpauc_jax.train import best_folder, run_rl, run_sft
from wpauc_jax.workspace import Workspace, open_workspace
from wpauc_jax.writers import Progress

STAGES = ("sft", "rl")


def run_all(config: Config, folder: pathlib.Path) -> None:
    """Prepare, SFT, RL, evaluate; what is done already is not done again."""
    work = _open(config, folder)
    if not config.sft_from:
        run_sft(work)
    run_rl(work)
    _evaluate(work)


def _prepare_only(config: Config, folder: pathlib.Path) -> None:
    _open(config, folder)


def _sft_only(config: Config, folder: pathlib.Path) -> None:
    run_sft(_open(config, folder))


def _rl_only(config: Config, folder: pathlib.Path) -> None:
    run_rl(_open(config, folder))


def _evaluate_only(config: Config, folder: pathlib.Path) -> None:
    _evaluate(_open(config, folder))


def _recommend_only(config: Config, folder: pathlib.Path) -> None:
    work = _open(config, folder)
    recommend(work, _latest_params(work), say=_say)


def _export_only(config: Config, folder: pathlib.Path) -> None:
    work = _open(config, folder)
    export(work, _latest_params(work), say=_say)


def _latest_params(work: Workspace) -> Params:
    """All parameters as the last stage that was trained left them at its best."""
    stage = next((stage for stage in reversed(STAGES) if best_folder(work, stage).is_dir()), "sft")
    return work.frozen.join(load_params(best_folder(work, stage), work.first_params))


def _doctor(config: Config, folder: pathlib.Path) -> int:
    examination = examine(open_workspace(config, folder, _say))
    print(examination.page())
    return 1 if examination.problems else 0


def run(config: Config, folder: pathlib.Path) -> int | None:
    """Does what `config.mode` says, on the mesh of all devices; the program ends with what it returns, None being 0."""
    if config.mode == "compile_check":
        return compile_check(config, print)  # on a mesh of devices that are not here
    with jax.set_mesh(make_mesh(config.mesh)):
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


def _say(text: str) -> None:
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def _open(config: Config, folder: pathlib.Path) -> Workspace:
    work = open_workspace(config, folder, _say)
    if is_main_process():
        with atomic_path(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    return work


def _evaluate(work: Workspace) -> None:
    """Ranks of the whole test split by popularity and by every trained stage; table, results.json, plots."""
    rows = positions(work.dataset, "test")
    config = work.config
    found = {"popularity": popularity_ranks(work.dataset, rows)}
    if config.data.source == "synthetic":
        world = make_world(config.data.synthetic)
        found["optimum"] = optimal_ranks(world, work.dataset, rows, config.data.max_history)
    search = work.search(config.eval.num_beams)
    batches = work.eval_batches(rows)
    best_steps, exact = {}, {}
    for stage in STAGES:
        folder = best_folder(work, stage)
        if not folder.is_dir():
            continue
        with BestCheckpoint(folder, read_only=True) as checkpoint:
            params, best = checkpoint.load(work.first_params)
        best_steps[stage] = best.step
        params = work.frozen.join(params)
        with Progress(len(rows), f"test of {stage}", unit="users", enabled=is_main_process()) as progress:
            found[stage] = evaluate(search, params, batches, on_batch=progress.update)
        if config.eval.exact:
            exact[stage] = _exact(work, params, batches, stage)
            found[f"{stage}-exact"] = exact[stage].ranks
    if is_main_process():
        for stage, ranks in found.items():
            ranks.save(work.folder / "ranks" / f"{stage}.npz")
        _report(work, found, best_steps, exact)


def _exact(work: Workspace, params: Params, batches: Any, stage: str) -> Exact:
    rows, config = len(positions(work.dataset, "test")), work.config.eval
    with Progress(rows, f"test of {stage} among all items", unit="users", enabled=is_main_process()) as progress:
        return evaluate_exact(
            work.exact_search(),
            params,
            batches,
            num_items=work.catalog.num_items,
            ks=config.recall_at,
            on_batch=progress.update,
        )


def _report(work: Workspace, found: dict[str, Ranks], best_steps: dict[str, int], exact: dict[str, Exact]) -> None:
    """The table on the terminal, results.json and plots."""
    config = work.config
    facts: dict[str, Any] = {
        "recall_at": config.eval.recall_at,
        "ndcg_at": config.eval.ndcg_at,
        "num_items": work.catalog.num_items,
        "scoring": config.scoring,
    }
    run_facts = {
        "num_beams": config.eval.num_beams,
        "best_steps": best_steps,
        "data": work.dataset.fingerprint,
        "catalog": work.catalog.fingerprint,
        "config": dataclasses.asdict(config),
        "exact": {stage: found.metrics() for stage, found in exact.items()},
    }
    write_results(work.folder / "results.json", {**summarise(found, **facts), **run_facts})
    plot_training(work.folder / "metrics.jsonl", work.folder / "plots")
    plot_stages(
        found, work.folder / "plots" / "stages.png", recall_at=config.eval.recall_at, ndcg_at=config.eval.ndcg_at
    )
    print(final_table(found, **facts))
    if exact:
        print("\n" + exact_table(exact))
