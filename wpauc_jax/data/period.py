"""Which dates a data set covers, and whether they are plausible. Times in a wrong unit show here."""

import numpy as np

from wpauc_jax.data.dataset import PER_SECOND

YEARS = (1990, 2035)  # both included; interactions were not recorded much earlier
_LOW, _HIGH = (int(np.datetime64(f"{year}-01-01", "s").astype(np.int64)) for year in (YEARS[0], YEARS[1] + 1))
RANGES = {unit: (_LOW * scale, _HIGH * scale) for unit, scale in PER_SECOND.items()}  # the years in each unit
_TOLERATED = 0.01  # of the rows may lie outside these years before a warning says so
_AS_DIGITS = (YEARS[0] * 10_000, (YEARS[1] + 1) * 10_000)  # dates written as 20180707


class Period:
    """The first and the last of many times in one unit, and how many of them each unit would make plausible."""

    def __init__(self, unit: str):
        self.unit = unit  # one of PER_SECOND
        self.rows = self.outside = 0
        self.first: int | None = None
        self.last: int | None = None
        self.digits = 0  # that would be dates if read as 20180707
        self.fits = dict.fromkeys(PER_SECOND, 0)  # of those outside, by the unit that would put them inside

    def add(self, times: np.ndarray) -> None:
        """Takes in a block of times int64."""
        if not len(times):
            return
        first, last = int(times.min()), int(times.max())
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)
        self.rows += len(times)
        low, high = RANGES[self.unit]
        if low <= first and last < high:
            return
        strange = times[(times < low) | (times >= high)]
        self.outside += len(strange)
        for unit, bounds in RANGES.items():
            self.fits[unit] += _between(strange, *bounds)
        self.digits += _between(strange, *_AS_DIGITS)

    @property
    def dates(self) -> tuple[str, str]:
        """The first and the last day, as in 2018-07-07."""
        return day_of(self.first or 0, self.unit), day_of(self.last or 0, self.unit)

    @property
    def better_unit(self) -> str:
        """The unit that would make more of the times plausible than this one does; "" if none would."""
        best = max(self.fits, key=lambda unit: self.fits[unit])
        return best if self.fits[best] else ""

    @property
    def is_strange(self) -> bool:
        """Whether more times lie outside the years than can be overlooked."""
        return self.outside > _TOLERATED * self.rows

    def warning(self) -> str:
        """What is strange about the times and how to mend it; "" if nothing is."""
        if not self.is_strange:
            return ""
        first, last = self.dates
        out = (
            f"{self.outside:,} of {self.rows:,} times lie outside {YEARS[0]} to {YEARS[1]} (all go from {first} to "
            f"{last}) if numbers count {self.unit!r}"
        )
        unit = self.better_unit
        if unit and self.fits[unit] + self.digits < (1 - _TOLERATED) * self.rows:
            return f"{out}; {self.fits[unit]:,} would lie inside if they counted {unit!r}: the files mix units"
        if unit:
            return f"{out}; {self.fits[unit]:,} would lie inside if they counted {unit!r}: set data.time_unit={unit}"
        if self.digits > _TOLERATED * self.rows:
            return f"{out}; {self.digits:,} look like dates without hyphens: write them as 2018-07-07"
        return f"{out}; no other data.time_unit would fit them either"


def day_of(time: int, unit: str) -> str:
    """The day of a time, as in 2018-07-07."""
    return str(np.datetime64(time // PER_SECOND[unit], "s")).partition("T")[0]


def _between(times: np.ndarray, low: int, high: int) -> int:
    return int(np.count_nonzero((times >= low) & (times < high)))
