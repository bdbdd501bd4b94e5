"""What a run says at its end: the table on the terminal and results.json."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from wpauc_jax.evaluation.bootstrap import PairedDifference
from wpauc_jax.evaluation.ranks import Ranks, RanksError, metric_names
from wpauc_jax.runtime.files import atomic_path


@dataclasses.dataclass(frozen=True)
class Report:
    """Stages measured on the same samples. Raises RanksError where there is none, or where the samples differ."""

    stages: Mapping[str, Ranks]
    recall_at: Iterable[int]
    ndcg_at: Iterable[int]
    num_items: int
    scoring: str
    split: str = "test"

    def __post_init__(self) -> None:
        if not self.stages:
            raise RanksError("there is no stage to report")
        first, reference = next(iter(self.stages.items()))
        for name, ranks in self.stages.items():
            if not np.array_equal(np.sort(ranks.sample), np.sort(reference.sample)):
                raise RanksError(
                    f"{first} was measured on {len(reference)} samples and {name} on {len(ranks)} others; evaluate both"
                )
            if ranks.rule != reference.rule:
                raise RanksError(f"of {first} {reference.rule}, of {name} {ranks.rule}: one table needs one rule")

    @property
    def names(self) -> list[str]:
        """The metrics, in the order of the table."""
        return metric_names(self.recall_at, self.ndcg_at)

    def table(self) -> str:
        """Stages by metrics, with what one must know to read them: users, catalog, lists, scoring rule, errors."""
        found = self.stages.values()
        rows = [
            [stage, _list_of(ranks, self.num_items), *(f"{ranks.mean(name):.4f}" for name in self.names)]
            for stage, ranks in self.stages.items()
        ]
        errors = [max(ranks.standard_error(name) for ranks in found) for name in self.names]
        rows.append(["standard error", "at most", *("-" if math.isnan(error) else f"{error:.4f}" for error in errors)])
        head = (
            f"{self.split} set: {_rows_of(next(iter(found)))}, each against the whole catalog of "
            f"{self.num_items:,} items; {next(iter(found)).rule}; scoring rule of the beams: {self.scoring}"
        )
        return head + "\n" + format_table(["stage", "ranked", *map(metric_title, self.names)], rows, left=2)

    def summary(self) -> dict[str, Any]:
        """The same in full precision, for results.json."""
        ranks = next(iter(self.stages.values()))
        return {
            "split": self.split,
            "users": ranks.num_users,
            "samples": len(ranks),
            "items": self.num_items,
            "scoring": self.scoring,
            "rule": ranks.rule,
            "stages": {
                stage: {
                    "list_length": found.num_candidates,
                    "metrics": {name: found.mean(name) for name in self.names},
                    "standard_errors": {name: _or_none(found.standard_error(name)) for name in self.names},
                }
                for stage, found in self.stages.items()
            },
        }


def exact_table(exact: Mapping[str, Mapping[str, float]], *, of: str = "exact") -> str:
    """Stages by areas under the ROC curve over all negatives and by what beams miss, or by measures of sets."""
    rows = [[stage, *(f"{value:.4f}" for value in metrics.values())] for stage, metrics in exact.items()]
    names = list(next(iter(exact.values())))
    return format_table([of, *(metric_title(name) for name in names)], rows)


def write_results(path: str | os.PathLike[str], results: Mapping[str, Any]) -> None:
    """Writes a JSON file, whole or not at all. Raises ValueError for a number that JSON has no word for."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def comparison_table(differences: Sequence[PairedDifference]) -> str:
    """One line for each metric: A, B, B - A, its 95% interval and p-value."""
    rows = [
        [
            metric_title(found.metric),
            f"{found.mean_a:.4f}",
            f"{found.mean_b:.4f}",
            f"{found.difference:+.4f}",
            f"[{found.low:+.4f}, {found.high:+.4f}]",
            f"{found.p_value:.4f}",
        ]
        for found in differences
    ]
    return format_table(["metric", "A", "B", "B - A", "95% interval", "p"], rows)


def format_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell, the first `left` of them aligned to the left, the rest to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in [padded[0], rule, *padded[1:]])


def metric_title(name: str) -> str:
    """'ndcg@10' -> 'NDCG@10'."""
    kind, at, k = name.partition("@")
    titles = {
        "recall": "Recall",
        "missed": "missed",
        "wpauc_users": "with a window",
        "hit_rate": "hit rate",
        "top1_expected": "probability of the first items",
        "top1_observed": "share of first items that hit",
    }
    return titles.get(kind, kind.upper()) + at + k


def _list_of(ranks: Ranks, num_items: int) -> str:
    return "all items" if ranks.num_candidates >= num_items else f"beam of {ranks.num_candidates}"


def _rows_of(ranks: Ranks) -> str:
    users = f"{ranks.num_users:,} users"
    return users if len(ranks) == ranks.num_users else f"{len(ranks):,} samples of {users}"


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
