"""Writes report.html of one run, and one page of several runs."""

import pathlib
from collections.abc import Callable, Sequence

from wpauc_jax.data.dataset import Dataset
from wpauc_jax.report.facts import ReportError, RunFacts, digest_of, read_run
from wpauc_jax.report.page import Block, Heading, Links, made_of_what, write_html
from wpauc_jax.report.sections import SECTIONS
from wpauc_jax.report.several import comparison
from wpauc_jax.runtime.files import unless_read_only

PAGE = "report.html"  # in the work directory


def keep_report(folder: pathlib.Path, dataset: Dataset, say: Callable[[str], None]) -> None:
    """Writes the page of a run where it is missing or of other results.

    A page that cannot be made is told in a line: the results are there, whatever becomes of it.
    """
    path, digest = folder / PAGE, digest_of(folder)
    if not digest or made_of_what(path) == digest:
        return
    try:
        with unless_read_only(path, say):
            write_report(folder, path, dataset=dataset)
            say(f"{path} shows the run")
    except Exception as error:
        say(f"{path} could not be made ({type(error).__name__}: {error}); the results are there")


def write_report(folder: pathlib.Path, output: pathlib.Path, *, dataset: Dataset | None = None) -> None:
    """The page of one run. Raises ReportError where the run was not evaluated."""
    run = read_run(folder, dataset=dataset)
    blocks = [Heading(f"Run {run.name}", 1), _contents(), *_sections(run, level=2, prefix="")]
    write_html(output, f"Run {run.name}", blocks, made_of=digest_of(folder))


def write_reports(folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """One page of several runs: what they have in common, side by side, then each on its own.

    Raises ReportError where a run was not evaluated, or is named twice.
    """
    real = [folder.resolve() for folder in folders]
    if len(set(real)) < len(real):
        raise ReportError("a work directory is named twice")
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    titles = [run.name if names.count(run.name) == 1 else str(run.folder) for run in runs]
    by_title = dict(zip(titles, runs, strict=True))
    blocks: list[Block] = [
        Heading(f"{len(runs)} runs", 1),
        Links([("Comparison", "comparison"), *((title, f"run{i}") for i, title in enumerate(by_title))]),
        Heading("Comparison", anchor="comparison"),
        *comparison(by_title),
    ]
    for i, (title, run) in enumerate(by_title.items()):
        blocks += [Heading(f"Run {title}", anchor=f"run{i}"), *_sections(run, level=3, prefix=f"run{i}-")]
    write_html(output, ", ".join(by_title), blocks)


def _contents() -> Links:
    return Links([(title, _anchor("", title)) for title in SECTIONS])


def _sections(run: RunFacts, *, level: int, prefix: str) -> list[Block]:
    blocks: list[Block] = []
    for title, make in SECTIONS.items():
        blocks += [Heading(title, level, _anchor(prefix, title)), *make(run)]
    return blocks


def _anchor(prefix: str, title: str) -> str:
    return prefix + title.lower().replace(",", "").replace(" ", "-")
