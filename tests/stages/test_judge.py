"""Rewards in a whole run: another run's recommender, embeddings, titles, and what metrics.jsonl then says."""

import dataclasses

import numpy as np
import pytest

from tests.stages.test_old_run import CONFIG
from wpauc_jax.config import ConfigError
from wpauc_jax.modes import run
from wpauc_jax.runtime.metric_lines import read_metrics
from wpauc_jax.stages.judge import title_numbers

SFT = dataclasses.replace(CONFIG.sft, steps=2, evals=1, saves=1)
RL = dataclasses.replace(CONFIG.rl, steps=2, evals=1, saves=1, weighting="none")


@pytest.fixture(scope="module")
def recommender(tmp_path_factory):
    """A run with one token an item."""
    folder = tmp_path_factory.mktemp("one") / "run"
    run(
        dataclasses.replace(CONFIG, mode="sft", catalog=dataclasses.replace(CONFIG.catalog, ids="atomic"), sft=SFT),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def judged(recommender, tmp_path_factory):
    """A run whose RL uses all of it, and its folder."""
    folder = tmp_path_factory.mktemp("several") / "run"
    rl = dataclasses.replace(
        RL,
        reward="combined",
        reward_weights=(1.0, 0.5, 0.5, 0.1),
        reward_from=str(recommender),
        targets=2,
        false_negatives="mask",
        false_negative="later",
    )
    config = dataclasses.replace(CONFIG, mode="sft", sft=SFT, rl=rl)
    run(config, folder)
    run(dataclasses.replace(config, mode="rl"), folder)
    return config, folder


@pytest.mark.slow
def test_what_a_run_says_of_its_rows_and_lists(judged):
    _, folder = judged
    lines = read_metrics(folder / "metrics.jsonl", say=lambda text: None)
    steps = [line for line in lines if line["stage"] == "rl"]
    assert len(steps) == 2
    for line in steps:
        assert sum(line["rows_by_rank"]) == pytest.approx(1, abs=1e-5)
        assert sum(line["gradient_by_rank"]) == pytest.approx(1, abs=1e-5)
        assert line["reward"] != 0 and np.isfinite(line["loss"])
    assert 0 < sum(line["false_negatives"] for line in steps) < 1
    for line in (line for line in lines if line["stage"] == "rl/valid"):
        assert 0 < line["top1_expected"] < 1 and line["top1_observed"] == line["recall@1"]
        assert line["hit_rate"] >= line["recall@5"]  # lists of six
    assert "hit_rate" not in next(line for line in lines if line["stage"] == "sft/valid")


@pytest.mark.slow
def test_what_is_no_recommender_of_these_items_is_refused(judged, recommender, tmp_path):
    config, folder = judged
    for other, message in (
        (str(tmp_path), "is no run.s work directory: it has no config.json"),
        (str(folder), "answers with several tokens an item"),
    ):
        rl = dataclasses.replace(config.rl, reward_from=other)
        with pytest.raises(ConfigError, match=message):
            run(dataclasses.replace(config, mode="all", rl=rl, sft_from=str(folder)), tmp_path / "new")


def test_items_of_one_title_have_one_number():
    assert title_numbers(["A  pen", "", "a pen", "Ink", ""]).tolist() == [0, 1, 0, 3, 4]
