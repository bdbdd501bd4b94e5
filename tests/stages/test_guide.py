"""`eval.guide` in whole runs: evaluation, recommendation and export say and do what it asks for."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.guide_share import metrics_of
from tests.stages.test_old_run import CONFIG
from wpauc_jax.config import ConfigError, EvalConfig
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.modes import run

SFT = dataclasses.replace(CONFIG.sft, steps=8, evals=1, saves=1)
ATOMIC = dataclasses.replace(CONFIG.catalog, ids="atomic")


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    """A run with one token an item, and its ranks."""
    folder = tmp_path_factory.mktemp("guide") / "run"
    config = dataclasses.replace(CONFIG, mode="sft", catalog=ATOMIC, sft=SFT)
    run(config, folder)
    run(dataclasses.replace(config, mode="evaluate"), folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run with semantic ids."""
    folder = tmp_path_factory.mktemp("own") / "run"
    run(dataclasses.replace(CONFIG, mode="sft", sft=SFT), folder)
    return folder


def guided(folder, share, mode="evaluate", **changes):
    evaluation = dataclasses.replace(CONFIG.eval, num_beams=12, guide=str(folder), guide_share=share)
    return dataclasses.replace(CONFIG, mode=mode, sft=SFT, eval=evaluation, **changes)


def test_a_share_of_all_ranks_as_the_guide_does(guide, own, capsys, tmp_path):
    run(guided(guide, 1.0), own)
    assert "its sft has 1 of every score" in capsys.readouterr().err
    found, wanted = Ranks.load(own / "ranks" / "sft.npz"), Ranks.load(guide / "ranks" / "sft.npz")
    np.testing.assert_array_equal(found.rank, wanted.rank)
    first = json.loads((own / "results.json").read_text())
    assert first["evaluated"]["sft"]["guide"] and first["config"]["eval"]["guide"] == str(guide)

    run(guided(guide, 1.0), own)
    assert "evaluated before" in capsys.readouterr().err
    run(guided(guide, 0.5), own)
    said = capsys.readouterr().err
    assert "evaluated before" not in said and "eval.guide_share: 1.0 then, 0.5 now" in said
    assert not run(guided(guide, 0.5, mode="doctor"), own)

    histories = tmp_path / "histories.jsonl"
    histories.write_text('{"user": "u", "history": ["1", "2"]}\n')
    asks = dataclasses.replace(CONFIG.recommend, input=str(histories), top_k=5, unknown="skip")
    lists = []
    for config, folder in ((guided(guide, 1.0, "recommend", recommend=asks), own), (None, guide)):
        config = config or dataclasses.replace(CONFIG, mode="recommend", catalog=ATOMIC, sft=SFT, recommend=asks)
        run(config, folder)
        line = json.loads((folder / "recommendations.jsonl").read_text())
        lists.append([item["id"] for item in line["items"]])
    assert lists[0] == lists[1] and len(lists[0]) == 5


def test_an_export_says_that_it_answers_alone(guide, own, capsys, tmp_path):
    export = dataclasses.replace(CONFIG.export, path=str(tmp_path / "export"))
    run(guided(guide, 0.5, "export", export=export), own)
    assert "eval.guide is not in the export" in capsys.readouterr().err


def test_a_guide_that_is_no_such_run_is_refused(own, tmp_path):
    with pytest.raises(ConfigError, match=r"eval.guide=.* is no run's work directory: it has no config.json"):
        run(guided(tmp_path, 0.5), own)
    with pytest.raises(ConfigError, match=r"eval.guide=.* answers with several tokens an item"):
        run(guided(own, 0.5), own)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guide_share": 0.2}, "eval.guide_share=0.2 means nothing where eval.guide is empty"),
        ({"popularity": 1.0}, "eval.popularity=1.0 means nothing where eval.search='beams'"),
        ({"search": "grounding", "exact": True}, "eval.exact=True means nothing where eval.search='grounding'"),
        ({"search": "grounding", "guide": "runs/a"}, "eval.guide='runs/a' means nothing where eval.search='grounding'"),
    ],
)
def test_settings_of_the_search_that_have_no_effect_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        EvalConfig(**settings)


def test_free_writing_needs_titles():
    with pytest.raises(ConfigError, match=r"eval.search='grounding' reads titles: set catalog.ids='title'"):
        dataclasses.replace(CONFIG, eval=dataclasses.replace(CONFIG.eval, search="grounding"))


def test_shares_are_chosen_on_validation_rows(guide, own):
    """A share of all is the guide alone, and a guide changes nothing for its own model."""
    alone = metrics_of(guide, "", 0.5)
    assert metrics_of(own, str(guide), 1.0) == alone == metrics_of(guide, str(guide), 0.3)
    assert metrics_of(own, str(guide), 0.0) != alone
