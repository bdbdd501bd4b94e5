"""wpauc_jax from Python: a run's results, and lists from a work directory or from an export alone."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

import wpauc_jax
from tests.stages.test_old_run import ARCHIVE, CONFIG
from wpauc_jax.config import ConfigError, ExportConfig
from wpauc_jax.data.errors import DataError
from wpauc_jax.stages.recommender import open_recommender

ROOT = pathlib.Path(__file__).parents[1]


def silent(text):
    pass


@pytest.fixture
def folder(tmp_path):
    """A small finished run, as if it was trained now."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "old_run" / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG)))
    return tmp_path / "old_run"


@pytest.fixture
def exported(folder, tmp_path):
    path = tmp_path / "model"
    export = dataclasses.replace(CONFIG, mode="export", export=ExportConfig(path=str(path), dtype="float32"))
    wpauc_jax.run(export, folder)
    return path


def asked(folder):
    inner = open_recommender(CONFIG, folder, silent)
    numbers = [np.array(items) for items in ([3], [0, 5, 2, 7, 7, 1], [11, 4])]
    return inner, numbers, [[inner.item_ids[number] for number in history] for history in numbers]


def test_an_export_alone_answers_as_the_run_does(folder, exported, tmp_path):
    inner, numbers, histories = asked(folder)
    expected = inner.recommend(numbers, 4)
    of_run = wpauc_jax.Recommender.load(folder, say=silent)
    assert of_run.recommend(histories, 4) == expected
    shutil.rmtree(folder)
    of_export = wpauc_jax.Recommender.load(exported)
    assert of_export.items == of_run.items
    for answer, other in zip(of_export.recommend(histories, 4), expected, strict=True):
        assert [item.id for item in answer] == [item.id for item in other]
        np.testing.assert_allclose([item.score for item in answer], [item.score for item in other], atol=1e-5)


def test_the_rule_can_be_changed_for_a_call(folder):
    _, _, histories = asked(folder)
    recommender = wpauc_jax.Recommender.load(folder, say=silent)
    everything, without = (recommender.recommend(histories, 50, exclude_history=rule) for rule in (False, True))
    for history, all_items, answer in zip(histories, everything, without, strict=True):
        assert {item.id for item in all_items} == set(recommender.items)
        assert {item.id for item in answer} == set(recommender.items) - set(history)


def test_what_is_asked_wrongly_is_named(folder):
    recommender = wpauc_jax.Recommender.load(folder, say=silent)
    known = next(iter(recommender.items))
    for arguments, message in [
        ({"histories": [[known], [known, "nowhere"]]}, "history 1 has the item 'nowhere', which the catalog lacks"),
        ({"histories": ["abc"]}, "history 0 is text; give a list of item ids"),
        ({"histories": [[known]], "k": 0}, "k=0 must be at least 1"),
        ({"histories": [[known]], "unknown": "ignore"}, "unknown='ignore' must be 'error' or 'skip'"),
    ]:
        with pytest.raises(ValueError, match=message):
            recommender.recommend(**arguments)
    skipped = recommender.recommend([[known, "nowhere"], []], 3, unknown="skip")
    assert skipped[0] == recommender.recommend([[known]], 3)[0] and len(skipped[1]) == 3
    assert recommender.recommend([]) == []


def test_a_damaged_export_is_named(exported):
    (exported / "items.jsonl").write_text('{"item": 0}\n')
    with pytest.raises(DataError, match=r"items\.jsonl is damaged \(KeyError"):
        wpauc_jax.Recommender.load(exported)
    (exported / "prompt.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"prompt\.json is damaged, or another version"):
        wpauc_jax.Recommender.load(exported)
    with pytest.raises(FileNotFoundError, match="neither a run's work directory nor an export"):
        wpauc_jax.Recommender.load(exported.parent / "absent")


def test_results_are_a_table(folder):
    results = wpauc_jax.run(CONFIG, folder, settings={"mode": "evaluate"})
    frame = results.to_polars()
    assert frame["stage"].to_list() == list(results.metrics) and {"markov", "sft"} <= set(results.metrics)
    assert frame.filter(frame["stage"] == "sft")["ndcg@5"].item() == results.metrics["sft"]["ndcg@5"]
    lines = results.table().splitlines()
    assert lines[0].startswith("stage") and "NDCG@5" in lines[0] and len(lines) == 2 + len(results.metrics)
    assert [path.suffix for path in results.plots()][:1] == [".png"]
    with pytest.raises(ConfigError, match=r"there is no setting .rl\.tagret_k"):
        wpauc_jax.run("quickstart", folder, settings={"rl.tagret_k": 5})


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_done(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="tracking=wandb needs a package"):
        wpauc_jax.run("quickstart", tmp_path / "run", settings={"tracking": "wandb"})
    assert not (tmp_path / "run").exists()


def test_the_package_itself_is_light():
    code = "import sys, wpauc_jax; assert not {'jax', 'polars', 'numpy'} & set(sys.modules); wpauc_jax.nowhere"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "AttributeError: module 'wpauc_jax' has no attribute 'nowhere'" in found.stderr
