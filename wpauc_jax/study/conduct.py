"""A study from its beginning to its pages: shared SFT, tuning on validation, the arms, and only then the test split."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from wpauc_jax.config import ConfigError
from wpauc_jax.config.names import with_settings
from wpauc_jax.stages.train import select_metric
from wpauc_jax.study.pages import write_pages
from wpauc_jax.study.plan import Arm, Study
from wpauc_jax.study.results import check_joined, open_results
from wpauc_jax.study.runs import Job, arm_folder, arm_job, base_folder, base_job, validation
from wpauc_jax.study.state import arm_facts, changed_arms, check_base, read_state, write_state
from wpauc_jax.study.workers import Outcome, Progress, Start, run_jobs

Say = Callable[[str], None]


def conduct(study: Study, folder: pathlib.Path, start: Start, say: Say, *, command: str = "") -> int:
    """Does what is not done of a study and writes its pages. Returns 0, or 1 where a run has failed.

    Raises ConfigError where the directory is another study's, or where the study to be joined cannot be.
    """
    _check_points(study)
    before = read_state(folder)
    check_base(folder, study, before)
    other = check_joined(study, pathlib.Path(study.options.join)) if study.options.join else None
    for name, how in changed_arms(study, before).items():
        say(f"arm {name!r} has changed ({how}): it is run anew; its earlier runs stay in {folder / 'arms' / name}")
    record = _Record(study, folder, before, command)
    record.write()
    tuning = _tuning_jobs(study, folder)
    arms = study.resolved()
    progress = Progress(len(tuning) + len(study.options.seeds) * (len(arms) + 1), study.options.workers, say)

    def do(jobs: list[Job]) -> None:
        run_jobs(
            jobs,
            start,
            say,
            workers=study.options.workers,
            done=record.add,
            progress=progress,
            failed=record.failed,
        )

    do(tuning)
    chosen = {arm.name: record.tune(arm, say) for arm in arms}
    do(_test_jobs(study, folder, chosen))
    record.write()
    results = open_results(folder, read_state(folder))
    results.check()
    write_pages(study, folder, results, open_results(*other) if other else None, say)
    for failure in record.failures:
        say(f"failed: {failure['run']}: {failure['error']}")
    return 1 if record.failures else 0


def _tuning_jobs(study: Study, folder: pathlib.Path) -> list[Job]:
    """The shared SFT of every seed; every point of the grids, with the first seed. None of it sees the test split."""
    first = study.options.seeds[0]
    jobs = [base_job(folder, study, seed, measured=False) for seed in study.options.seeds]
    for arm in study.resolved():
        if len(arm.points) > 1:
            jobs += [arm_job(folder, study, arm, point, first, measured=False) for point in arm.points]
    return jobs


def _test_jobs(study: Study, folder: pathlib.Path, chosen: Mapping[str, Mapping[str, Any] | None]) -> list[Job]:
    """The evaluation of the shared SFT, and every arm at what was chosen for it, seed by seed."""
    jobs = []
    for seed in study.options.seeds:
        jobs.append(base_job(folder, study, seed, measured=True))
        for arm in study.resolved():
            point = chosen[arm.name]
            if point is not None:
                jobs.append(arm_job(folder, study, arm, point, seed, measured=True))
    return jobs


class _Record:
    """What study.json holds, kept up to date after every run."""

    def __init__(self, study: Study, folder: pathlib.Path, before: Mapping[str, Any], command: str) -> None:
        self._study, self._folder = study, folder
        self._tuned: dict[str, Any] = {}
        self._chosen: dict[str, Mapping[str, Any]] = {}
        self._seconds: dict[str, float] = dict(before.get("seconds", {}))
        self._command = command or before.get("command", "")
        self.failures: list[dict[str, str]] = []
        self.failed: set[pathlib.Path] = set()

    def add(self, job: Job, outcome: Outcome) -> None:
        """A job was run."""
        key = str(job.folder.relative_to(self._folder))
        self._seconds[key] = round(self._seconds.get(key, 0.0) + outcome.seconds, 1)
        if outcome.error:
            self.failures.append({"arm": job.name, "run": job.title, "folder": key, "error": outcome.error})
        self.write()

    def tune(self, arm: Arm, say: Say) -> Mapping[str, Any] | None:
        """The point of an arm's grid that is best on validation, with the first seed; None where all failed."""
        if len(arm.points) == 1:
            self._chosen[arm.name] = arm.points[0]
            return arm.points[0]
        seed = self._study.options.seeds[0]
        values: list[tuple[float, Mapping[str, Any]]] = []
        rows = []
        for point in arm.points:
            metric = select_metric(with_settings(arm.config, point), arm.stage)
            found = validation(arm_folder(self._folder, self._study, arm, point, seed), arm.stage)
            rows.append({"point": dict(point), "metric": metric, "value": found and found.get(metric)})
            if found and metric in found:
                values.append((found[metric], point))
        self._tuned[arm.name] = {"seed": seed, "points": rows, "chosen": None}
        if not values:
            return None
        value, point = max(values, key=lambda pair: pair[0])
        self._tuned[arm.name]["chosen"] = dict(point)
        self._chosen[arm.name] = point
        say(f"arm {arm.name!r}: validation chooses {_shown(point)} ({rows[0]['metric']} {value:.4f})")
        self.write()
        return point

    def write(self) -> None:
        """Writes study.json."""
        study, folder = self._study, self._folder
        runs: dict[str, dict[str, str]] = {"sft": {}}
        for seed in study.options.seeds:
            runs["sft"][str(seed)] = str(base_folder(folder, seed).relative_to(folder))
        arms = {}
        for arm in study.resolved():
            arms[arm.name] = arm_facts(study, arm)
            if arm.name in self._chosen:
                point = self._chosen[arm.name]
                runs[arm.name] = {
                    str(seed): str(arm_folder(folder, study, arm, point, seed).relative_to(folder))
                    for seed in study.options.seeds
                }
        write_state(
            folder,
            {
                "base": dataclasses.asdict(study.base),
                "arms": arms,
                "controls": list(study.controls),
                "metrics": list(study.metrics),
                "seeds": list(study.options.seeds),
                "tuned": self._tuned,
                "runs": runs,
                "failures": self.failures,
                "seconds": self._seconds,
                "command": self._command,
            },
        )


def _shown(point: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in point.items())


def _check_points(study: Study) -> None:
    """Raises ConfigError where the points of one grid would be judged by different metrics."""
    for arm in study.resolved():
        metrics = {select_metric(with_settings(arm.config, point), arm.stage) for point in arm.points}
        if len(metrics) > 1:
            raise ConfigError(
                f"arm {arm.name!r}: its grid would compare {' with '.join(sorted(metrics))}; set eval.select"
            )
