"""What the runs of a study came to: ranks by arm and seed, read from their files."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from wpauc_jax.config import ConfigError
from wpauc_jax.config.recorded import differences
from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.runtime.files import read_json
from wpauc_jax.stages.baselines import BASELINES
from wpauc_jax.study.plan import SFT, Study
from wpauc_jax.study.state import NAME, read_state


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the tables: an arm, the shared SFT, or a ranking that needs no training."""

    name: str
    is_arm: bool
    stage: str  # whose ranking counts; for a ranking without training its name
    settings: Mapping[str, Any]  # the difference from the base, tuned values included
    ranks: Mapping[int, Ranks]  # by seed; a run that failed is missing
    folders: Mapping[int, pathlib.Path]  # the work directories, by seed

    def mean(self, metric: str) -> float:
        """Over the seeds."""
        return sum(ranks.mean(metric) for ranks in self.ranks.values()) / len(self.ranks)


@dataclasses.dataclass(frozen=True)
class Results:
    """The rows of a study in the order of its tables, and what study.json says."""

    folder: pathlib.Path
    state: Mapping[str, Any]
    rows: Mapping[str, Row]
    data: Mapping[str, str]  # the data's fingerprint, by run

    @property
    def seeds(self) -> list[int]:
        """The seeds that every arm was to be trained with."""
        return [int(seed) for seed in self.state["seeds"]]

    def check(self, other: "Results | None" = None) -> None:
        """Raises RanksError where two runs, of this study or of both, have other data, or rank by another rule."""
        runs = {**self.data, **(other.data if other else {})}
        first = next(iter(runs.items()), ("", ""))
        for run, data in runs.items():
            if data != first[1]:
                raise RanksError(f"{run} was measured on other data than {first[0]}; delete the one that is wrong")
        rows = [*self.rows.values(), *(other.rows.values() if other else ())]
        rules = {ranks.rule: row.name for row in rows for ranks in row.ranks.values()}
        if len(rules) > 1:
            (rule, name), (another, second) = list(rules.items())[:2]
            raise RanksError(f"of {name} {rule}, of {second} {another}: one comparison needs one rule")


def open_results(folder: pathlib.Path, state: Mapping[str, Any]) -> Results:
    """The rows of the study in `folder`, whose study.json holds `state`. Raises RanksError for a damaged file."""
    rows: dict[str, Row] = {}
    data: dict[str, str] = {}
    base = {int(seed): folder / path for seed, path in state["runs"][SFT].items()}
    for name in (*BASELINES, SFT):
        rows[name] = _row(name, False, name, {}, base, data)
    for name, facts in state["arms"].items():
        runs = {int(seed): folder / path for seed, path in state["runs"].get(name, {}).items()}
        settings = facts["settings"] | ((state["tuned"].get(name) or {}).get("chosen") or {})
        rows[name] = _row(name, True, facts["stage"], settings, runs, data)
    return Results(folder, state, {name: row for name, row in rows.items() if row.ranks or row.is_arm}, data)


def check_joined(study: Study, folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """Another study's directory and study.json. Raises ConfigError where it is none, or of other data or rule."""
    state = read_state(folder) if folder.is_dir() else {}
    if not state:
        raise ConfigError(f"study.join={str(folder)!r} has no {NAME}: it is no study's directory")
    keys = ("data", "exclude_history")
    then = {key: state["base"].get(key, {}) for key in keys}
    now = {key: value for key, value in dataclasses.asdict(study.base).items() if key in keys}
    found = differences(then, now, leave_out=("data.cache", "data.dir"))
    if found:
        raise ConfigError(f"study.join={str(folder)!r} cannot be joined, its base has other data: {'; '.join(found)}")
    return folder, state


def joined(own: Results, other: Results | None) -> Results:
    """One study with the arms of both, for the tables. Where a name is in both, the other's says where it comes from.

    Raises RanksError where their data or rules differ.
    """
    if other is None:
        return own
    own.check(other)
    rows = dict(own.rows)
    for name, row in other.rows.items():
        if row.is_arm or name == SFT:
            label = f"{name} ({other.folder.name})" if name in rows else name
            rows[label] = dataclasses.replace(row, name=label)
    return dataclasses.replace(own, rows=rows, data={**own.data, **other.data})


def _row(
    name: str,
    is_arm: bool,
    stage: str,
    settings: Mapping[str, Any],
    runs: Mapping[int, pathlib.Path],
    data: dict[str, str],
) -> Row:
    ranks = {}
    for seed, run in runs.items():
        path = run / "ranks" / f"{stage}.npz"
        results = read_json(run / "results.json")
        if path.exists() and stage in results.get("stages", {}):
            ranks[seed] = Ranks.load(path)
            data[str(run)] = str(results.get("data", ""))
    return Row(name, is_arm, stage, settings, ranks, runs)
