"""Pictures of a run: training curves from metrics.jsonl, and the metrics of each stage with standard errors."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from wpauc_jax.evaluation.ranks import Ranks, metric_names
from wpauc_jax.evaluation.report import metric_title
from wpauc_jax.objectives.shares import RANK_BUCKETS
from wpauc_jax.runtime.files import atomic_path
from wpauc_jax.runtime.metric_lines import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito, 2008
_VALID = "/valid"  # ends the stage of a validation line
# The ratio is 1 and nothing is clipped as long as each rollout is used for one update.
_NOT_CURVES = {"stage", "step", "time", "targets", "ratio", "clip_fraction"}
_TITLES = {
    "hit_rate": "groups with the target",
    "dead_groups": "groups without a signal",
    "group_mass": "probability of the group",
    "kl": "KL to the reference",
    "grad_norm": "gradient norm",
    "learning_rate": "learning rate",
    "weight_by_rank": "weight by rank among the negatives",
    "gradient_by_rank": "share of the gradient",
    "rows_by_rank": "share of rows",
}
_BUCKETED = {"gradient_by_rank", "rows_by_rank"}
_PANEL = (4.1, 2.55)  # inches; with places of their own, panels need no layout that draws all of them twice
_AXES = (0.68, 0.5, 3.3, 1.7)  # inches inside a panel: left, below, width, height
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def plot_training(metrics: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """A picture for each stage of a metrics file: `folder`/training_STAGE.png, a panel for each thing it logs.

    Validation comes first, with a line for each K. Steps are drawn pale with their moving average on top. Returns the
    files, none where there is no line. Raises ValueError naming a malformed line.
    """
    lines = read_metrics(metrics)
    stages = dict.fromkeys(line["stage"].removesuffix(_VALID) for line in lines)
    made = []
    for stage in stages:
        train = [line for line in lines if line["stage"] == stage]
        valid = [line for line in lines if line["stage"] == stage + _VALID]
        path = pathlib.Path(folder, f"training_{stage.replace('/', '_')}.png")
        with _style():
            save_figure(training_figure(stage, train, valid), path)
        made.append(path)
    return made


def plot_stages(
    stages: Mapping[str, Ranks],
    path: str | os.PathLike[str],
    *,
    recall_at: Iterable[int],
    ndcg_at: Iterable[int],
    title: str = "Test metrics by stage",
) -> None:
    """`stages_figure` as a PNG."""
    with _style():
        save_figure(stages_figure(stages, recall_at, ndcg_at, title), pathlib.Path(path))


def stages_figure(
    stages: Mapping[str, Ranks],
    recall_at: Iterable[int],
    ndcg_at: Iterable[int],
    title: str = "Test metrics by stage",
) -> "Figure":
    """Bars of Recall@K and NDCG@K for each stage, with bars of one standard error."""
    panels = [metric_names(recall_at, ()), metric_names((), ndcg_at)]
    panels = [names for names in panels if names]
    figure = new_figure(figsize=(1.6 + 1.25 * sum(map(len, panels)), 3.6), layout="constrained")
    shape = {"width_ratios": [len(names) for names in panels]}
    axes = figure.subplots(1, len(panels), squeeze=False, gridspec_kw=shape)[0]
    for axis, names in zip(axes, panels, strict=True):
        _draw_bars(axis, stages, names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(stages))
    samples = len(next(iter(stages.values())))
    figure.suptitle(f"{title} ({samples:,} samples; bars: one standard error)", fontsize=10)
    return figure


def _draw_bars(axis: "Axes", stages: Mapping[str, Ranks], names: Sequence[str]) -> None:
    place, width = np.arange(len(names)), 0.8 / len(stages)
    for i, (stage, ranks) in enumerate(stages.items()):
        axis.bar(
            place + (i - (len(stages) - 1) / 2) * width,
            [ranks.mean(name) for name in names],
            width * 0.94,
            yerr=[ranks.standard_error(name) for name in names],
            error_kw={"elinewidth": 1, "capsize": 2.5, "ecolor": "#333333"},
            color=COLOURS[i % len(COLOURS)],
            label=stage,
        )
    axis.set_xticks(place, [metric_title(name) for name in names])
    axis.grid(axis="x", visible=False)
    axis.set_ylim(bottom=0)


def training_figure(stage: str, train: list[dict[str, Any]], valid: list[dict[str, Any]]) -> "Figure":
    """A panel for each thing that a stage logs, from the metric lines of its steps and of its validations."""
    panels = panels_of(train, valid)
    columns = min(3, max(len(panels), 1))
    rows = max(math.ceil(len(panels) / columns), 1)
    width, height = _PANEL[0] * columns, _PANEL[1] * rows + 0.4
    figure = new_figure(figsize=(width, height))
    title = f"Training: {stage.upper() if len(stage) <= 3 else stage}"
    figure.suptitle(title, fontsize=12, fontweight="bold", y=1 - 0.08 / height, va="top")
    left, below, wide, high = _AXES
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        corner = column * _PANEL[0] + left, (rows - 1 - row) * _PANEL[1] + below
        axis = figure.add_axes((corner[0] / width, corner[1] / height, wide / width, high / height))
        axis.set_title(panel[0], loc="left")
        draw_panel(axis, panel)
    return figure


Panel = tuple[str, list[dict[str, Any]], list[str]]  # title, lines, the keys to draw


def panels_of(train: list[dict[str, Any]], valid: list[dict[str, Any]]) -> list[Panel]:
    """Everything that a stage logs, from the metric lines of its steps and of its validations; validation first."""
    return _validation_panels(valid) + _training_panels(train)


def draw_panel(axis: "Axes", panel: Panel) -> None:
    """Curves against the step, or bars by rank."""
    _, lines, keys = panel
    if _is_list(lines, keys[0]):
        _draw_by_rank(axis, lines, keys[0])
    else:
        _draw_curves(axis, lines, keys)


def _validation_panels(valid: list[dict[str, Any]]) -> list[Panel]:
    kinds: dict[str, list[str]] = {}
    for key in _keys(valid):
        kinds.setdefault(key.partition("@")[0], []).append(key)
    return [(f"validation {metric_title(f'{kind}@1')[:-2]}", valid, keys) for kind, keys in kinds.items()]


def _training_panels(train: list[dict[str, Any]]) -> list[Panel]:
    """A panel for each key; `name_low` and `name_high` share one."""
    panels: dict[str, list[str]] = {}
    for key in _keys(train):
        panels.setdefault(key.removesuffix("_low").removesuffix("_high"), []).append(key)
    order = sorted(panels, key=lambda name: (name != "loss", name.endswith("_per_s")))  # stable: the rest as logged
    return [(_TITLES.get(name, name.replace("_per_s", "/s").replace("_", " ")), train, panels[name]) for name in order]


def _keys(lines: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for line in lines for key in line if key not in _NOT_CURVES))


def _is_list(lines: list[dict[str, Any]], key: str) -> bool:
    return any(isinstance(line.get(key), list) for line in lines)


def _draw_curves(axis: "Axes", lines: list[dict[str, Any]], keys: list[str]) -> None:
    for i, key in enumerate(keys):
        known = [line for line in lines if line.get(key) is not None]
        step = np.array([line["step"] for line in known])
        value = np.array([line[key] for line in known], float)
        colour, label = COLOURS[i % len(COLOURS)], _label(key) if len(keys) > 1 else None
        window = max(len(value) // 25, 1)
        if window == 1:
            axis.plot(step, value, color=colour, label=label, marker="o" if len(value) < 15 else "", markersize=3)
            continue
        axis.plot(step, value, color=colour, alpha=0.25, linewidth=0.7)
        axis.plot(step, _moving_average(value, window), color=colour, label=label, linewidth=1.6)
    axis.set_xlabel("step")
    axis.locator_params(axis="x", nbins=6, integer=True)
    axis.margins(x=0.02)
    if len(keys) > 1:  # in the title's row, where it hides nothing
        axis.legend(
            loc="lower right",
            bbox_to_anchor=(1.02, 0.98),
            ncols=len(keys),
            handlelength=0.8,
            handletextpad=0.4,
            columnspacing=0.6,
        )


def _label(key: str) -> str:
    """What tells the lines of one panel apart: '@10' or 'low'."""
    return "@" + key.partition("@")[2] if "@" in key else key.rpartition("_")[2]


def _moving_average(value: np.ndarray, window: int) -> np.ndarray:
    """The mean of up to `window` values around each; at the ends, of those that exist."""
    kernel = np.ones(window)
    return np.convolve(value, kernel, "same") / np.convolve(np.ones_like(value), kernel, "same")


def _draw_by_rank(axis: "Axes", lines: list[dict[str, Any]], key: str) -> None:
    """The mean over all steps of a list that has a value for each rank."""
    known = np.array([line[key] for line in lines if isinstance(line.get(key), list)], float)  # null: nan
    axis.bar(np.arange(known.shape[1]), np.nanmean(known, axis=0), color=COLOURS[0])
    if key in _BUCKETED:
        axis.set_xticks(range(len(RANK_BUCKETS)), list(RANK_BUCKETS))
    else:
        axis.locator_params(axis="x", integer=True)
    axis.set_xlabel("rank of the target; mean over steps" if key in _BUCKETED else "rank, from 0; mean over steps")
    axis.grid(axis="x", visible=False)


def new_figure(**settings: Any) -> "Figure":
    """A figure; matplotlib is imported when the first one is drawn."""
    from matplotlib.figure import Figure

    return Figure(**settings)


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(STYLE)


def save_figure(figure: "Figure", path: pathlib.Path) -> None:
    """Writes a picture, whole or not at all, in the format of the name's ending."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
