"""The sections of a run's page, each made of what the files of the run say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wpauc_jax.config.recorded import unlike_defaults
from wpauc_jax.doctor import examine_data
from wpauc_jax.evaluation.plots import panels_of
from wpauc_jax.evaluation.report import metric_title
from wpauc_jax.evaluation.slices import part_of, popularity_groups
from wpauc_jax.evaluation.verdict import sentence
from wpauc_jax.report.drawings import bar_drawing, panel_drawing, rank_drawing, recall_drawing
from wpauc_jax.report.facts import RunFacts
from wpauc_jax.report.page import Block, Code, Drawing, Gallery, Points, Table, Text
from wpauc_jax.report.users import sample_users
from wpauc_jax.runtime.progress import duration

_EXAMINED = 2_000_000  # interactions; the doctor's checks of more take minutes

# What is drawn of each stage, and the captions, by keys of metric lines. plots/training_STAGE.png has all the rest.
_CURVES = {
    "loss": "The loss of each step, and its moving average.",
    "hit_rate": "The share of groups that hold their target: the hit rate.",
    "dead_groups": "The share of groups that teach nothing, since all of their items have one reward.",
    "weight_by_rank": "The weight of a negative by its rank in the group, the hardest first.",
    "entropy_high": "The entropy over items lies between the two: items outside the group are known as a whole only.",
    "kl": "How far the model has moved from the one that RL began with.",
}


def outcome(run: RunFacts) -> list[Block]:
    """What came out, in sentences."""
    lines = [sentence(facts) for facts in run.results.get("verdicts", [])]
    lines += run.results.get("notes", [])
    for stage, changes in run.results.get("changes", {}).items():
        lines.append(
            f"Warning: {stage} was trained with other settings than it was evaluated with: {'; '.join(changes)}"
        )
    return [Points([*(lines or ["Nothing was trained: what needs no training is ranked alone."]), *run.missing])]


def asked(run: RunFacts) -> list[Block]:
    """The task in a few rows."""
    model, see = run.setting("model.pretrained"), run.setting
    if not model:
        model = f"{see('model.family')}, {see('model.num_layers')} layer(s) of width {see('model.width')}, from scratch"
    rows = {
        "data": _first(see("data.archive"), see("data.path"), see("data.root"), see("data.source")),
        "history": f"up to {see('data.max_history')} items; {run.results['rule']}",
        "items as": f"{see('catalog.ids')} tokens",
        "model": model,
        "scoring": run.results["scoring"],
        "seed": str(see("seed")),
    }
    rows |= {stage: _course(run, stage) for stage in run.trained}
    return [Table(["what", "how"], [[name, str(text)] for name, text in rows.items()], words=True)]


def _first(*values: str) -> str:
    return next(value for value in values if value)


def _course(run: RunFacts, stage: str) -> str:
    """What a stage optimises, how long it took, and which step was kept."""
    see = run.setting
    aims: dict[str, Callable[[], str]] = {
        "sft": lambda: f"loss={see('sft.loss')}",
        "rl": lambda: (
            f"estimator={see('rl.estimator')}, kind={see('rl.kind')}, weighting={see('rl.weighting')}, "
            f"anchor={_anchor(see)}, group of {see('rl.group_size')}, aim Recall@{see('rl.target_k')}"
        ),
    }
    parts = [aims[stage](), f"learning rate {see(f'{stage}.optim.learning_rate'):g}"]
    steps = [line for line in run.lines if line["stage"].partition("/")[0] == stage]
    if steps:
        took = max(line["time"] for line in steps) - min(line["time"] for line in steps)
        parts.append(f"{max(line['step'] for line in steps):,} steps in {duration(took)}")
    parts.append(f"step {run.results['best_steps'][stage]:,} was kept")
    return "; ".join(parts)


def _anchor(see: Callable[[str], Any]) -> int:
    """The rank at the window's centre; without a setting of its own it is that of the aim."""
    return see("rl.target_k") - 1 if see("rl.anchor") is None else see("rl.anchor")


def data(run: RunFacts) -> list[Block]:
    """Counts of users, items and samples."""
    found = run.manifest.get("statistics")
    if not found:
        return [Text("The prepared data could not be read.")]
    columns = {
        "users": f"{found['users']:,}",
        "items": f"{found['items']:,}",
        "interactions": f"{found['interactions']:,}",
        "density": f"{found['density']:.3%}",
        "items a user": f"{found['mean_user_length']:.1f}",
        **{f"{name} samples": f"{count:,}" for name, count in found["samples"].items()},
        "items without training": f"{found['items_without_training']:,}",
    }
    return [Table(["count", "value"], [[name, value] for name, value in columns.items()])]


def results(run: RunFacts) -> list[Block]:
    """The table of the test split with standard errors, and the areas of exact ranks."""
    found = run.results
    head = (
        f"{found['split']} split: {found['samples']:,} samples of {found['users']:,} users, each against the whole "
        f"catalog of {found['items']:,} items; {found['rule']}. Behind ± stands one standard error."
    )
    blocks: list[Block] = [
        Text(head),
        *stage_tables(found["stages"], found["items"]),
    ]
    for name, what in (("exact", "Among all items, exactly:"), ("sets", "Users' test items as sets:")):
        if found.get(name):
            metrics = list(next(iter(found[name].values())))
            rows = [[stage, *(f"{values[one]:.4f}" for one in metrics)] for stage, values in found[name].items()]
            blocks += [Text(what), Table(["stage", *map(metric_title, metrics)], rows)]
    if run.ranks:
        blocks.append(Gallery([recall_drawing(run.ranks), rank_drawing(run.ranks)]))
    return blocks


def stage_tables(stages: Mapping[str, Mapping[str, Any]], num_items: int) -> list[Table]:
    """Rows of results.json by metrics, each with its standard error: a table for each kind of metric."""
    kinds: dict[str, list[str]] = {}
    for name in next(iter(stages.values()))["metrics"]:
        kinds.setdefault(name.partition("@")[0], []).append(name)
    tables = []
    for names in kinds.values():
        rows = [[stage, _ranked(found, num_items), *_cells(found, names)] for stage, found in stages.items()]
        tables.append(Table(["stage", "ranked", *map(metric_title, names)], rows))
    return tables


def _ranked(found: Mapping[str, Any], num_items: int) -> str:
    length = found["list_length"]
    return "all items" if length >= num_items else f"beam of {length}"


def _cells(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    values, errors = found["metrics"], found["standard_errors"]
    return [f"{values[name]:.4f}" + (f" ± {errors[name]:.4f}" if errors[name] is not None else "") for name in names]


def training(run: RunFacts) -> list[Block]:
    """Curves of every stage: validation, the loss, and what groups teach."""
    blocks: list[Block] = []
    for stage in dict.fromkeys(line["stage"].partition("/")[0] for line in run.lines):
        train = [line for line in run.lines if line["stage"] == stage]
        valid = [line for line in run.lines if line["stage"] == f"{stage}/valid"]
        drawings: list[Drawing] = []
        for panel in panels_of(train, valid):
            if panel[0].startswith("validation"):
                drawings.append(panel_drawing(panel, f"On validation samples, at the K of each line ({stage})."))
            elif panel[2][0] in _CURVES:
                drawings.append(panel_drawing(panel, f"{_CURVES[panel[2][0]]} ({stage})"))
        blocks.append(Gallery(drawings))
    return blocks or [Text("There are no metric lines.")]


def slices(run: RunFacts) -> list[Block]:
    """A metric where training shows the target often, rarely and never."""
    if run.dataset is None or not run.ranks:
        return [Text("The interactions or the ranks could not be read.")]
    k = max(run.setting("eval.recall_at"))
    metric = f"recall@{k}"
    rows = {name: ranks for name, ranks in run.ranks.items() if ranks.num_candidates >= k}
    if not rows:
        return [Text(f"No list reaches {metric_title(metric)}.")]
    targets = next(iter(rows.values())).target
    groups = [group for group in popularity_groups(run.dataset) if group.inside[targets].any()]
    bars = {}
    for name, ranks in rows.items():
        parts = [part_of(ranks, group.inside[ranks.target]) for group in groups]
        bars[name] = [part.mean(metric) for part in parts], [part.standard_error(metric) for part in parts]
    cells = [
        [name, *(f"{mean:.4f} ± {error:.4f}" for mean, error in zip(*found, strict=True))]
        for name, found in bars.items()
    ]
    titles = [f"{group.name} ({int(group.inside[targets].sum()):,} samples)" for group in groups]
    lines = [
        f"{group.name}: {int(group.inside.sum()):,} items, each with {_range(group.counts)} training interactions"
        for group in groups
    ]
    lines.append("Head, middle and tail have about a third of the training interactions each. Cold items have none.")
    title = metric_title(metric)
    caption = f"{title} by how often training shows the target. Bars: one standard error."
    drawing = bar_drawing(bars, [group.name for group in groups], title, caption)
    return [Points(lines), Table([title, *titles], cells), Gallery([drawing])]


def _range(counts: tuple[int, int]) -> str:
    least, most = counts
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def doctor(run: RunFacts) -> list[Block]:
    """What the doctor's checks of the interactions find."""
    command = f"wpauc doctor --workdir={run.folder}"
    note = (
        f"These are the checks of the interactions alone. Catalog, prompts and checkpoints are examined by: {command}"
    )
    if run.dataset is None:
        return [Text("The interactions could not be read."), Text(note)]
    if len(run.dataset.item) > _EXAMINED:
        return [Text(f"There are over {_EXAMINED:,} interactions. They are examined by: {command}")]
    findings = examine_data(run.dataset, run.setting("data.max_history"))
    lines = [
        f"{'PROBLEM' if finding.is_problem else 'note'}: {check}: {finding.text}"
        for check, found in findings.items()
        for finding in found
    ]
    return [Points(lines or [f"{len(findings)} checks found nothing."]), Text(note)]


def settings(run: RunFacts) -> list[Block]:
    """The settings that are not the defaults."""
    found = unlike_defaults(run.settings)
    rows = [[name, *map(shown, pair)] for name, pair in found.items() if name != "mode"]
    return (
        [Table(["setting", "here", "default"], rows, words=True)] if rows else [Text("All settings are the defaults.")]
    )


def shown(value: Any) -> str:
    """A value of a setting in a table."""
    return "empty" if value == "" else str(value)


def origin(run: RunFacts) -> list[Block]:
    """Command, versions, devices, hashes."""
    made = run.results.get("made_with", {})
    if not made:
        return [Text("An earlier version evaluated this run, which did not write down its command and versions.")]
    rows = [*made["versions"].items(), ("devices", made["devices"]), ("processes", str(made["processes"]))]
    rows += [("data", run.results["data"][:16]), ("catalog", run.results["catalog"][:16])]
    return [Code(made["command"]), Table(["what", "version"], [list(row) for row in rows], words=True)]


# By their titles, in the order of the page.
SECTIONS: dict[str, Callable[[RunFacts], list[Block]]] = {
    "Outcome": outcome,
    "What was asked": asked,
    "Data": data,
    "Results": results,
    "Training": training,
    "Popular, rare and cold targets": slices,
    "Sample users": sample_users,
    "Doctor": doctor,
    "Settings that differ from the defaults": settings,
    "Command and versions": origin,
}
