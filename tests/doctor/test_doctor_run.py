"""mode=doctor on whole work directories: exit codes, checkpoints, and the real sets with what their README counts."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.data_worlds import shared
from wpauc_jax import modes as run
from wpauc_jax.config import (
    CatalogConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    RlConfig,
    SftConfig,
    SyntheticConfig,
)
from wpauc_jax.decode.search import Candidates
from wpauc_jax.doctor import catalog as catalog_checks
from wpauc_jax.doctor import checkpoints, examine
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.stages.workspace import Workspace, open_workspace
from wpauc_jax.training.checkpoint import BestCheckpoint

ROOT = pathlib.Path(__file__).parents[2]
MODEL = ModelConfig(num_layers=1, width=16, num_heads=2, num_kv_heads=1, head_dim=8, ffn_width=16)
SMALL = Config(
    data=DataConfig(
        source="synthetic", k_core=0, max_history=4, synthetic=SyntheticConfig(num_users=60, num_items=24, num_topics=4)
    ),
    catalog=CatalogConfig(embedding="text", embedding_width=8, levels=2, codes=6),
    model=MODEL,
    sft=SftConfig(batch_size=16, steps=4, evals=1, saves=1),
    rl=RlConfig(batch_size=8, steps=2, evals=1, saves=1, group_size=6, rows="latest"),
    eval=EvalConfig(num_beams=10, batch_size=32),
)


def silent(text):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    for mode in ("sft", "evaluate"):
        run.MODES[mode](SMALL, folder)
    return folder


@pytest.fixture
def work(trained) -> Workspace:
    return open_workspace(SMALL, trained, silent)


def test_a_trained_run_is_well(work, trained, capsys):
    assert run.MODES["doctor"](SMALL, trained) == 0
    page = capsys.readouterr().out
    assert page.rstrip().endswith("no problem") and "PROBLEM" not in page
    for check in (
        "sft: lists hold items of the catalog",
        "sft: the checkpoint is of this run",
        "no prompt holds its",
    ):
        assert any(line.startswith("ok ") and check in line for line in page.splitlines()), check


def test_a_checkpoint_of_other_data_or_another_catalogue(work):
    assert checkpoints.checkpoint_is_of_this_run(work, "sft") == []
    other = dataclasses.replace(work, items=dataclasses.replace(work.dataset, fingerprint="other"))
    (finding,) = checkpoints.checkpoint_is_of_this_run(other, "sft")
    assert finding.is_problem and "data.fingerprint" in finding.text and "'other' now" in finding.text
    retokenised = dataclasses.replace(work.catalog, tokens=work.catalog.tokens[::-1])
    (finding,) = checkpoints.checkpoint_is_of_this_run(dataclasses.replace(work, catalog=retokenised), "sft")
    assert "catalog.fingerprint" in finding.text


def test_a_stage_that_was_stopped_before_its_first_checkpoint(work, tmp_path):
    (tmp_path / "rl" / "checkpoints").mkdir(parents=True)
    assert checkpoints.checkpoint_is_of_this_run(dataclasses.replace(work, folder=tmp_path), "rl") == []


def with_params(work, folder, params) -> Workspace:
    """A work directory whose SFT parameters are these."""
    with BestCheckpoint(folder / "sft" / "best") as best:
        best.save(1, params, {})
    return dataclasses.replace(work, folder=folder)


def test_parameters_that_are_not_finite_or_of_another_model(work, tmp_path):
    params, found = checkpoints.parameters_load(work, "sft")
    assert found == []
    leaves, tree = jax.tree.flatten(params)
    leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].set(np.nan)
    broken = with_params(work, tmp_path / "nan", jax.tree.unflatten(tree, leaves))
    nothing, (finding,) = checkpoints.parameters_load(broken, "sft")
    name = jax.tree_util.keystr(jax.tree_util.tree_leaves_with_path(params)[0][0], simple=True, separator=".")
    assert nothing is None and finding.is_problem and finding.references == (name,)
    leaves[0] = leaves[0][..., :1]
    narrow = with_params(work, tmp_path / "narrow", jax.tree.unflatten(tree, leaves))
    nothing, (finding,) = checkpoints.parameters_load(narrow, "sft")
    assert nothing is None and f"{name}: float32" in finding.text


@pytest.fixture(scope="module")
def true_lists(trained):
    work = open_workspace(SMALL, trained, silent)
    params, _ = checkpoints.parameters_load(work, "sft")
    search = work.search(10)
    return params, lambda _, batch: jax.tree.map(np.array, search(params, batch))


def spoilt(search, change):
    def changed(params, batch):
        found: Candidates = search(params, batch)
        change(found)
        return found

    return changed


def twice(found):
    found.items[3, 1] = found.items[3, 0]


def outside(found):
    found.items[3, 2] = -1


def ascending(found):
    found.scores[3] = found.scores[3, ::-1]


def unscored(found):
    found.scores[3, 9] = -np.inf


def short(found):
    found.valid[3, 9] = False


def sure(found):
    found.scores[3] += 5.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (twice, "name an item twice"),
        (outside, "name an item outside the catalog"),
        (ascending, "are not in descending order"),
        (unscored, "have a score that is not a number"),
        (short, "do not hold 10 items"),
        (sure, "have more than all of the probability"),
        (sure, "have other scores than the model gives their items"),
    ],
)
def test_lists_that_no_search_may_give(work, true_lists, monkeypatch, change, text):
    params, search = true_lists
    monkeypatch.setattr(Workspace, "search", lambda self, width: search)
    assert checkpoints.lists_are_of_the_catalog(work, "sft", params) == []
    monkeypatch.setattr(Workspace, "search", lambda self, width: spoilt(search, change))
    findings = checkpoints.lists_are_of_the_catalog(work, "sft", params)
    mine = [finding for finding in findings if finding.text.endswith(f"{text}: 1")]
    assert len(mine) == 1 and mine[0].is_problem
    assert mine[0].references[0].endswith("test)")


def test_ranks_of_other_data(work, tmp_path):
    assert checkpoints.ranks_are_of_this_data(work) == []
    ranks = Ranks.load(work.folder / "ranks" / "sft.npz")
    dataclasses.replace(ranks, target=(ranks.target + 1) % 24).save(tmp_path / "ranks" / "sft.npz")
    (tmp_path / "ranks" / "rl.npz").write_bytes(b"cut")
    findings = checkpoints.ranks_are_of_this_data(dataclasses.replace(work, folder=tmp_path))
    assert [finding.is_problem for finding in findings] == [True, True]
    assert "rl.npz: not a file of ranks" in findings[0].text and "measured on other data" in findings[1].text


def test_an_unsound_catalogue_ends_with_1_and_stops_there(tmp_path):
    work = open_workspace(SMALL, tmp_path, silent)
    tokens = work.catalog.tokens.copy()
    tokens[3], lengths = tokens[7], work.catalog.lengths.copy()
    lengths[3] = lengths[7]
    dataclasses.replace(work.catalog, tokens=tokens, lengths=lengths).save(tmp_path / "catalog.npz")
    arguments = {
        "data.max_history": 4,
        "data.synthetic.num_users": 60,
        "data.synthetic.num_items": 24,
        "data.synthetic.num_topics": 4,
        "data.synthetic.num_kinds": 6,
        "catalog.embedding": "text",
        "catalog.embedding_width": 8,
        "catalog.levels": 2,
        "catalog.codes": 6,
        "mode": "doctor",
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "wpauc_jax.main", "--config=configs/synthetic.py", f"--workdir={tmp_path}"),
            *(f"--config.{name}={value}" for name, value in arguments.items()),
        ],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "items whose sequence equals another's: 1" in done.stdout
    assert "item '3'" in done.stdout and "item '7'" in done.stdout
    assert "the other checks need what is wrong here" in done.stdout and "no prompt holds" not in done.stdout


def real(name: str, data: dict, catalog: dict, tmp_path) -> tuple[Workspace, object]:
    settings = {"source": "recbole", "k_core": 0, "path": shared(name), **data}
    config = Config(data=DataConfig(**settings), catalog=CatalogConfig(**catalog), model=MODEL)
    work = open_workspace(config, tmp_path, silent)
    examination = examine(work)
    assert examination.problems == 0, examination.page()
    return work, examination


def texts(examination, check: str) -> str:
    return " ".join(finding.text for finding in examination.findings[check])


def table_row(examination, ranking: str, by: str) -> list[float]:
    """Recall@1, @3, @5, @10 and NDCG@10."""
    table = examination.tables["Test split, without a model"].splitlines()
    (line,) = [line for line in table if line.startswith(ranking) and f"  {by} " in line]
    return [float(cell) for cell in line.split()[-5:]]


def test_office_is_well_and_its_collisions_are_those_of_its_readme(tmp_path):
    sids = {"ids": "file", "path": shared("office") + "/office.sid.gz"}
    _, examination = real("office", {}, sids, tmp_path)
    assert "of which 1,414 beyond the first" in texts(examination, "items share a semantic id")
    assert "of which 5 beyond the first" in texts(examination, "items share a title")


def test_toys_is_well(tmp_path):
    codes = {"embedding": "cooccurrence", "embedding_width": 8, "levels": 2, "codes": 16}
    work, examination = real("toys", {}, codes, tmp_path)
    assert (work.dataset.num_users, work.dataset.num_items) == (19_412, 11_924)
    assert "items share a title" not in examination.findings  # it has no text


def test_yelp_is_well_and_its_chains_are_counted(tmp_path):
    sids = {"ids": "file", "path": shared("yelp") + "/yelp.sid.gz"}
    _, examination = real("yelp", {}, sids, tmp_path)
    assert "of which 832 beyond the first" in texts(examination, "items share a semantic id")
    assert "of which 4,697 beyond the first" in texts(examination, "items share a title")


@pytest.fixture(scope="module")
def industrial_sids() -> dict:
    return {"ids": "file", "path": shared("industrial/minionerec") + "/info.txt.gz"}


def test_industrial_is_well_but_not_with_the_ids_of_another_numbering(tmp_path, industrial_sids):
    codes = {"embedding": "text", "embedding_width": 8, "levels": 2, "codes": 16}
    work, examination = real("industrial", {"split": "chronological"}, codes, tmp_path)
    assert examination.findings["splits are apart in time"] == []
    assert "with another: 49, of which 36 beyond the first" in texts(examination, "items share a title")
    # MiniOneRec's files number the same items in another order.
    (finding,) = catalog_checks.ids_are_of_these_items(work.dataset, CatalogConfig(**industrial_sids))
    assert finding.is_problem and finding.text.startswith("3,5") and "it calls item '0' 'SUPCO SPP6" in finding.text
    assert finding.references[0].startswith("item '0' 'Acetal Copolymer Round Rod")


def test_the_published_industrial_rows_by_item_id_semantic_id_and_title(tmp_path, industrial_sids):
    """MiniOneRec's 4,533 test rows: what a metric says depends on what is counted as the same item."""
    published = {"source": "minionerec", "split": "published"}
    work, examination = real("industrial/minionerec", published, industrial_sids, tmp_path)
    assert work.dataset.num_items == 3_686
    assert examination.findings["semantic ids are of these items"] == []
    codes, titles = (texts(examination, f"items share a {what}") for what in ("semantic id", "title"))
    assert "with another: 31, of which 16 beyond the first" in codes
    assert "with another: 55, of which 40 beyond the first" in titles
    for what, found in (("semantic id", codes), ("title", titles)):
        assert f"Recall@1 0.0441 if scored by {what}, 0.0291 if scored by item id" in found
        assert table_row(examination, "popularity", what)[0] == 0.0441
        assert table_row(examination, "last_item", what)[0] == 0.0435
    assert table_row(examination, "popularity", "item id")[0] == 0.0291
    assert table_row(examination, "last_item", "item id")[0] == 0.0269
