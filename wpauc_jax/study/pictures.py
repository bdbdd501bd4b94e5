"""The pictures of a study, each with its numbers beside it as CSV.

Error bars are one standard error of the difference from the first control, over users and seeds. The runs of an arm and
of its control share users, seeds and mostly the SFT, so this is far less than the error of either value.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from wpauc_jax.evaluation.bootstrap import seeded_error
from wpauc_jax.evaluation.plots import COLOURS, STYLE, save_figure
from wpauc_jax.evaluation.report import metric_title
from wpauc_jax.report.page import Picture
from wpauc_jax.runtime.files import atomic_path
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages.baselines import BASELINES
from wpauc_jax.study.comparisons import common_seeds, is_whole
from wpauc_jax.study.plan import SFT
from wpauc_jax.study.results import Results, Row

_DRAWS = 400  # of the bootstrap behind an error bar
_LONGEST = 50  # the K up to which lists are looked at
_MARKS = "os^Dv<>P"  # so that print in black and white can be read
_LINES = ("-", "--")  # once the colours are used up
_BOUND = "#555555"

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure, its numbers and what it shows."""

    figure: Figure
    numbers: Rows
    caption: str


def make_pictures(folder: pathlib.Path, results: Results, control: str, metrics: Sequence[str]) -> list[Picture]:
    """Writes every picture that the rows allow, as FOLDER/NAME.png and FOLDER/NAME.csv.

    control: the row from which differences are taken. metrics: what wall time is drawn against; the first of them.
    Raises RanksError where rows hold other samples.
    """
    made = []
    for name, draw in PICTURES.items():
        with matplotlib.rc_context(STYLE):
            drawn = draw(results, control, metrics)
            if drawn is None:
                continue
            save_figure(drawn.figure, folder / f"{name}.png")
        write_csv(folder / f"{name}.csv", drawn.numbers)
        made.append(Picture(folder / f"{name}.png", drawn.caption))
    return made


def write_csv(path: pathlib.Path, rows: Rows) -> None:
    """Writes rows under the names of the first one; a value that is not known is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and math.isnan(value) else value


def anchor_picture(results: Results, control: str, metrics: Sequence[str]) -> Drawn | None:
    """Recall@K against the anchor, a line and a panel for each K; None where fewer than two arms set `rl.anchor`."""
    arms = [row for row in results.rows.values() if row.is_arm and "rl.anchor" in row.settings]
    arms = sorted((row for row in arms if is_whole(results, row)), key=lambda row: row.settings["rl.anchor"])
    if len({row.settings["rl.anchor"] for row in arms}) < 2 or control not in results.rows:
        return None
    ks = [k for k in results.state["base"]["eval"]["recall_at"] if k <= _longest(results)]
    levels = [row for row in results.rows.values() if row.name == control or _is_bound(row)]
    figure = Figure(figsize=(2.6 * len(ks) + 0.6, 3.1), layout="constrained")
    numbers: Rows = []
    for i, (axis, k) in enumerate(zip(figure.subplots(1, len(ks), squeeze=False)[0], ks, strict=True)):
        metric = f"recall@{k}"
        points = [(row.settings["rl.anchor"], row.mean(metric), _error(results, control, row, metric)) for row in arms]
        anchors, values, errors = map(list, zip(*points, strict=True))
        axis.errorbar(anchors, values, errors, color=COLOURS[i % len(COLOURS)], marker="o", capsize=3, markersize=4)
        for level in levels:
            bound = _is_bound(level)
            axis.axhline(level.mean(metric), color=_BOUND, linestyle=":" if bound else "--", linewidth=1)
            axis.annotate(
                level.name, (1, level.mean(metric)), xycoords=("axes fraction", "data"), ha="right", va="bottom", size=7
            )
        axis.set_title(metric_title(metric), loc="left")
        axis.set_xlabel("anchor")
        axis.set_xticks(anchors)
        for row, (anchor, value, error) in zip(arms, points, strict=True):
            numbers.append({"arm": row.name, "anchor": anchor, "k": k, "recall": value, "error": error})
    caption = (
        f"Recall@K on the test split against the anchor, mean over the seeds. Dashed: {control}. Bars: one standard "
        f"error of the difference from {control}, over users and seeds."
    )
    if any(map(_is_bound, levels)):
        caption += " Dotted: the best ranking that there is."
    return Drawn(figure, numbers, caption)


def length_picture(results: Results, control: str, metrics: Sequence[str]) -> Drawn | None:
    """Recall@K minus the control's for K = 1 to 50, or as far as lists reach; None without the control or an arm."""
    arms = [row for row in results.rows.values() if row.name != control and is_whole(results, row)]
    arms = [row for row in arms if row.is_arm or _is_bound(row)]
    if control not in results.rows or not is_whole(results, results.rows[control]) or not arms:
        return None
    ks = np.arange(1, _longest(results) + 1)
    figure = Figure(figsize=(6.6, 4.2), layout="constrained")
    axis = figure.subplots()
    numbers: Rows = []
    for row in arms:
        bound = _is_bound(row)
        seeds = common_seeds(results.rows[control], row)
        gain = np.array([_gain(results, control, row, f"recall@{k}", seeds) for k in ks])
        error = np.array([_error(results, control, row, f"recall@{k}") for k in ks])
        look = {"color": _BOUND, "linestyle": ":"} if bound else {**_look(results, row.name), "markevery": 4}
        axis.plot(ks, gain, label=row.name, markersize=4, **look)
        if not bound:
            axis.fill_between(ks, gain - error, gain + error, color=look["color"], alpha=0.15, linewidth=0)
        numbers += [
            {"arm": row.name, "k": int(k), "recall_minus_control": float(value), "error": float(one)}
            for k, value, one in zip(ks, gain, error, strict=True)
        ]
    axis.axhline(0, color="#000000", linewidth=0.8)
    axis.set_xlabel("K")
    axis.set_ylabel(f"Recall@K minus that of {control}")
    figure.legend(loc="outside lower center", ncols=min(len(arms), 4))
    caption = (
        f"Recall@K on the test split minus that of {control}, mean over the seeds. Bands: one standard error over "
        "users and seeds."
    )
    return Drawn(figure, numbers, caption)


def time_picture(results: Results, control: str, metrics: Sequence[str]) -> Drawn | None:
    """A validation metric against the seconds since the stage began, mean over seeds; None where nothing is written."""
    curves = {row.name: _curve(row, metrics[0]) for row in results.rows.values() if row.is_arm or row.stage == SFT}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None
    figure = Figure(figsize=(6.6, 4.0), layout="constrained")
    axis = figure.subplots()
    numbers: Rows = []
    for name, curve in curves.items():
        steps, seconds, values = zip(*curve, strict=True)
        axis.plot(seconds, values, markersize=4, label=name, **_look(results, name))
        numbers += [
            {"arm": name, "step": step, "seconds": second, metrics[0]: value}
            for step, second, value in zip(steps, seconds, values, strict=True)
        ]
    axis.set_xlabel("seconds since the stage began")
    axis.set_ylabel(f"validation {metric_title(metrics[0])}")
    figure.legend(loc="outside lower center", ncols=min(len(curves), 4))
    caption = (
        f"Validation {metric_title(metrics[0])} against wall time, mean over the seeds. The clock starts with the last "
        "stage of an arm; compilation, and pauses of a study that was stopped, count."
    )
    return Drawn(figure, numbers, caption)


PICTURES: dict[str, Callable[[Results, str, Sequence[str]], Drawn | None]] = {
    "recall_by_anchor": anchor_picture,
    "recall_by_length": length_picture,
    "validation_by_time": time_picture,
}


def _look(results: Results, name: str) -> dict[str, Any]:
    """The colour, the mark and the line of a row, the same in every picture."""
    place = [row.name for row in results.rows.values() if row.is_arm or row.stage == SFT].index(name)
    line = _LINES[place // len(COLOURS) % len(_LINES)]
    return {"color": COLOURS[place % len(COLOURS)], "marker": _MARKS[place % len(_MARKS)], "linestyle": line}


def _is_bound(row: Row) -> bool:
    return row.name in BASELINES and BASELINES[row.name].is_bound


def _longest(results: Results) -> int:
    """The K up to which the lists of all rows reach."""
    lengths = [ranks.num_candidates for row in results.rows.values() for ranks in row.ranks.values()]
    return min([_LONGEST, *lengths])


def _gain(results: Results, control: str, row: Row, metric: str, seeds: Sequence[int]) -> float:
    other = results.rows[control]
    return float(np.mean([row.ranks[seed].mean(metric) - other.ranks[seed].mean(metric) for seed in seeds]))


def _error(results: Results, control: str, row: Row, metric: str) -> float:
    """Of the difference from the control, over users and seeds; nan where there is nothing to compare."""
    other = results.rows[control]
    seeds = common_seeds(other, row)
    if not seeds or row.name == control:
        return math.nan
    runs: tuple[list[Any], list[Any]] = ([other.ranks[seed] for seed in seeds], [row.ranks[seed] for seed in seeds])
    return seeded_error(*runs, metric, samples=_DRAWS)


def _curve(row: Row, metric: str) -> list[tuple[int, float, float]]:
    """(step, seconds, value) of the validations that every seed has, mean over the seeds."""
    found: dict[int, list[tuple[float, float]]] = {}
    for seed in row.ranks:
        lines = read_metrics(row.folders[seed] / "metrics.jsonl", say=lambda text: None)
        own: list[Mapping[str, Any]] = [line for line in lines if line["stage"].partition("/")[0] == row.stage]
        if not own:
            continue
        began = min(line["time"] for line in own)
        for line in own:
            if line["stage"] == f"{row.stage}/valid" and line.get(metric) is not None:
                found.setdefault(line["step"], []).append((line["time"] - began, line[metric]))
    whole = {step: pairs for step, pairs in found.items() if len(pairs) == len(row.ranks)}
    return [(step, *map(float, np.mean(pairs, axis=0))) for step, pairs in sorted(whole.items())]  # type: ignore[misc]
