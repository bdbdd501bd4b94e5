"""study.md, study.html and the tables as CSV: everything that a reader needs to believe a study, or not to."""

import hashlib
import math
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import wpauc_jax
from wpauc_jax.evaluation.report import metric_title
from wpauc_jax.report.page import Code, Heading, MarkdownBlock, Points, Table, Text, write_html, write_markdown
from wpauc_jax.runtime.files import read_json
from wpauc_jax.study.comparisons import Comparison, compare_rows, is_whole
from wpauc_jax.study.pictures import make_pictures, write_csv
from wpauc_jax.study.plan import SFT, Study
from wpauc_jax.study.results import Results, Row, joined

_METRICS_A_TABLE = 5  # so that a table has at most seven columns


def write_pages(
    study: Study, folder: pathlib.Path, own: Results, other: Results | None, say: Callable[[str], None]
) -> None:
    """Writes study.md, study.html, pictures/ and the CSV files of a study, joined with `other` if there is one.

    Raises RanksError where the runs cannot be compared.
    """
    results = joined(own, other)
    found = compare_rows(results, study.controls, study.metrics, study.options.draws)
    control = study.controls[0]
    pictures = make_pictures(folder / "pictures", results, control, study.metrics)
    blocks: list[MarkdownBlock] = [
        Heading(f"Study {folder.resolve().name}", 1),
        Points(_summary(study, results, found)),
        Heading("Test metrics"),
        *_means(results, study.metrics),
        *_differences(study, found),
        Heading("Pictures"),
        *(pictures or (Text("No run has come far enough for a picture."),)),
        *_settings(own),
        *_tuned(own),
        *_failures(own),
        *_origin(own),
        *(_origin(other) if other else []),
    ]
    write_markdown(folder / "study.md", blocks)
    write_html(folder / "study.html", f"Study {folder.resolve().name}", blocks)
    write_csv(folder / "metrics.csv", _metric_rows(results, study.metrics))
    write_csv(folder / "comparisons.csv", [_comparison_row(one) for one in found])
    say(f"{folder / 'study.md'} and {folder / 'study.html'} say what came out")


def _summary(study: Study, results: Results, found: Sequence[Comparison]) -> list[str]:
    seeds = study.options.seeds
    anyone = next((ranks for row in results.rows.values() for ranks in row.ranks.values()), None)
    lines = [f"{len(study.arms)} arms, {len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({_listed(seeds)})"]
    if anyone:
        lines.append(f"{len(anyone):,} test samples of {anyone.num_users:,} users; {anyone.rule}")
    told = [one for one in found if one.corrected < 0.05]
    lines.append(f"{len(found)} comparisons; after Holm's correction {len(told)} of them are significant (p < 0.05)")
    if len(seeds) == 1:
        lines.append(
            "One seed: every interval is over users, with this one training taken as given. Nothing here says whether "
            "another training of the same arm would come out the same, so no arm is shown to be better than another"
        )
    unfinished = [row.name for row in results.rows.values() if row.is_arm and not is_whole(results, row)]
    if unfinished:
        lines.append(f"Runs of {_listed(unfinished)} are missing: these arms are not compared")
    kept = {row.name: kept_starts(row) for row in results.rows.values() if row.is_arm}
    told_of = [f"{name} ({count} of {len(results.rows[name].ranks)} seeds)" for name, count in kept.items() if count]
    if told_of:
        lines.append(
            f"No step was better on validation than the start, which is then what was kept: {_listed(told_of)}"
        )
    return lines


def kept_starts(row: Row) -> int:
    """With how many seeds the best parameters of an arm are those that it began with."""
    steps = (read_json(row.folders[seed] / "results.json").get("best_steps", {}).get(row.stage) for seed in row.ranks)
    return sum(step == 0 for step in steps)


def _means(results: Results, metrics: Sequence[str]) -> list[MarkdownBlock]:
    blocks: list[MarkdownBlock] = []
    for first in range(0, len(metrics), _METRICS_A_TABLE):
        some = metrics[first : first + _METRICS_A_TABLE]
        rows = [
            [row.name, str(len(row.ranks)), *(_mean(row, metric) for metric in some)] for row in results.rows.values()
        ]
        blocks.append(Table(["arm", "seeds", *map(metric_title, some)], rows))
    blocks.append(
        Text(
            "The mean over the seeds; in brackets the standard deviation between them. sft is the SFT that arms share."
        )
    )
    return blocks


def _mean(row: Row, metric: str) -> str:
    values = [ranks.mean(metric) for ranks in row.ranks.values()]
    if not values:
        return "-"
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 and row.is_arm else ""
    return f"{statistics.fmean(values):.4f}{spread}"


def _differences(study: Study, found: Sequence[Comparison]) -> list[MarkdownBlock]:
    blocks: list[MarkdownBlock] = []
    header = ["arm", "metric", "difference", "95%, users", "95%, users and seeds", "p, corrected", "smallest seen"]
    for control in study.controls:
        rows = [_difference_row(one) for one in found if one.control == control]
        if rows:
            blocks += [Heading(f"Differences from {control}"), Table(header, rows)]
    if blocks:
        blocks.append(Points(_EXPLANATIONS))
    return blocks


_EXPLANATIONS = (
    "difference: the arm's metric minus the control's, mean over the seeds; in brackets the standard deviation of the "
    "difference between seeds",
    "95%, users: a paired bootstrap over users, with these trainings taken as given",
    "95%, users and seeds: users and seeds are drawn; this interval is about arms, and not about these trainings",
    "p, corrected: two-sided, from the bootstrap over users and seeds (with one seed over users), before and after "
    "Holm's correction over all comparisons of this page",
    "smallest seen: the smallest true difference that these users and seeds would have told apart from none four times "
    "in five, after the correction",
)


def _difference_row(one: Comparison) -> list[str]:
    found = one.found
    spread = "" if math.isnan(found.spread) else f" ({found.spread:.4f})"
    both = f"[{found.low:+.4f}, {found.high:+.4f}]" if found.seeds > 1 else "one seed"
    return [
        one.arm,
        metric_title(one.metric),
        f"{found.users.difference:+.4f}{spread}",
        f"[{found.users.low:+.4f}, {found.users.high:+.4f}]",
        both,
        f"{found.p_value:.4f}, {one.corrected:.4f}",
        f"{one.smallest:.4f}" if one.smallest > 0 else "-",
    ]


def _settings(results: Results) -> list[MarkdownBlock]:
    arms = [row for row in results.rows.values() if row.is_arm]
    lines = [f"{row.name}: {_assigned(row.settings) or 'the base as it is'}" for row in arms]
    return [Heading("Arms, as differences from the base"), Points(lines)]


def _tuned(results: Results) -> list[MarkdownBlock]:
    blocks: list[MarkdownBlock] = []
    for arm, facts in results.state["tuned"].items():
        rows = [
            [_assigned(one["point"]), "failed" if one["value"] is None else f"{one['value']:.4f}"]
            for one in facts["points"]
        ]
        metric = metric_title(facts["points"][0]["metric"])
        chosen = _assigned(facts["chosen"]) if facts["chosen"] else "nothing: every point failed"
        blocks += [
            Text(f"{arm}: chosen on the validation split with seed {facts['seed']}: {chosen}."),
            Table(["point", f"validation {metric}"], rows),
        ]
    return [Heading("Tuned values"), *blocks] if blocks else []


def _failures(results: Results) -> list[MarkdownBlock]:
    failures = results.state["failures"]
    if not failures:
        return [Heading("Failures"), Text("None.")]
    return [Heading("Failures"), Points([f"{one['run']} ({one['folder']}): {one['error']}" for one in failures])]


def _origin(results: Results) -> list[MarkdownBlock]:
    """Commands, and hashes of data and code."""
    state = results.state
    facts = {name: _facts(row) for name, row in results.rows.items() if row.is_arm or name == SFT}
    data = {one["data"] for one in facts.values() if one}
    catalogs: dict[str, list[str]] = {}
    for name, one in facts.items():
        if one:
            catalogs.setdefault(one["catalog"], []).append(name)
    lines = [
        *(f"data: {one}" for one in sorted(data)),
        *(f"catalog of {_listed(names)}: {one}" for one, names in catalogs.items()),
        f"code: wpauc_jax {wpauc_jax.__version__}, {code_hash()}",
        f"time of all runs: {sum(state['seconds'].values()):,.0f} s",
    ]
    commands = [state["command"] or "(started from Python)"]
    for name, runs in state["runs"].items():
        for seed, path in runs.items():
            at = results.folder / path
            commands.append(f"python -m wpauc_jax.main --config={at / 'run.py'} --workdir={at}  # {name}, seed {seed}")
    note = Text("The same command with --config.mode=evaluate measures an arm of SFT alone, and the shared sft.")
    title = f"Where the numbers of {results.folder.resolve().name} come from"
    return [Heading(title), Points(lines), Code("\n".join(commands)), note]


def _facts(row: Row) -> Mapping[str, Any]:
    """What results.json of the first run that has one says; nothing where no run has."""
    found = (read_json(folder / "results.json") for folder in row.folders.values())
    return next((facts for facts in found if "data" in facts and "catalog" in facts), {})


def code_hash() -> str:
    """sha256 of the package's source files, so that two studies can tell whether they ran the same code."""
    digest = hashlib.sha256()
    package = pathlib.Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"sha256 {digest.hexdigest()[:16]}"


def _metric_rows(results: Results, metrics: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"arm": row.name, "seed": seed, "metric": metric, "value": ranks.mean(metric)}
        for row in results.rows.values()
        for seed, ranks in row.ranks.items()
        for metric in metrics
    ]


def _comparison_row(one: Comparison) -> dict[str, Any]:
    found = one.found
    return {
        "arm": one.arm,
        "control": one.control,
        "metric": one.metric,
        "seeds": found.seeds,
        "difference": found.users.difference,
        "spread": found.spread,
        "low_users": found.users.low,
        "high_users": found.users.high,
        "low": found.low if found.seeds > 1 else math.nan,
        "high": found.high if found.seeds > 1 else math.nan,
        "p_value": found.p_value,
        "p_corrected": one.corrected,
        "smallest": one.smallest,
    }


def _assigned(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _listed(things: Sequence[object]) -> str:
    return ", ".join(map(str, things))
