"""Every arm against every control: differences, intervals, and p-values that count all comparisons of the study."""

import dataclasses
from collections.abc import Sequence

from wpauc_jax.evaluation.bootstrap import SeededDifference, seeded_bootstrap
from wpauc_jax.evaluation.multiple import holm, smallest_difference
from wpauc_jax.study.results import Results, Row


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One metric of one arm against one control, on the seeds that both have."""

    arm: str
    control: str
    found: SeededDifference
    corrected: float  # the p-value after Holm's correction over all comparisons of the study
    smallest: float  # the smallest true difference that would have been seen four times in five

    @property
    def metric(self) -> str:
        """What is compared."""
        return self.found.users.metric


def compare_rows(results: Results, controls: Sequence[str], metrics: Sequence[str], draws: int) -> list[Comparison]:
    """All comparisons of a study, control by control.

    Two controls are compared once. An arm that lacks a seed of its study is left out, since the runs that did not fail
    are no fair sample. Raises RanksError where two runs hold other samples.
    """
    pairs: list[tuple[Row, Row]] = []
    for place, name in enumerate(controls):
        control = results.rows.get(name)
        earlier = controls[: place + 1]
        if control is not None and is_whole(results, control):
            rows = [row for row in results.rows.values() if row.is_arm and row.name not in earlier]
            pairs += [(control, row) for row in rows if is_whole(results, row) and common_seeds(control, row)]
    found = [(control, row, _difference(control, row, metric, draws)) for control, row in pairs for metric in metrics]
    corrected = holm([difference.p_value for _, _, difference in found])
    return [
        Comparison(
            row.name, control.name, difference, p_value, smallest_difference(difference.error, comparisons=len(found))
        )
        for (control, row, difference), p_value in zip(found, corrected, strict=True)
    ]


def common_seeds(one: Row, other: Row) -> list[int]:
    """The seeds that both rows have ranks of."""
    return sorted(one.ranks.keys() & other.ranks.keys())


def is_whole(results: Results, row: Row) -> bool:
    """Whether no run of the row is missing."""
    return bool(row.ranks) and row.folders.keys() == row.ranks.keys()


def _difference(control: Row, row: Row, metric: str, draws: int) -> SeededDifference:
    seeds = common_seeds(control, row)
    one, other = ([side.ranks[seed] for seed in seeds] for side in (control, row))
    return seeded_bootstrap(one, other, metric, samples=draws)
