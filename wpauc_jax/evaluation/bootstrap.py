"""Is one evaluation better than another on the same samples? A paired bootstrap over users answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from wpauc_jax.evaluation.ranks import Ranks, RanksError

_DRAWS_AT_ONCE = 500  # of the bootstrap over users and seeds, whose table of users is the larger one


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """Metric of B minus metric of A on the same samples, with a bootstrap interval and a two-sided p-value."""

    metric: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    a: Ranks | Sequence[Ranks], b: Ranks | Sequence[Ranks], metric: str, *, samples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """Does B beat A? Users are drawn with replacement; each drawn user brings all its samples, in A and in B.

    Lists are runs with several seeds: a sample's value is then its mean over the runs, so that the interval is about
    users and takes these runs as given. It is the 2.5% to 97.5% percentile interval of `samples` draws; the p-value is
    twice the smaller share of draws on either side of 0 (Efron and Tibshirani, 1993, chapters 13 and 15).
    Raises RanksError where the runs hold different samples or targets.
    """
    runs_a, runs_b = _as_runs(a, "A"), _as_runs(b, "B")
    reference, order = runs_a[0][1], np.argsort(runs_a[0][1].sample)
    for name, run in runs_a[1:] + runs_b:
        _check_same_samples(*runs_a[0], name, run)
    values_a, values_b = (
        np.mean([run.values(metric)[np.argsort(run.sample)] for _, run in runs], axis=0) for runs in (runs_a, runs_b)
    )
    _, user = np.unique(reference.user[order], return_inverse=True)
    total = np.bincount(user, weights=values_b - values_a)
    draws = bootstrap_means(total, np.bincount(user), samples, seed)
    low, high = np.quantile(draws, (0.025, 0.975))
    return PairedDifference(
        metric=metric,
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        difference=float((values_b - values_a).mean()),
        low=float(low),
        high=float(high),
        p_value=_two_sided(draws),
    )


@dataclasses.dataclass(frozen=True)
class SeededDifference:
    """Metric of B minus metric of A, where both were trained with the same seeds.

    users: what `paired_bootstrap` finds, with these trainings taken as given.
    seeds: how many seeds; spread: the standard deviation of the difference between them, nan with one seed.
    low, high, p_value, error: 95% interval, two-sided p-value and standard error over users and seeds. With one seed
    they are those over users, and say nothing of another training.
    """

    users: PairedDifference
    seeds: int
    spread: float
    low: float
    high: float
    p_value: float
    error: float


def seeded_bootstrap(
    a: Sequence[Ranks], b: Sequence[Ranks], metric: str, *, samples: int = 10_000, seed: int = 0
) -> SeededDifference:
    """`paired_bootstrap` of runs paired by seed, and the same over users and seeds: a[i] and b[i] have one seed.

    A draw takes as many users as there are, and S - 1 of the S seeds, both with replacement. S - 1 draws of a seed make
    the variance of their mean that of the mean over S seeds, which S draws would understate (Rao and Wu, 1988). To draw
    both at once errs towards a wide interval (Owen, 2007). Raises RanksError as `paired_bootstrap` does, and where A
    and B have not as many runs.
    """
    differences, draws = _seeded_draws(a, b, metric, samples, seed)
    by_seed = differences.mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return SeededDifference(
        users=paired_bootstrap(a, b, metric, samples=samples, seed=seed),
        seeds=len(a),
        spread=float(by_seed.std(ddof=1)) if len(a) > 1 else float("nan"),
        low=float(low),
        high=float(high),
        p_value=_two_sided(draws),
        error=float(draws.std(ddof=1)),
    )


def seeded_error(a: Sequence[Ranks], b: Sequence[Ranks], metric: str, *, samples: int, seed: int = 0) -> float:
    """The `error` of `seeded_bootstrap`, without the rest of it. Raises RanksError as that does."""
    return float(_seeded_draws(a, b, metric, samples, seed)[1].std(ddof=1))


def _seeded_draws(
    a: Sequence[Ranks], b: Sequence[Ranks], metric: str, samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The differences of every seed and sample [S, N], and the draws over users and seeds [samples]."""
    if len(a) != len(b):
        raise RanksError(f"A has {len(a)} runs and B {len(b)}; runs are compared seed by seed")
    runs_a, runs_b = _as_runs(a, "A"), _as_runs(b, "B")
    for name, run in runs_a[1:] + runs_b:
        _check_same_samples(*runs_a[0], name, run)
    differences, user = _by_sample(a, b, metric)
    totals = np.stack([np.bincount(user, weights=row) for row in differences], axis=1)
    return differences, users_and_seeds_draws(totals, np.bincount(user), samples, seed)


def users_and_seeds_draws(totals: np.ndarray, count: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """float64[samples]: the mean over drawn seeds of totals [U, S] of drawn users, over the sum of their counts [U].

    The seeds of a draw are S - 1, or the one that there is. Users with the same totals and count are alike, as in
    `bootstrap_means`.
    """
    num_users, num_seeds = totals.shape
    kinds, size = np.unique(np.column_stack([totals, count]), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    taken = max(num_seeds - 1, 1)
    shares = rng.multinomial(taken, np.full(num_seeds, 1 / num_seeds), size=samples) / taken
    drawn = np.concatenate(
        [
            rng.multinomial(num_users, size / num_users, size=part) @ kinds
            for part in (min(_DRAWS_AT_ONCE, samples - first) for first in range(0, samples, _DRAWS_AT_ONCE))
        ]
    )
    return (drawn[:, :-1] * shares).sum(axis=1) / drawn[:, -1]


def _by_sample(a: Sequence[Ranks], b: Sequence[Ranks], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(float64[S, N], int[N]): the metric of b[s] minus that of a[s] of every sample; the number of its user."""

    def values(run: Ranks) -> np.ndarray:
        return run.values(metric)[np.argsort(run.sample)]

    user = a[0].user[np.argsort(a[0].sample)]
    differences = np.stack([values(two) - values(one) for one, two in zip(a, b, strict=True)])
    return differences, np.unique(user, return_inverse=True)[1]


def _two_sided(draws: np.ndarray) -> float:
    """Twice the smaller share of draws on either side of 0."""
    side = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    return min(1.0, 2 * (side + 1) / (draws.size + 1))


def bootstrap_means(total: np.ndarray, count: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """float64[samples]: sum of totals over sum of counts, of as many users as there are, drawn with replacement.

    Users with the same total and count are alike, so a draw is a multinomial over the few kinds of user: the same
    distribution as drawing each user, at a fraction of the work.
    """
    kinds, size = np.unique(np.stack([total, count], axis=1), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(total.size, size / total.size, size=samples)
    return (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])


def _as_runs(ranks: Ranks | Sequence[Ranks], side: str) -> list[tuple[str, Ranks]]:
    runs = [ranks] if isinstance(ranks, Ranks) else list(ranks)
    if not runs or not all(len(run) for run in runs):
        raise RanksError(f"side {side} of the comparison has no run, or a run without a sample")
    return [(side if len(runs) == 1 else f"run {i + 1} of {side}", run) for i, run in enumerate(runs)]


def _check_same_samples(name_a: str, a: Ranks, name_b: str, b: Ranks) -> None:
    common, in_a, in_b = np.intersect1d(a.sample, b.sample, assume_unique=True, return_indices=True)
    if not common.size == len(a) == len(b):
        raise RanksError(
            f"{name_a} holds {len(a)} samples and {name_b} {len(b)}, of which {common.size} are in both; "
            "compare runs on the same data and split"
        )
    if a.rule != b.rule:
        raise RanksError(
            f"{name_a} and {name_b} differ in what they rank: in {name_a} {a.rule}, in {name_b} {b.rule}; evaluate "
            "both with one exclude_history"
        )
    for field in ("target", "user"):
        differ = getattr(a, field)[in_a] != getattr(b, field)[in_b]
        if differ.any():
            raise RanksError(
                f"{name_a} and {name_b} disagree on the {field} of {np.count_nonzero(differ)} samples, the first is "
                f"{common[np.argmax(differ)]}; compare runs on the same prepared data"
            )
