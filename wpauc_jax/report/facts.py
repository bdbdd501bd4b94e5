"""What the files of a work directory say of a run that was evaluated."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from wpauc_jax.config.recorded import flat, value_of
from wpauc_jax.data.dataset import Dataset, load_dataset, load_manifest
from wpauc_jax.data.errors import DataError
from wpauc_jax.evaluation.ranks import Ranks, RanksError
from wpauc_jax.runtime.files import read_json
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages.train import STAGES

_NEEDED = ("stages", "config", "evaluated", "identity")  # of results.json, each an object


class ReportError(ValueError):
    """A folder of which there is nothing to report; the message says which, and what to do."""


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """A run that was evaluated. What could not be read is empty, and `missing` says so in sentences."""

    folder: pathlib.Path
    results: Mapping[str, Any]  # results.json
    settings: Mapping[str, Any]  # by dotted names, as they were recorded
    lines: list[dict[str, Any]]  # of metrics.jsonl
    ranks: Mapping[str, Ranks]  # by the rows of the table
    dataset: Dataset | None
    manifest: Mapping[str, Any]  # of the prepared data
    missing: list[str]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def setting(self, name: str) -> Any:
        """The value of a setting; one that this run did not know yet has what held then."""
        return value_of(self.settings, name)

    @property
    def trained(self) -> list[str]:
        """The stages that are trained, in their order."""
        return [stage for stage in STAGES if stage in self.results["stages"]]


def digest_of(folder: pathlib.Path) -> str:
    """Tells whether a page is of these results; empty where there are none."""
    path = folder / "results.json"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else ""


def read_run(folder: pathlib.Path, *, dataset: Dataset | None = None) -> RunFacts:
    """Reads a work directory. `dataset` is its prepared data, where these are in memory.

    Raises ReportError where there are no results.
    """
    results = read_json(folder / "results.json")
    if not all(isinstance(results.get(name), dict) for name in _NEEDED):
        raise ReportError(
            f"{folder / 'results.json'} is missing or damaged: there is nothing to report; run mode=evaluate in "
            "this work directory first"
        )
    missing: list[str] = []
    settings = flat(results["config"])
    data = pathlib.Path(settings.get("data.dir") or folder / "data")
    manifest: Mapping[str, Any] = {}
    try:
        manifest = load_manifest(data)
        dataset = dataset or load_dataset(data)
        if dataset.fingerprint != results.get("data"):
            raise DataError(f"{data} holds other data than those that this run was evaluated on")
    except (DataError, OSError) as error:
        missing.append(f"{error}. What needs the interactions is left out.")
        dataset, manifest = None, {}
    lines = read_metrics(folder / "metrics.jsonl", say=missing.append)
    ranks = _ranks(folder, results, missing.append)
    return RunFacts(folder, results, settings, lines, ranks, dataset, manifest, missing)


def _ranks(folder: pathlib.Path, results: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Ranks]:
    """The ranks of each row, left out where the file is not the one that the row is of."""
    found = {}
    known = {name: digest for facts in results["evaluated"].values() for name, digest in facts["ranks"].items()}
    for name in results["stages"]:
        path = folder / "ranks" / f"{name}.npz"
        try:
            ranks = Ranks.load(path)
        except RanksError as error:
            say(f"{error}. What needs these ranks is left out.")
            continue
        if name in known and hashlib.sha256(path.read_bytes()).hexdigest() != known[name]:
            say(f"{path} is not what results.json is of. What needs these ranks is left out.")
            continue
        found[name] = ranks
    return found
