"""The figures of docs/theory.md, and the table of correlations it quotes.

python -m benchmarks.theory [--out docs/figures] [--rankings 10000]
"""

import argparse
import pathlib
from typing import Any, NamedTuple

import jax
import matplotlib
import numpy as np

from wpauc_jax.objectives import auc, opauc, recall_at_k, tawin_weights, wpauc, wpauc_window

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SETTINGS = ((1, 199, 5), (5, 195, 10), (10, 490, 20), (20, 480, 50), (200, 800, 200))  # n_pos, n_neg, K
NAMES = ("WPAUC", "OPAUC", "AUC")
BLUE, ORANGE, GREEN, GREY = "#2a6f97", "#e07a2f", "#4c956c", "#8d99ae"


class Simulation(NamedTuple):
    """Metrics of uniformly random rankings, each [rankings]."""

    recall: np.ndarray
    wpauc: np.ndarray
    opauc: np.ndarray
    auc: np.ndarray

    def correlations(self) -> tuple[float, ...]:
        """Pearson correlation with Recall@K of each of `NAMES`."""
        return tuple(float(np.corrcoef(self.recall, value)[0, 1]) for value in (self.wpauc, self.opauc, self.auc))


def simulate(n_pos: int, n_neg: int, k: int, rankings: int, lean: float = 0.0) -> Simulation:
    """Random rankings of n_pos positives among n_neg negatives; `lean` > 0 lifts the positives of each by its own."""
    rng = np.random.default_rng(0)
    is_positive = np.arange(n_pos + n_neg) < n_pos
    alpha, d = wpauc_window(k, n_pos, n_neg)
    scores = rng.normal(size=(rankings, n_pos + n_neg)) + lean * rng.random((rankings, 1)) * is_positive

    @jax.jit
    def measure(scores: jax.Array) -> tuple[jax.Array, ...]:
        positives = jax.numpy.broadcast_to(is_positive, scores.shape)
        return (
            recall_at_k(scores, positives, k=k),
            wpauc(scores, positives, alpha=alpha, d=d),
            opauc(scores, positives, beta=k / n_neg),
            auc(scores, positives),
        )

    return Simulation(*map(np.asarray, measure(jax.numpy.asarray(scores, jax.numpy.float32))))


def draw_roc(path: pathlib.Path) -> None:
    """The step ROC curve of one user, and what AUC, OPAUC and WPAUC take from it."""
    n_pos, n_neg, k = 5, 40, 12
    rng = np.random.default_rng(6)
    scores = np.concatenate([rng.normal(1.2, 1, n_pos), rng.normal(0, 1, n_neg)])
    ranked = (np.arange(n_pos + n_neg) < n_pos)[np.argsort(-scores)]
    fpr, tpr = np.cumsum(~ranked) / n_neg, np.cumsum(ranked) / n_pos
    fpr, tpr = np.concatenate([[0], fpr]), np.concatenate([[0], tpr])
    alpha, d = wpauc_window(k, n_pos, n_neg)
    figure, axes = plt.subplots(figsize=(5.4, 3.6))
    areas = (
        ("AUC", 0.0, 1.0, GREY, 0.2),
        (f"OPAUC, top {k} negatives", 0.0, k / n_neg, GREEN, 0.3),
        (f"WPAUC, window of Recall@{k}", alpha, alpha + d, ORANGE, 0.8),
    )
    for label, low, high, colour, opacity in areas:
        at = np.unique(np.concatenate([fpr[(fpr >= low) & (fpr <= high)], [low, high]]))
        axes.fill_between(at, np.interp(at, fpr, tpr), step="post", color=colour, alpha=opacity, lw=0, label=label)
    axes.step(fpr, tpr, where="post", color=BLUE, lw=1.8)
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def draw_correlations(path: pathlib.Path, table: dict[tuple[int, int, int], tuple[float, ...]]) -> None:
    """Correlation of each metric with Recall@K over random rankings."""
    figure, axes = plt.subplots(figsize=(6.2, 3.0))
    for i, (name, colour) in enumerate(zip(NAMES, (ORANGE, GREEN, GREY), strict=True)):
        heights = [row[i] for row in table.values()]
        axes.bar(np.arange(len(table)) + 0.27 * (i - 1), heights, width=0.25, color=colour, label=name)
    labels = [f"{n_pos} of {n_pos + n_neg}\nK = {k}" for n_pos, n_neg, k in table]
    axes.set_xticks(range(len(table)), labels)
    axes.set(ylabel="correlation with Recall@K", ylim=(0, 1.19))
    axes.legend(ncols=3, frameon=False, loc="upper center")
    _save(figure, path)


def draw_theorem(path: pathlib.Path, rankings: int) -> None:
    """Theorem 3.4: Recall@K against WPAUC, the bounds, and rankings of all qualities."""
    n_pos, n_neg, k = 8, 192, 20
    simulated = simulate(n_pos, n_neg, k, rankings, lean=4.0)
    w = np.linspace(0, 1, 2001)
    lower, upper = np.ceil(n_pos * (1 - np.sqrt(1 - w)) - 1e-9) / n_pos, np.floor(n_pos * np.sqrt(w) + 1e-9) / n_pos
    figure, axes = plt.subplots(figsize=(5.4, 3.6))
    axes.fill_between(w, lower, upper, step="post", color=BLUE, alpha=0.15, lw=0, label="Theorem 3.4")
    axes.plot(simulated.wpauc, simulated.recall, ".", color=ORANGE, ms=3, label=f"{rankings} rankings")
    axes.set(xlabel=f"WPAUC, window of K = {k}", ylabel=f"Recall@{k}", title=f"{n_pos} positives of {n_pos + n_neg}")
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def draw_weights(path: pathlib.Path) -> None:
    """TAWin weights of 15 negatives by rank, for several temperatures, masses and anchors."""
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 2.9), sharey=True)
    _weight_panel(panels[0], "temperature", (0.25, 1.0, 4.0), anchor=4)
    _weight_panel(panels[1], "mass", (1.0, 3.0, 5.0), anchor=4)
    _weight_panel(panels[2], "anchor", (0, 2, 9))
    panels[0].set_ylabel("weight")
    _save(figure, path)


def _weight_panel(axes: Axes, name: str, values: tuple[float, ...], **fixed: Any) -> None:
    scores, is_positive = -np.arange(16.0), np.arange(16) == 15
    for value, colour in zip(values, (BLUE, ORANGE, GREEN), strict=True):
        weights = tawin_weights(scores, is_positive, **{**fixed, name: value})
        axes.plot(np.arange(15), np.asarray(weights)[:15], "o-", ms=3, color=colour, label=f"{name} {value:g}")
    axes.axhline(1, color=GREY, lw=0.8, ls=":")
    axes.set(xlabel="rank among the negatives")
    axes.legend(frameon=False)


def _save(figure: "matplotlib.figure.Figure", path: pathlib.Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})  # the same bytes from the same library versions
    plt.close(figure)


def draw_all(out: pathlib.Path, rankings: int) -> dict[tuple[int, int, int], tuple[float, ...]]:
    """Writes every figure and returns the correlations of each of `SETTINGS`."""
    out.mkdir(parents=True, exist_ok=True)
    table = {setting: simulate(*setting, rankings).correlations() for setting in SETTINGS}
    draw_roc(out / "roc_window.png")
    draw_correlations(out / "correlations.png", table)
    draw_theorem(out / "theorem.png", min(rankings, 2000))
    draw_weights(out / "tawin_weights.png")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/figures"))
    parser.add_argument("--rankings", type=int, default=10000, help="random rankings of each setting")
    options = parser.parse_args()
    table = draw_all(options.out, options.rankings)
    print(f"{'n_pos':>6}{'n_neg':>7}{'K':>5}" + "".join(f"{name:>8}" for name in NAMES))
    for (n_pos, n_neg, k), row in table.items():
        print(f"{n_pos:>6}{n_neg:>7}{k:>5}" + "".join(f"{value:8.3f}" for value in row))


if __name__ == "__main__":
    main()
