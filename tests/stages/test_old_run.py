"""A work directory that the version before the folders made still opens, and answers as it did then.

`tests/golden/old_run.tar.gz` is that directory: 40 users and 12 items of a synthetic world, SFT and RL finished.
"""

import dataclasses
import json
import pathlib
import tarfile

import pytest

from wpauc_jax.config import (
    CatalogConfig,
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
    SyntheticConfig,
)
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.modes import run

ARCHIVE = pathlib.Path(__file__).parents[1] / "golden" / "old_run.tar.gz"
CONFIG = Config(
    data=DataConfig(
        source="synthetic",
        k_core=0,
        max_history=4,
        synthetic=SyntheticConfig(num_users=40, num_items=12, num_topics=3, num_kinds=2, shortest=5, longest=8),
    ),
    catalog=CatalogConfig(levels=2, codes=4, embedding_width=4),
    model=ModelConfig(num_layers=1, width=8, num_heads=2, num_kv_heads=1, head_dim=4, ffn_width=8),
    sft=SftConfig(batch_size=8, steps=8, evals=2, saves=2, optim=OptimConfig(learning_rate=1e-2)),
    rl=RlConfig(batch_size=8, steps=4, evals=2, saves=1, group_size=6, target_k=2),
    eval=EvalConfig(num_beams=8, batch_size=16, recall_at=(1, 3, 5), ndcg_at=(3, 5)),
)


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old_run"


def content(folder):
    """Every file but results.json and plots, which a report makes anew."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "plots" not in path.parts)
    return {path.relative_to(folder): path.read_bytes() for path in paths if path.name != "results.json"}


def test_a_finished_old_run_is_reported_and_trains_nothing(folder, capsys):
    before = content(folder)
    table = run(dataclasses.replace(CONFIG, mode="all"), folder)
    assert not table
    found = capsys.readouterr()
    assert "0.2750" in found.out and "sft: step" not in found.err
    assert "test of sft" not in found.err and "test of rl" not in found.err  # no stage is evaluated again
    assert {"last_item", "markov"} <= json.loads((folder / "results.json").read_text())["stages"].keys()
    after = content(folder)
    assert {path for path in before if path.parts[0] in ("sft", "rl", "data")} <= after.keys()
    assert all(after[path] == before[path] for path in before if path.parts[0] in ("sft", "rl", "data"))


def test_an_old_run_ranks_as_it_did(folder):
    before = {stage: Ranks.load(folder / "ranks" / f"{stage}.npz") for stage in ("sft", "rl")}
    results = json.loads((folder / "results.json").read_text())
    for path in (folder / "results.json", *(folder / "ranks").iterdir()):
        path.unlink()
    run(dataclasses.replace(CONFIG, mode="evaluate"), folder)
    for stage, ranks in before.items():
        again = Ranks.load(folder / "ranks" / f"{stage}.npz")
        assert again.rank.tolist() == ranks.rank.tolist() and again.sample.tolist() == ranks.sample.tolist()
    again = json.loads((folder / "results.json").read_text())
    for stage in before:
        assert again["stages"][stage]["metrics"] == results["stages"][stage]["metrics"]


def test_an_old_run_refuses_what_it_was_not_trained_with(folder):
    other = dataclasses.replace(CONFIG, sft=dataclasses.replace(CONFIG.sft, batch_size=16))
    with pytest.raises(Exception, match="batch_size"):
        run(dataclasses.replace(other, mode="sft"), folder)
