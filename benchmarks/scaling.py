"""How an RL step's time grows with the group, the prompt, the catalog and the batch.

    python -m benchmarks.scaling --plot=docs/figures/scaling.png

The mini shape of `benchmarks.shapes`, one thing changed at a time. Prints seconds a step, also over the first of their
sweep, the straight line a + b G through the groups' times with what it gives for G = 1, and, last, one JSON object.
"""

import argparse
import dataclasses
import json
from typing import Any

import numpy as np

from benchmarks.measure import median
from benchmarks.rl_step import WARM_UP, Runner
from benchmarks.setup import Bench, model_config, rl_config
from benchmarks.shapes import SHAPES

SWEEPS: dict[str, tuple[int, ...]] = {
    "group": (2, 4, 16, 64, 256),  # a group of one has nothing to compare
    "prompt": (32, 64, 128, 256, 512, 1024),
    "items": (1000, 10_000, 100_000, 1_000_000),
    "users": (1, 2, 4, 8, 16, 32),
}
LABELS = {"group": "candidates G", "prompt": "prompt tokens T", "items": "items", "users": "users B"}


def step_seconds(name: str, value: int, repeats: int) -> float:
    """Median seconds of a step of the mini shape with one field replaced; catalogs have 4 codes an item."""
    changes: dict[str, Any] = {"levels": 4, name: value}
    shape = dataclasses.replace(SHAPES["mini"], **changes)
    runner = Runner(Bench(shape, model_config(shape), rl_config(shape)))
    runner.steps(WARM_UP)
    return median(runner.steps(repeats))


def plot(path: str, results: dict[str, dict[int, float]]) -> None:
    """Seconds a step against each thing that grows, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(3.2 * len(results), 2.8), sharey=True, squeeze=False)
    for axis, (name, times) in zip(axes[0], results.items(), strict=True):
        axis.loglog(list(times), list(times.values()), marker="o")
        axis.set_xlabel(LABELS[name])
        axis.grid(alpha=0.3, which="both")
    axes[0][0].set_ylabel("seconds a step")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", nargs="+", choices=sorted(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plot", help="a PNG to write")
    options = parser.parse_args()
    results: dict[str, dict[int, float]] = {}
    for name in options.sweeps:
        times = results[name] = {}
        for value in SWEEPS[name]:
            times[value] = step_seconds(name, value, options.repeats)
            growth = times[value] / times[SWEEPS[name][0]]
            print(f"{name:>8} {value:>9} {times[value]:9.4f} s  x{growth:.2f}", flush=True)
    if "group" in results:
        slope, start = np.polyfit(list(results["group"]), list(results["group"].values()), 1)
        print(f"{start:.4f} s + {slope:.5f} s G; G = 64 over G = 1: {results['group'][64] / (start + slope):.2f}")
    if options.plot:
        plot(options.plot, results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
