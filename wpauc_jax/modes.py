"""What each `--config.mode` does with a work directory."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import jax

from wpauc_jax.config import Config, ConfigError
from wpauc_jax.data.prepare import prepare
from wpauc_jax.runtime.distributed import is_main_process
from wpauc_jax.runtime.files import atomic_path, read_json, unless_read_only
from wpauc_jax.runtime.lock import respected, taken, unlocked
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.runtime.trackers import check_tracking
from wpauc_jax.stages.evaluate import evaluate_workspace
from wpauc_jax.stages.export import export
from wpauc_jax.stages.homes import home, is_trained
from wpauc_jax.stages.recommend import asked, recommend
from wpauc_jax.stages.recommender import answering, recommender_of
from wpauc_jax.stages.run import Run, Say, open_prepared, open_run, with_model
from wpauc_jax.stages.run import tell as _say
from wpauc_jax.stages.sizes import check_sizes
from wpauc_jax.stages.train import STAGES
from wpauc_jax.stages.workspace import Workspace, open_workspace, workspace_of
from wpauc_jax.training.checkpoint import holds_steps


def run_all(config: Config, folder: pathlib.Path) -> None:
    """Prepare, SFT, RL, evaluate; what is done already is not done again, and RL of no step is left out."""
    left_out = {"sft": bool(config.sft_from), "rl": not (config.rl.steps or config.rl.epochs)}
    _evaluate(_train(config, folder, *(stage for stage in STAGES if not left_out[stage])))


def _prepare_only(config: Config, folder: pathlib.Path) -> None:
    open_workspace(config, folder, _say)


def _sft_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, "sft")


def _rl_only(config: Config, folder: pathlib.Path) -> None:
    _train(config, folder, "rl")


def _evaluate_only(config: Config, folder: pathlib.Path) -> None:
    _evaluate(_sized_workspace(config, folder))


def _recommend_only(config: Config, folder: pathlib.Path) -> None:
    prepared = open_prepared(config, folder, _say)
    histories = asked(prepared, say=_say)
    recommender = recommender_of(Run(**with_model(prepared, _say)), _say)
    recommend(recommender, histories, config.recommend, folder, say=_say)


def _export_only(config: Config, folder: pathlib.Path) -> None:
    run = open_run(config, folder, _say)
    export(run, answering(run, _say), say=_say)


def _doctor(config: Config, folder: pathlib.Path) -> int:
    from wpauc_jax.doctor import examine  # and with it what reads raw files

    examination = examine(open_workspace(config, folder, _say))
    if is_main_process():
        print(examination.page())
    return 1 if examination.problems else 0


def _compile_check(config: Config, folder: pathlib.Path) -> int:
    from wpauc_jax.compile_check.check import compile_check

    return compile_check(config, print)


_TRACES = ("catalog.npz", "catalog.json", "data/manifest.json", "sft/best", "rl/best")


def _a_run(config: Config, folder: pathlib.Path) -> None:
    """Raises ConfigError where no run was prepared in `folder`: a later mode does not make one."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} does not exist: mode={config.mode} needs a run's work directory; see --workdir")
    if not any((folder / trace).exists() for trace in _TRACES):
        raise ConfigError(
            f"{folder} is no run's work directory (it has no catalog and nothing that was trained); give another "
            "--workdir, or start with mode=prepare or mode=all"
        )


def _a_trained_stage(config: Config, folder: pathlib.Path) -> None:
    if not any(is_trained(config, folder, stage) for stage in STAGES):
        raise ConfigError(f"nothing is trained in {folder}: start with mode=all, or with mode=sft")


def _the_other_sft(config: Config, folder: pathlib.Path) -> None:
    if config.sft_from:
        _check_sft("sft_from", config.sft_from)


def _a_start(config: Config, folder: pathlib.Path) -> None:
    start = config.sft.start_from
    if not start:
        return
    if pathlib.Path(start).resolve() == folder.resolve():
        raise ConfigError(f"sft.start_from={start!r} is this work directory; give another --workdir")
    _check_sft("sft.start_from", start)


def _a_judge(config: Config, folder: pathlib.Path) -> None:
    _check_run("rl.reward_from", config.rl.reward_from)


def _a_guide(config: Config, folder: pathlib.Path) -> None:
    _check_run("eval.guide", config.eval.guide)


def _check_run(setting: str, other: str) -> None:
    """Raises ConfigError where a setting names a folder that is no run's work directory."""
    if other and not (pathlib.Path(other) / "config.json").is_file():
        raise ConfigError(f"{setting}={other!r} is no run's work directory: it has no config.json")


def _check_sft(setting: str, other: str) -> None:
    """Raises ConfigError where the other work directory that a setting names has no trained SFT."""
    if not holds_steps(pathlib.Path(other, "sft", "best")):
        raise ConfigError(f"{setting}={other!r} has no trained SFT; train it there with mode=sft first")


def _an_sft(config: Config, folder: pathlib.Path) -> None:
    if not is_trained(config, folder, "sft"):
        best = home(config, folder, "sft") / "sft" / "best"
        raise ConfigError(f"{best} holds no parameters: start with mode=sft, or set sft_from")


@dataclasses.dataclass(frozen=True)
class Mode:
    """What a mode is: its function, and what must hold before it does anything.

    `lock` says who else may be at work in the directory. A mode that writes there is alone: `taken`. A mode that reads
    refuses to run beside a writer: `respected`. None: the mode has no work directory, and makes a mesh of its own.
    """

    run: Callable[[Config, pathlib.Path], int | None]
    lock: Callable[[pathlib.Path, Say], AbstractContextManager[None]] | None
    needs: tuple[Callable[[Config, pathlib.Path], None], ...] = ()  # each raises ConfigError where something is missing

    def __call__(self, config: Config, folder: pathlib.Path) -> int | None:
        """The function alone."""
        return self.run(config, folder)


# What a user can ask for by name.
MODES: dict[str, Mode] = {
    "all": Mode(run_all, taken, (_the_other_sft, _a_start, _a_judge, _a_guide)),
    "prepare": Mode(_prepare_only, taken),
    "doctor": Mode(_doctor, unlocked, (_a_run,)),
    "sft": Mode(_sft_only, taken, (_a_start, _a_guide)),
    "rl": Mode(_rl_only, taken, (_the_other_sft, _an_sft, _a_judge, _a_guide)),
    "evaluate": Mode(_evaluate_only, taken, (_a_run, _a_guide)),
    "recommend": Mode(_recommend_only, respected, (_a_run, _a_trained_stage, _a_guide)),
    "export": Mode(_export_only, respected, (_a_run, _a_trained_stage)),
    "compile_check": Mode(_compile_check, None),
}


def run(config: Config, folder: pathlib.Path) -> int | None:
    """Does what `config.mode` says, on the mesh of all devices; the program ends with what it returns, None being 0."""
    check_tracking(config.tracking)
    mode = MODES[config.mode]
    if mode.lock is None:
        return mode(config, folder)
    for need in mode.needs:
        need(config, folder)
    with mode.lock(folder, _say), jax.set_mesh(make_mesh(config.mesh)):
        return mode(config, folder)


def _evaluate(work: Workspace) -> None:
    """Results first; then the page that shows them, without which they are whole."""
    evaluate_workspace(work, _say)
    if is_main_process():
        from wpauc_jax.report.write import keep_report  # and with it matplotlib

        keep_report(work.folder, work.dataset, _say)


def _train(config: Config, folder: pathlib.Path, *stages: str) -> Workspace:
    """Trains stages. config.json says how the directory was trained: other modes and refused runs do not change it."""
    work = _sized_workspace(config, folder, *stages)
    path = folder / "config.json"
    damaged = path.exists() and not read_json(path)
    if damaged:
        _say(f"{path} is damaged: it is made anew")
    if damaged or not path.exists():
        _keep_config(path, config)
    for stage in stages:
        STAGES[stage](work, _say)
    _keep_config(path, config)
    return work


def _sized_workspace(config: Config, folder: pathlib.Path, *stages: str) -> Workspace:
    """The workspace, for which the catalog is large enough; that is seen before there is a model."""
    prepared = open_prepared(config, folder, _say, read=prepare)
    check_sizes(prepared, _say, trains=stages)
    return workspace_of(prepared, _say)


def _keep_config(path: pathlib.Path, config: Config) -> None:
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    if not is_main_process() or (path.exists() and path.read_bytes() == text.encode()):
        return
    with unless_read_only(path, _say), atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
