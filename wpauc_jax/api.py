"""wpauc_jax from Python: `run` does what the command does, and `Recommender` answers histories of raw item ids.

import wpauc_jax

results = wpauc_jax.run("quickstart", "runs/quickstart")
print(results.table())
recommender = wpauc_jax.Recommender.load("runs/quickstart")
recommender.recommend([["50", "172"]], k=5)
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from wpauc_jax import modes
from wpauc_jax.config import Config, ConfigError, from_config_dict
from wpauc_jax.config.command_line import shipped
from wpauc_jax.config.names import with_settings
from wpauc_jax.config.recorded import remembered_config
from wpauc_jax.evaluation.report import format_table, metric_title
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.sharding import make_mesh
from wpauc_jax.stages import recommender as inner
from wpauc_jax.stages.exported import is_export, open_export
from wpauc_jax.stages.recommender import Recommendation
from wpauc_jax.study.files import read_config

Path = str | os.PathLike[str]


def run(
    config: Config | ConfigDict | Path,
    workdir: Path,
    *,
    settings: Mapping[str, Any] | None = None,
) -> "Results":
    """Does what `config.mode` says in a work directory, as the command does, and returns what was measured.

    `config` is a value, or the name of a configuration: quickstart, benchmarks:office, or a file. `settings` change it,
    as in {"rl.target_k": 5}. The same call again goes on where it stopped, and does nothing twice.

    Raises ConfigError, DataError and the like, each with one line that says what to do.
    """
    made = with_settings(_config(config), settings or {})
    folder = pathlib.Path(workdir)
    code = modes.run(made, folder)
    if code:
        raise ConfigError(f"mode={made.mode} found a problem; what it printed says which")
    return Results(folder)


@dataclasses.dataclass(frozen=True)
class Results:
    """What a work directory has measured; nothing where it was not evaluated."""

    workdir: pathlib.Path

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """{stage: {"recall@3": ..., ...}}: rankings without training and trained stages, on the test split."""
        stages = read_json(self.workdir / "results.json").get("stages", {})
        return {stage: facts["metrics"] for stage, facts in stages.items()}

    def table(self) -> str:
        """The metrics as text."""
        names = list(dict.fromkeys(name for facts in self.metrics.values() for name in facts))
        rows = [
            [stage, *(f"{facts[name]:.4f}" if name in facts else "" for name in names)]
            for stage, facts in self.metrics.items()
        ]
        return format_table(["stage", *map(metric_title, names)], rows)

    def to_polars(self) -> Any:
        """A polars.DataFrame with a row for each stage."""
        import polars as pl

        return pl.DataFrame([{"stage": stage, **facts} for stage, facts in self.metrics.items()])

    def plots(self) -> list[pathlib.Path]:
        """The pictures that the run drew: its stages, its training."""
        return sorted((self.workdir / "plots").glob("*.png"))

    def recommender(self) -> "Recommender":
        """What was trained, ready to answer."""
        return Recommender.load(self.workdir)


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """Histories of raw item ids in, lists of items out."""

    _inner: inner.Recommender

    @classmethod
    def load(cls, path: Path, *, say: Callable[[str], None] = print) -> "Recommender":
        """The best model of a work directory, or that of an export folder. `say` is told which one answers.

        Raises FileNotFoundError where the path is neither, and ConfigError or DataError where it is damaged.
        """
        folder = pathlib.Path(path)
        if is_export(folder):
            return cls(open_export(folder))
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is neither a run's work directory nor an export of one")
        config = dataclasses.replace(remembered_config(folder), mode="evaluate")
        with jax.set_mesh(make_mesh(config.mesh)):
            return cls(inner.open_recommender(config, folder, say))

    @property
    def served(self) -> inner.Recommender:
        """The recommender of item numbers behind this one."""
        return self._inner

    @property
    def items(self) -> dict[str, str]:
        """Every item that can be recommended: {raw id: title}, "" where the title is unknown."""
        return dict(zip(self._inner.item_ids, self._inner.titles, strict=True))

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude_history: bool | None = None,
        unknown: str = "error",
    ) -> list[list[Recommendation]]:
        """The `k` best items of each history, as (id, title, score), best first; fewer only where there are no more.

        A history is raw ids in time order, the latest last; it may be empty. A score is the logarithm of the item's
        probability. With `exclude_history` no item of the history is in its list; None is the rule of training. With
        unknown="skip" ids that the catalog lacks are passed over.

        Raises ValueError for a k below 1 and for an unknown id, which it names.
        """
        if k < 1:
            raise ValueError(f"k={k} must be at least 1")
        if unknown not in ("error", "skip"):
            raise ValueError(f"unknown={unknown!r} must be 'error' or 'skip'")
        numbers = [self._numbers(row, history, unknown) for row, history in enumerate(histories)]
        return self._ruled(exclude_history).recommend(numbers, k) if numbers else []

    def _numbers(self, row: int, history: Sequence[str], unknown: str) -> np.ndarray:
        if isinstance(history, str):
            raise ValueError(f"history {row} is text; give a list of item ids")
        places = self._places
        for item in history:
            if item not in places and unknown == "error":
                raise ValueError(
                    f"history {row} has the item {item!r}, which the catalog lacks; unknown='skip' passes it over"
                )
        return np.array([places[item] for item in history if item in places], np.int64)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        return {item: place for place, item in enumerate(self._inner.item_ids)}

    def _ruled(self, exclude_history: bool | None) -> inner.Recommender:
        builder = self._inner.builder
        if exclude_history is None or exclude_history == builder.exclude_history:
            return self._inner
        return dataclasses.replace(self._inner, builder=builder.with_rule(exclude_history))


def _config(config: Config | ConfigDict | Path) -> Config:
    if isinstance(config, Config):
        return config
    if isinstance(config, ConfigDict):
        made: Config = from_config_dict(config, Config)
        return made
    path, _, argument = shipped(os.fspath(config)).partition(":")
    return read_config(path, argument or None)
