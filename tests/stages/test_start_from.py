"""SFT that goes on from the best SFT of another work directory."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.stages.test_old_run import CONFIG
from wpauc_jax.config import ConfigError
from wpauc_jax.modes import run
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.train import select_metric
from wpauc_jax.stages.workspace import open_workspace
from wpauc_jax.training.checkpoint import load_params


def sft(**changes):
    """The small run, SFT alone."""
    return dataclasses.replace(CONFIG, mode="sft", sft=dataclasses.replace(CONFIG.sft, evals=1, saves=1, **changes))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    run(sft(steps=6), folder)
    return folder


def best(folder, config):
    work = open_workspace(config, folder, lambda text: None)
    return load_params(best_folder(work, "sft"), work.first_params)


def test_it_begins_where_the_other_ended_and_that_counts(first, tmp_path):
    harmful = dataclasses.replace(CONFIG.sft.optim, learning_rate=10.0)
    on = sft(steps=2, start_from=str(first), optim=harmful)
    run(on, tmp_path / "on")
    before, after = best(first, sft(steps=6)), best(tmp_path / "on", on)
    jax.tree.map(np.testing.assert_array_equal, before, after)  # no step was better than none
    lines = read_metrics(tmp_path / "on" / "metrics.jsonl", say=lambda text: None)
    assert [line["step"] for line in lines if line["stage"] == "sft/valid"] == [0, 2]


def test_it_learns_and_another_seed_may_go_on(first, tmp_path):
    on = dataclasses.replace(sft(steps=2, start_from=str(first)), seed=5)
    run(on, tmp_path / "on")
    lines = read_metrics(tmp_path / "on" / "metrics.jsonl", say=lambda text: None)
    start, end = (line for line in lines if line["stage"] == "sft/valid")
    assert start["step"] == 0 and end["step"] == 2 and start != {**end, "step": 0}


def test_what_cannot_be_started_from_is_refused_before_anything_runs(first, tmp_path):
    with pytest.raises(ConfigError, match=r"sft\.start_from='nowhere' has no trained SFT; train it there"):
        run(sft(start_from="nowhere"), tmp_path / "on")
    assert not (tmp_path / "on").exists()
    with pytest.raises(ConfigError, match="is this work directory; give another --workdir"):
        run(sft(start_from=str(first)), first)


def test_an_sft_that_answers_otherwise_is_refused(first, tmp_path):
    other = sft(start_from=str(first))
    other = dataclasses.replace(other, model=dataclasses.replace(other.model, rope_theta=50.0))
    with pytest.raises(ConfigError, match=r"was trained with other settings: model\.rope_theta: 10000\.0 then, 50\.0"):
        run(other, tmp_path / "on")


def test_a_stage_that_gains_nothing_says_so(first, tmp_path, capsys):
    harmful = dataclasses.replace(CONFIG.rl.optim, learning_rate=10.0)
    rl = dataclasses.replace(CONFIG.rl, steps=1, evals=1, saves=1, optim=harmful)
    config = dataclasses.replace(sft(steps=6), sft_from=str(first), rl=rl)
    run(dataclasses.replace(config, mode="rl"), tmp_path / "rl")
    capsys.readouterr()
    run(dataclasses.replace(config, mode="evaluate"), tmp_path / "rl")
    printed = capsys.readouterr().out
    assert json.loads((tmp_path / "rl" / "results.json").read_text())["best_steps"] == {"sft": 6, "rl": 0}
    line = f"rl: no step was better on validation ({select_metric(config, 'rl')}) than step 0, so this row is that of"
    assert f"{line} the SFT that it began with" in printed and "sft: no step" not in printed
