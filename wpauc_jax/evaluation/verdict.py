"""Does what was trained beat what needs no training? A paired bootstrap answers for each stage."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from wpauc_jax.evaluation.bootstrap import PairedDifference, paired_bootstrap
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.evaluation.report import metric_title

LEVEL = 0.05  # a difference with a smaller p-value is told apart from none


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One trained stage against the untrained ranking that is best by one metric."""

    stage: str
    rival: str
    found: PairedDifference  # the stage's metric minus the rival's

    def line(self) -> str:
        """One sentence, with the difference, its 95% interval and its p-value."""
        return sentence(self.facts())

    def facts(self) -> dict[str, Any]:
        """The same for results.json."""
        found = self.found
        interval = {"difference": found.difference, "low": found.low, "high": found.high, "p_value": found.p_value}
        return {"metric": found.metric, "stage": self.stage, "best_untrained": self.rival, **interval}


def sentence(facts: Mapping[str, Any]) -> str:
    """A verdict in words, from its facts."""
    rival = facts["best_untrained"]
    if facts["p_value"] >= LEVEL:
        outcome = f"is not told apart from {rival}"
    elif facts["difference"] > 0:
        outcome = f"beats {rival}"
    else:
        outcome = f"is beaten by {rival}"
    return (
        f"{metric_title(facts['metric'])}: {facts['stage']} {outcome}, the best without training "
        f"({facts['difference']:+.4f}, 95% interval {facts['low']:+.4f} to {facts['high']:+.4f}, "
        f"p = {facts['p_value']:.4f})"
    )


def verdicts(
    trained: Mapping[str, Ranks], untrained: Mapping[str, Ranks], metrics: Iterable[str], *, samples: int = 10_000
) -> list[Verdict]:
    """By each metric, each trained stage against the best untrained ranking; the best is chosen on the same samples.

    The choice favours the untrained side. The p-values are not adjusted for the number of stages and metrics.
    Raises RanksError where samples or rules of the rankings differ.
    """
    found = []
    for metric in metrics:
        means = {name: ranks.mean(metric) for name, ranks in untrained.items()}
        rival = max(means, key=means.__getitem__)
        for stage, ranks in trained.items():
            found.append(Verdict(stage, rival, paired_bootstrap(untrained[rival], ranks, metric, samples=samples)))
    return found
