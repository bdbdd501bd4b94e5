"""What each `--config.mode` does with a work directory."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax

from wpauc_jax.compile_check.check import compile_check
from wpauc_jax.config import Config
from wpauc_jax.doctor import examine
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_path
from wpauc_jax.runtime.lock import respected, taken, unlocked
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages.evaluate import evaluate_workspace
from wpauc_jax.stages.export import export
from wpauc_jax.stages.recommend import recommend
from wpauc_jax.stages.recommender import latest_params, open_recommender
from wpauc_jax.stages.run import open_run
from wpauc_jax.stages.train import STAGES
from wpauc_jax.stages.workspace import Workspace, open_workspace


def run_all(config: Config, folder: pathlib.Path) -> None:
    """Prepare, SFT, RL, evaluate; what is done already is not done again."""
    stages = [stage for stage in STAGES if not (stage == "sft" and config.sft_from)]
    evaluate_workspace(_train(config, folder, *stages), _say)


def _prepare_only(config: Config, folder: pathlib.Path) -> None:
    open_workspace(config, folder, _say)


def _sft_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, "sft")


def _rl_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, "rl")


def _evaluate_only(config: Config, folder: pathlib.Path) -> None:
    evaluate_workspace(open_workspace(config, folder, _say), _say)


def _recommend_only(config: Config, folder: pathlib.Path) -> None:
    recommend(open_recommender(config, folder, _say), config.recommend, folder, say=_say)


def _export_only(config: Config, folder: pathlib.Path) -> None:
    run = open_run(config, folder, _say)
    export(run, latest_params(run), say=_say)


def _doctor(config: Config, folder: pathlib.Path) -> int:
    examination = examine(open_workspace(config, folder, _say))
    if is_main_process():
        print(examination.page())
    return 1 if examination.problems else 0


def _compile_check(config: Config, folder: pathlib.Path) -> int:
    return compile_check(config, print)


# What a user can ask for by name.
MODES: dict[str, Callable[[Config, pathlib.Path], int | None]] = {
    "all": run_all,
    "prepare": _prepare_only,
    "doctor": _doctor,
    "sft": _sft_only,
    "rl": _rl_only,
    "evaluate": _evaluate_only,
    "recommend": _recommend_only,
    "export": _export_only,
    "compile_check": _compile_check,
}

_ELSEWHERE = {"compile_check"}  # for devices that are not here: such a mode makes a mesh of its own


# By `mode`. A mode that writes in the work directory is alone there. A mode that reads waits for no writer: it refuses.
LOCKS = {
    **dict.fromkeys(("all", "prepare", "sft", "rl", "evaluate"), taken),
    **dict.fromkeys(("recommend", "export"), respected),
    "doctor": unlocked,
}


def run(config: Config, folder: pathlib.Path) -> int | None:
    """Does what `config.mode` says, on the mesh of all devices; the program ends with what it returns, None being 0."""
    if config.mode in _ELSEWHERE:
        return MODES[config.mode](config, folder)
    with LOCKS[config.mode](folder, _say), jax.set_mesh(make_mesh(config.mesh)):
        return MODES[config.mode](config, folder)


def _say(text: str) -> None:
    if is_main_process():
        print(text, file=sys.stderr, flush=True)


def _train(config: Config, folder: pathlib.Path, *stages: str) -> Workspace:
    """Trains stages. config.json says how the directory was trained: other modes and refused runs do not change it."""
    work = open_workspace(config, folder, _say)
    if not (folder / "config.json").exists():
        _write_json(folder / "config.json", dataclasses.asdict(config))
    for stage in stages:
        STAGES[stage](work)
    _write_json(folder / "config.json", dataclasses.asdict(config))
    return work


def _write_json(path: pathlib.Path, content: Any) -> None:
    if not is_main_process():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
