"""Baselines by name: each ranks a workspace's samples; those that are shown have a row in the evaluation's table."""

import dataclasses

import numpy as np
import pytest

from tests.stages.test_old_run import CONFIG, folder  # noqa: F401 - the fixture of its work directory
from wpauc_jax import modes
from wpauc_jax.config import Config, DataConfig
from wpauc_jax.data.dataset import positions
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.stages.baselines import BASELINES, Baseline
from wpauc_jax.stages.workspace import open_workspace


@pytest.fixture
def work(folder):  # noqa: F811
    return open_workspace(CONFIG, folder, lambda text: None)


def test_every_baseline_ranks_all_items_for_the_samples_asked_for(work):
    rows = positions(work.dataset, "test")[3:9]
    for baseline in BASELINES.values():
        ranks = baseline.ranks(work, rows)
        assert ranks.sample.tolist() == rows.tolist()
        assert ranks.target.tolist() == work.dataset.item[rows].tolist()
        assert ranks.num_candidates == work.dataset.num_items and (ranks.rank >= 0).all()


def test_no_two_baselines_are_one(work):
    rows = positions(work.dataset, "test")
    found = {name: tuple(baseline.ranks(work, rows).rank.tolist()) for name, baseline in BASELINES.items()}
    assert len(set(found.values())) == len(BASELINES)
    mean = {name: np.mean(1 / np.log2(np.array(rank) + 2.0)) for name, rank in found.items()}
    assert max(mean, key=mean.__getitem__) == "optimum"


def test_which_are_shown():
    shown = {
        source: [name for name, one in BASELINES.items() if one.shown(Config(data=DataConfig(source=source, k_core=0)))]
        for source in ("recbole", "synthetic")
    }
    untrained = ["popularity", "last_item", "markov"]
    assert shown == {"recbole": untrained, "synthetic": [*untrained, "optimum"]}


def test_a_new_baseline_has_a_row_in_the_table(folder, monkeypatch, capsys):  # noqa: F811
    """All that it takes is an entry."""

    def by_number(work, rows) -> Ranks:
        target = work.dataset.item[rows]
        return Ranks(rows, work.dataset.user_of(rows), target, target, work.dataset.num_items)

    monkeypatch.setitem(BASELINES, "by number", Baseline(by_number, shown=lambda config: True))
    modes.MODES["evaluate"](dataclasses.replace(CONFIG, mode="evaluate"), folder)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("by number")]
    work = open_workspace(CONFIG, folder, lambda text: None)
    test = positions(work.dataset, "test")
    assert f"{(work.dataset.item[test] < 1).mean():.4f}" == row.split()[4]
