"""Several runs side by side: their tables, curves and settings."""

from collections.abc import Mapping
from typing import Any

from wpauc_jax.report.drawings import curves_drawing, recall_drawing
from wpauc_jax.report.facts import RunFacts
from wpauc_jax.report.page import Block, Gallery, Points, Table, Text
from wpauc_jax.report.sections import shown, stage_tables


def comparison(runs: Mapping[str, RunFacts]) -> list[Block]:
    """What can be told about all of them; a warning where they cannot be compared."""
    return [*_warnings(runs), *_table(runs), *_drawings(runs), *_settings(runs)]


def _warnings(runs: Mapping[str, RunFacts]) -> list[Block]:
    lines = [
        f"Warning: the runs are of different {what}: their numbers cannot be compared."
        for name, what in (("data", "data"), ("samples", "test samples"), ("rule", "rules of ranking"))
        if len({run.results.get(name) for run in runs.values()}) > 1
    ]
    lines.append(
        "Whether a difference is more than chance: wpauc compare A/ranks/rl.npz B/ranks/rl.npz, with the "
        "folders of two runs"
    )
    return [Points(lines)]


def _table(runs: Mapping[str, RunFacts]) -> list[Block]:
    """Trained stages of all runs, and what needs no training by the first run; the metrics that all of them have."""
    first = next(iter(runs.values()))
    untrained = {name: row for name, row in first.results["stages"].items() if name not in first.trained}
    rows = dict(untrained)
    for title, run in runs.items():
        rows |= {f"{title}: {stage}": run.results["stages"][stage] for stage in run.trained}
    shared = [
        name for name in next(iter(rows.values()))["metrics"] if all(name in row["metrics"] for row in rows.values())
    ]
    rows = {title: row | {"metrics": {name: row["metrics"][name] for name in shared}} for title, row in rows.items()}
    return [*stage_tables(rows, first.results["items"])] if shared else [Text("The runs have no metric in common.")]


def _drawings(runs: Mapping[str, RunFacts]) -> list[Block]:
    """Recall@K of each run's last stage, and validation curves by stage."""
    last = {
        title: run.ranks[run.trained[-1]] for title, run in runs.items() if run.trained and run.trained[-1] in run.ranks
    }
    drawings = [recall_drawing(last)] if last else []
    for stage in dict.fromkeys(stage for run in runs.values() for stage in run.trained):
        lines = {
            title: [line for line in run.lines if line["stage"] == f"{stage}/valid"] for title, run in runs.items()
        }
        lines = {title: own for title, own in lines.items() if own}
        metric = _aim(next(iter(runs.values())), stage, next(iter(lines.values()), [{}])[0])
        points = {
            title: [(line["step"], line[metric]) for line in own if line.get(metric) is not None]
            for title, own in lines.items()
        }
        points = {title: own for title, own in points.items() if own}
        if points:
            drawings.append(curves_drawing(points, metric, stage))
    return [Gallery(drawings)] if drawings else []


def _aim(run: RunFacts, stage: str, line: Mapping[str, Any]) -> str:
    """Of the metrics of a validation line the one that the stage aims at, as far as that is known."""
    measured = [name for name in line if "@" in name]
    wanted = [run.setting("eval.select"), f"recall@{run.setting('rl.target_k')}" if stage == "rl" else ""]
    return next((name for name in wanted if name in measured), measured[-1] if measured else "")


def _settings(runs: Mapping[str, RunFacts]) -> list[Block]:
    """The settings that are not the same in all runs."""
    names = sorted({name for run in runs.values() for name in run.settings} - {"mode"})
    values = {name: [run.setting(name) for run in runs.values()] for name in names}
    rows = [[name, *map(shown, own)] for name, own in values.items() if any(value != own[0] for value in own)]
    if not rows:
        return [Text("All runs have the same settings.")]
    return [Text("Settings that differ:"), Table(["setting", *runs], rows, words=True)]
