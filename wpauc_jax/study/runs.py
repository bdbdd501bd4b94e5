"""The runs of a study: where each is kept, with which settings, and whether it is done, as its files tell."""

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from wpauc_jax.config import Config
from wpauc_jax.config.names import changes_between, with_settings
from wpauc_jax.config.recorded import differences
from wpauc_jax.runtime.files import atomic_path, read_json
from wpauc_jax.study.plan import SFT, Arm, Study
from wpauc_jax.training.checkpoint import finished_record

_PLACES = (
    "mode",
    "sft_from",
    "sft.start_from",
    "data.dir",
    "data.root",
    "data.cache",
    "compile_cache",
)  # where, and not what


@dataclasses.dataclass(frozen=True)
class Job:
    """One run, or a part of it, in a process of its own: some modes of `main` in one work directory."""

    name: str  # the arm, or "sft" for the shared SFT
    seed: int
    folder: pathlib.Path
    config: Config
    modes: tuple[str, ...]
    stage: str  # the last stage that it trains
    part: str = ""  # what the progress line adds to the name
    base: pathlib.Path | None = None  # the run that must have trained before
    shares_catalog: bool = False  # whether the catalog of `base` is its own

    @property
    def title(self) -> str:
        """What the progress line says of it."""
        return f"{self.name}{f' ({self.part})' if self.part else ''}, seed {self.seed}"

    @property
    def measures(self) -> bool:
        """Whether it looks at the test split."""
        return self.modes[-1] in ("all", "evaluate")

    def is_done(self) -> bool:
        """Whether its files say that nothing is left to do."""
        return is_measured(self) if self.measures else validation(self.folder, self.stage) is not None


def base_folder(folder: pathlib.Path, seed: int) -> pathlib.Path:
    """Where the shared SFT of a seed is kept."""
    return folder / "base" / f"seed{seed}"


def arm_folder(folder: pathlib.Path, study: Study, arm: Arm, point: Mapping[str, Any], seed: int) -> pathlib.Path:
    """Where an arm's run is kept: under a hash of what makes it another run than the base's.

    So a changed arm gets a folder of its own, and the earlier runs stay.
    """
    changes = changes_between(study.base, with_settings(arm.config, point))
    key = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()[:8]
    return folder / "arms" / arm.name / key / f"seed{seed}"


def base_job(folder: pathlib.Path, study: Study, seed: int, *, measured: bool) -> Job:
    """The shared SFT of a seed; `measured`, its ranks of the test split and those of what needs no training."""
    config = with_settings(study.base, {"seed": seed, "data.dir": _data(folder, study), "mode": "sft"})
    first = base_folder(folder, study.options.seeds[0])  # which prepares the data
    own = base_folder(folder, seed)
    modes = ("evaluate",) if measured else ("sft",)
    needed = own if measured else None if own == first else first
    part = "evaluation" if measured else "training"
    return Job(SFT, seed, own, config, modes, "sft", part, needed, shares_catalog=needed == first and own != first)


def arm_job(
    folder: pathlib.Path, study: Study, arm: Arm, point: Mapping[str, Any], seed: int, *, measured: bool
) -> Job:
    """The run of an arm at a point of its grid; `measured`, with its ranks of the test split."""
    base = base_folder(folder, seed)
    places: dict[str, Any] = {
        "seed": seed,
        "data.dir": _data(folder, study),
        "mode": {"rl": "all", "sft": "sft"}[arm.stage],
    }
    if arm.shares_sft:
        places["sft_from"] = str(base.absolute())  # however the next start spells the study's directory
    if arm.goes_on:
        places["sft.start_from"] = str(base.absolute())
    config = with_settings(with_settings(arm.config, point), places)
    stages = ("sft",) if arm.stage == "sft" else ("rl",) if arm.shares_sft else ("sft", "rl")
    modes = stages if not measured else ("sft", "evaluate") if arm.stage == "sft" else ("all",)
    part = ", ".join(f"{name}={value}" for name, value in point.items()) if not measured else ""
    own = arm_folder(folder, study, arm, point, seed)
    return Job(arm.name, seed, own, config, modes, arm.stage, part, base, arm.shares_catalog)


def make_ready(job: Job) -> None:
    """Writes the settings of a job's run into its folder, as a file that `main` reads, and gives it its catalog."""
    job.folder.mkdir(parents=True, exist_ok=True)
    text = _FILE.format(settings=_literal(changes_between(Config(), job.config)))
    path = job.folder / "run.py"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if job.base is None or not job.shares_catalog:
        return
    for name in ("catalog.npz", "catalog.json"):
        if (job.base / name).exists() and not (job.folder / name).exists():
            with atomic_path(job.folder / name) as temporary:
                shutil.copyfile(job.base / name, temporary)


def command(job: Job) -> list[str]:
    """The arguments of `main` that do the first mode of a job."""
    return [f"--config={job.folder / 'run.py'}", f"--workdir={job.folder}", f"--config.mode={job.modes[0]}"]


def is_measured(job: Job) -> bool:
    """Whether results.json of a run is of these settings, and its ranks are the files that it speaks of."""
    results = read_json(job.folder / "results.json")
    facts = results.get("evaluated", {}).get(job.stage)
    if not isinstance(facts, dict) or not isinstance(results.get("config"), dict):
        return False
    if differences(results["config"], dataclasses.asdict(job.config), leave_out=_PLACES):
        return False
    ranks = {name: job.folder / "ranks" / f"{name}.npz" for name in results.get("stages", {})}
    if not all(path.exists() for path in ranks.values()):
        return False
    kept = facts.get("ranks", {})
    return all(hashlib.sha256(ranks[name].read_bytes()).hexdigest() == kept[name] for name in kept if name in ranks)


def validation(folder: pathlib.Path, stage: str) -> dict[str, float] | None:
    """The validation metrics of a finished stage's best parameters; None where the stage is not finished."""
    record = finished_record(folder / stage / "checkpoints", folder / stage / "best")
    return None if record is None else record["best_metrics"]


def _data(folder: pathlib.Path, study: Study) -> str:
    return study.base.data.dir or str(folder / "data")


def _literal(settings: Mapping[str, Any]) -> str:
    return "".join(f"    {name!r}: {value!r},\n" for name, value in settings.items())


_FILE = '''"""A run of a study: python -m wpauc_jax.main --config=THIS_FILE --workdir=ITS_FOLDER"""

from wpauc_jax.config import Config, to_config_dict
from wpauc_jax.config.names import with_settings

SETTINGS = {{
{settings}}}


def get_config(arg=None):
    return to_config_dict(with_settings(Config(), SETTINGS))
'''
