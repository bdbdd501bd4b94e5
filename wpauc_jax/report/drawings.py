"""The drawings of a report, as SVG.

Colours are those of Okabe and Ito. Lines differ in their marks too, so that print in black and white can be read.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wpauc_jax.evaluation.plots import COLOURS, STYLE, Panel, draw_panel
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import metric_title
from wpauc_jax.report.page import Drawing

LONGEST = 50  # the K up to which lists are looked at
_MARKS = "os^Dv<>P"
_SIZE = (4.4, 3.0)  # inches: on a phone's width letters are as large as the text beside
_STYLE = {**STYLE, "svg.hashsalt": "wpauc_jax"}  # the same drawing has the same bytes
_BINS = (1, 2, 4, 6, 11, 21, 51, 101, 501)  # the first rank of each bar, from 1
_LABELS = ("1", "2-3", "4-5", "6-10", "11-20", "21-50", "51-100", "101-500", "over 500")


def drawn(draw: Callable[[Axes], None], caption: str, *, title: str = "", below: float = 0.16) -> Drawing:
    """A drawing of one panel; `below` is the share of its height for labels and legend under it."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE)
        axis = figure.add_axes((0.14, below, 0.83, 0.9 - below))
        if title:
            axis.set_title(title, loc="left")
        draw(axis)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return Drawing(out.getvalue()[out.getvalue().index("<svg") :], caption)


def panel_drawing(panel: Panel, caption: str) -> Drawing:
    """One thing that training logs, against the step."""
    return drawn(lambda axis: draw_panel(axis, panel), caption, title=panel[0])


def recall_drawing(rows: Mapping[str, Ranks]) -> Drawing:
    """Recall@K for K = 1 to 50, or as far as each row's lists reach."""

    def draw(axis: Axes) -> None:
        for i, (name, ranks) in enumerate(rows.items()):
            recall = recall_curve(ranks)
            axis.plot(np.arange(1, len(recall) + 1), recall, label=name, **_look(i))
        axis.set_xlabel("K")
        axis.set_ylim(bottom=0)
        _legend_below(axis, len(rows))

    errors = [ranks.standard_error(f"recall@{len(recall_curve(ranks))}") for ranks in rows.values()]
    caption = "Recall@K on the test split: the share of samples whose target is among the first K items"
    known = [error for error in errors if error == error]
    if known:
        caption += f". Standard error: at most {max(known):.4f} at the largest K"
    return drawn(draw, f"{caption}.", title="Recall@K", below=0.34)


def recall_curve(ranks: Ranks) -> np.ndarray:
    """float64[K]: Recall@1 to Recall@50, or as far as the lists reach."""
    longest = min(LONGEST, ranks.num_candidates)
    found = ranks.rank[(ranks.rank >= 0) & (ranks.rank < longest)]
    return np.cumsum(np.bincount(found, minlength=longest)) / len(ranks)


def rank_drawing(rows: Mapping[str, Ranks]) -> Drawing:
    """Where the targets stand in the lists: shares of the samples."""
    shares = {name: rank_shares(ranks) for name, ranks in rows.items()}
    labels = list(dict.fromkeys(label for row in shares.values() for label in row))

    def draw(axis: Axes) -> None:
        _bars(axis, {name: ([row.get(label, 0.0) for label in labels], None) for name, row in shares.items()}, labels)
        axis.tick_params(axis="x", labelrotation=40)
        _legend_below(axis, len(rows), -0.42)

    caption = "The place of the target in each sample's list, from 1. absent: the list ends before it."
    return drawn(draw, caption, title="share of the samples by the target's place", below=0.42)


def rank_shares(ranks: Ranks) -> dict[str, float]:
    """{"1": ..., "2-3": ..., ..., "absent": ...}: shares of the samples, which sum to 1, up to the list's end."""
    out = {}
    for label, first, after in zip(_LABELS, _BINS, (*_BINS[1:], np.inf), strict=True):
        if first <= ranks.num_candidates:
            out[label] = float(((ranks.rank + 1 >= first) & (ranks.rank + 1 < after)).mean())
    absent = float((ranks.rank < 0).mean())
    return out | ({"absent": absent} if absent else {})


def bar_drawing(
    rows: Mapping[str, tuple[Sequence[float], Sequence[float]]], labels: Sequence[str], title: str, caption: str
) -> Drawing:
    """Bars of each row's values at each label, with bars of one standard error."""

    def draw(axis: Axes) -> None:
        _bars(axis, rows, labels)
        _legend_below(axis, len(rows))

    return drawn(draw, caption, title=title, below=0.34)


def curves_drawing(rows: Mapping[str, Sequence[tuple[int, float]]], metric: str, stage: str) -> Drawing:
    """The validation metric of several runs against the step."""

    def draw(axis: Axes) -> None:
        for i, (name, points) in enumerate(rows.items()):
            axis.plot(*zip(*points, strict=True), label=name, **(_look(i) | {"markevery": 1}))
        axis.set_xlabel("step")
        _legend_below(axis, len(rows))

    title = f"validation {metric_title(metric)}, {stage}"
    return drawn(
        draw, f"{metric_title(metric)} on validation samples against the step of {stage}.", title=title, below=0.34
    )


def _look(i: int) -> dict[str, Any]:
    line = ("-", "--", ":")[i // len(COLOURS) % 3]
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": _MARKS[i % len(_MARKS)],
        "linestyle": line,
        "markevery": (i % 5, 5),
        "markersize": 4,
        "linewidth": 1.4,
    }


def _bars(
    axis: Axes, rows: Mapping[str, tuple[Sequence[float], Sequence[float] | None]], labels: Sequence[str]
) -> None:
    place, width = np.arange(len(labels)), 0.82 / len(rows)
    for i, (name, (values, errors)) in enumerate(rows.items()):
        axis.bar(
            place + (i - (len(rows) - 1) / 2) * width,
            values,
            width * 0.92,
            yerr=errors,
            error_kw={"elinewidth": 1, "capsize": 1.5, "ecolor": "#333333"},
            color=COLOURS[i % len(COLOURS)],
            hatch=("", "///", "...")[i // len(COLOURS) % 3],
            label=name,
        )
    axis.set_xticks(place, labels)
    axis.grid(axis="x", visible=False)
    axis.set_ylim(bottom=0)


def _legend_below(axis: Axes, count: int, y: float = -0.2) -> None:
    axis.legend(loc="upper center", bbox_to_anchor=(0.46, y), ncols=min(count, 4), handlelength=1.6, columnspacing=1.0)
