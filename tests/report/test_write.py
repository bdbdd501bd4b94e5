"""The page of a run, made of the golden work directory; what is wrong with its files is told on the page."""

import dataclasses
import html.parser
import json
import os
import re
import shutil

import pytest

from tests.stages.test_old_run import ARCHIVE, CONFIG
from wpauc_jax import modes
from wpauc_jax.evaluation.lists import LENGTH, NUM_SAMPLES
from wpauc_jax.report import write as report
from wpauc_jax.report.__main__ import main
from wpauc_jax.report.facts import ReportError
from wpauc_jax.report.sections import SECTIONS

EVALUATE = dataclasses.replace(CONFIG, mode="evaluate")
CLOSED_BY_ITSELF = {"meta", "img", "br"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The golden run, evaluated anew."""
    folder = tmp_path_factory.mktemp("report")
    shutil.unpack_archive(ARCHIVE, folder, filter="data")
    for path in (folder / "old_run" / "ranks").iterdir():
        path.unlink()
    modes.run(EVALUATE, folder / "old_run")
    return folder / "old_run"


@pytest.fixture
def run(evaluated, tmp_path):
    """A copy that a test may damage; checkpoints are not read."""
    return shutil.copytree(evaluated, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


class Reader(html.parser.HTMLParser):
    """The page as a browser sees it: every element is closed, and nothing is fetched."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.alts, self.words = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(set(self.ids)) == len(self.ids) and set(self.links) <= {f"#{one}" for one in self.ids}
        assert self.sources and all(source.startswith("data:image/") for source in self.sources)
        assert all(self.alts) and len(self.alts) == len(self.sources)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if "href" in attrs else []
        if tag == "img":
            self.sources.append(attrs["src"])
            self.alts.append(attrs["alt"])
        if tag not in CLOSED_BY_ITSELF:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def page_of(folder):
    return Reader((folder / report.PAGE).read_text())


def test_an_evaluation_leaves_one_whole_page(evaluated):
    page = page_of(evaluated)
    results = json.loads((evaluated / "results.json").read_text())
    for title in SECTIONS:
        assert title in page.text
    for stage, found in results["stages"].items():
        assert f"{stage} all items" in page.text or f"{stage} beam of 8" in page.text
        for name, value in found["metrics"].items():
            assert f"{value:.4f} ± {found['standard_errors'][name]:.4f}" in page.text
    kinds = {re.sub(r"\W.*", "", alt) for alt in page.alts}
    assert {"Recall", "The", "On", "How"} <= kinds and sum("share of groups" in alt for alt in page.alts) == 2
    assert any("weight of a negative" in alt for alt in page.alts)
    assert "rl.target_k 2" in page.text and "jax 0." in page.text and "pytest" in page.text


def test_the_users_are_those_of_the_data_with_the_lists_of_both_stages(evaluated):
    results = json.loads((evaluated / "results.json").read_text())
    lists = {stage: results["evaluated"][stage]["lists"] for stage in ("sft", "rl")}
    for kept in lists.values():
        assert len(kept) == NUM_SAMPLES and all(0 < len(items) <= LENGTH for items in kept.values())
    run = report.read_run(evaluated)
    for stage, kept in lists.items():
        place = dict(zip(run.ranks[stage].sample.tolist(), run.ranks[stage].rank.tolist(), strict=True))
        for sample, items in kept.items():
            target = run.dataset.item_ids[run.dataset.item[int(sample)]]
            assert place[int(sample)] == (items.index(target) if target in items else -1)
    text = (evaluated / report.PAGE).read_text()
    marked = sum(
        run.dataset.item_ids[run.dataset.item[int(sample)]] in items
        for kept in lists.values()
        for sample, items in kept.items()
    )
    assert text.count('<span class="marked">') == marked > 0
    assert text.count('<article class="card">') == NUM_SAMPLES


def test_the_page_is_made_anew_when_it_is_missing_or_of_other_results(run, capsys):
    page = run / report.PAGE
    os.utime(page, (0, 0))
    dataset = report.read_run(run).dataset
    report.keep_report(run, dataset, print)
    assert page.stat().st_mtime == 0  # nothing to do
    results = json.loads((run / "results.json").read_text())
    results["stages"]["rl"]["metrics"]["ndcg@3"] = 0.98765
    (run / "results.json").write_text(json.dumps(results))
    report.keep_report(run, dataset, print)
    assert "0.9877 ±" in page.read_text()
    page.unlink()
    report.keep_report(run, dataset, print)
    assert page.exists() and capsys.readouterr().out.count("shows the run") == 2


def test_a_page_that_cannot_be_made_is_told_and_loses_nothing(run, capsys, monkeypatch):
    (run / report.PAGE).unlink()
    before = (run / "results.json").read_bytes()
    monkeypatch.setitem(SECTIONS, "Outcome", lambda _: 1 / 0)
    report.keep_report(run, report.read_run(run).dataset, print)
    assert "could not be made (ZeroDivisionError: division by zero)" in capsys.readouterr().out
    assert (run / "results.json").read_bytes() == before and not (run / report.PAGE).exists()


def test_what_is_damaged_is_said_on_the_page(run):
    (run / "ranks" / "markov.npz").write_bytes(b"no ranks")
    shutil.copy(run / "ranks" / "popularity.npz", run / "ranks" / "rl.npz")
    (run / "metrics.jsonl").unlink()
    (run / "data" / "items.parquet").unlink()
    assert main(["report", str(run)]) == 0
    text = page_of(run).text
    assert "markov.npz: not a file of ranks" in text and "rl.npz is not what results.json is of" in text
    assert "metrics.jsonl is missing" in text and "items.parquet" in text and "There are no metric lines." in text


def test_titles_are_text_and_never_markup(run):
    known = report.read_run(run)
    titles = [f"<script>alert({i})</script> & Co" for i in range(known.dataset.num_items)]
    report.write_report(run, run / report.PAGE, dataset=dataclasses.replace(known.dataset, titles=titles))
    assert "<script>alert(" in page_of(run).text and "<script" not in (run / report.PAGE).read_text()


def test_several_runs_share_a_page(run, evaluated, tmp_path, capsys):
    results = json.loads((run / "results.json").read_text())
    results["config"]["rl"]["anchor"] = 3
    (run / "results.json").write_text(json.dumps(results))
    output = tmp_path / "both.html"
    assert main(["report", str(evaluated), str(run), f"--output={output}"]) == 0
    text = Reader(output.read_text()).text
    assert "2 runs" in text and "old_run: rl" in text and "run: sft" in text and "rl.anchor None 3" in text
    assert "Warning" not in text
    results["data"] = "other"
    (run / "results.json").write_text(json.dumps(results))
    assert main(["report", str(evaluated), str(run), f"--output={output}"]) == 0
    text = Reader(output.read_text()).text
    assert "Warning: the runs are of different data" in text and "other data than those" in text
    assert capsys.readouterr().err == ""


def test_a_folder_without_results_is_one_line(tmp_path, evaluated, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "results.json is missing or damaged" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"stages": []}')
    with pytest.raises(ReportError, match="missing or damaged"):
        report.write_report(tmp_path, tmp_path / "page.html")
    with pytest.raises(ReportError, match="named twice"):
        report.write_reports([evaluated, evaluated], tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
