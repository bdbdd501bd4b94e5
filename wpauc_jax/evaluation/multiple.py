"""Several comparisons at once: p-values that count how many there are, and what could have been seen at all."""

import statistics
from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction, in their order.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below the one before it, and none is
    above 1. The chance that one or more true equalities get a value below a level is at most that level, however the
    comparisons depend on each other (Holm, 1979).
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = highest
    return corrected


def smallest_difference(error: float, *, comparisons: int = 1, level: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that is told apart from 0 with probability `power`, given its standard error.

    It is (z(1 - level / (2 comparisons)) + z(power)) times the error, z being the quantile of the normal distribution:
    the strictest step of Holm's correction, so that the difference would have been seen whatever the others are.
    Raises ValueError for a level or a power that is no probability between 0 and 1, and for no comparison.
    """
    if not (0 < level < 1 and 0 < power < 1 and comparisons >= 1):
        raise ValueError(f"level {level} and power {power} must lie between 0 and 1, comparisons {comparisons} above 0")
    z = statistics.NormalDist().inv_cdf
    return (z(1 - level / (2 * comparisons)) + z(power)) * error
