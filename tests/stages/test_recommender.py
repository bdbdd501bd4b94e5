"""The recommender of a work directory: its lists against exact scores, and what it opens without."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.stages.test_old_run import CONFIG, folder  # noqa: F401 - the fixture of its work directory
from wpauc_jax import modes
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.config import ConfigError, ExportConfig, RecommendConfig
from wpauc_jax.data import dataset
from wpauc_jax.stages.recommender import open_recommender
from wpauc_jax.stages.run import open_run
from wpauc_jax.stages.workspace import open_workspace

HISTORIES = [np.array(items) for items in ([3], [0, 5, 2, 7, 7, 1], [11, 4], [6, 6, 6])]


def silent(text):
    pass


@pytest.fixture
def recommender(folder):  # noqa: F811
    return open_recommender(CONFIG, folder, silent)


def test_lists_are_the_best_of_the_whole_catalog(recommender, folder):  # noqa: F811
    """A beam as wide as the catalog is exact."""
    ranker, builder = open_run(CONFIG, folder, silent).asked_ranker, recommender.builder
    tokens = np.zeros((len(HISTORIES), builder.max_tokens), np.int32)
    prompts = [builder.build(history) for history in HISTORIES]
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    asked = PromptBatch(tokens, np.array([len(prompt) for prompt in prompts]))
    exact = jax.jit(lambda ranker, params, asked: ranker.score_all(params, ranker.prefill(params, asked)))
    found = np.asarray(exact(ranker, recommender.params, asked))
    wide = dataclasses.replace(recommender, num_beams=12)
    for scores, answer in zip(found, wide.recommend(HISTORIES, 5), strict=True):
        best = np.argsort(-scores, kind="stable")[:5]
        assert [item.id for item in answer] == [recommender.item_ids[number] for number in best]
        assert [item.title for item in answer] == [recommender.titles[number] for number in best]
        np.testing.assert_allclose([item.score for item in answer], scores[best], atol=1e-5)


def test_a_list_depends_on_its_own_history_alone(recommender):
    """Not on the batch it is in, nor on how many there are; a batch has two rows here."""
    small = dataclasses.replace(recommender, batch_size=2)
    together = small.recommend([*HISTORIES, HISTORIES[0]], 3)
    assert len(together) == 5
    scores = np.array([[item.score for item in answer] for answer in together])
    np.testing.assert_allclose(scores[4], scores[0], atol=1e-6)
    assert np.abs(scores[1:4] - scores[0]).max(axis=1).min() > 1e-4
    alone = np.array([[item.score for item in small.recommend([history], 3)[0]] for history in HISTORIES])
    np.testing.assert_allclose(alone, scores[:4], atol=1e-6)
    assert [len(answer) for answer in small.recommend(HISTORIES[:1], 50)] == [12]
    assert small.recommend([], 3) == []


def test_recommend_and_export_read_no_interactions(folder, tmp_path, monkeypatch):  # noqa: F811
    """Nor need they be there; with them, the answers are the same bytes."""
    ids = open_recommender(CONFIG, folder, silent).item_ids
    histories = tmp_path / "histories.jsonl"
    lines = [{"user": str(n), "history": [ids[item] for item in items]} for n, items in enumerate(HISTORIES)]
    histories.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def answers(name):
        settings = RecommendConfig(input=str(histories), output=str(tmp_path / name), top_k=4)
        modes.MODES["recommend"](dataclasses.replace(CONFIG, recommend=settings), folder)
        return (tmp_path / name).read_bytes()

    before = answers("before.jsonl")
    assert before.count(b"\n") == len(HISTORIES)
    for path in (folder / "data").glob("interactions-*"):
        path.unlink()
    monkeypatch.setattr(dataset, "load_dataset", lambda folder: pytest.fail("the interactions were read"))
    assert answers("after.jsonl") == before
    exported = dataclasses.replace(CONFIG, export=ExportConfig(path=str(tmp_path / "model"), dtype="float32"))
    modes.MODES["export"](exported, folder)
    rows = [json.loads(line) for line in (tmp_path / "model" / "items.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(ids)


def test_a_workspace_needs_the_interactions(folder):  # noqa: F811
    next((folder / "data").glob("interactions-*")).write_bytes(b"cut")
    with pytest.raises(ValueError, match="is not what was prepared"):
        open_workspace(CONFIG, folder, silent)
    open_recommender(CONFIG, folder, silent)
    (folder / "data" / "items.parquet").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"items\.parquet is not what was prepared"):
        open_recommender(CONFIG, folder, silent)


def test_a_directory_of_another_world_is_refused(folder):  # noqa: F811
    world = dataclasses.replace(CONFIG.data.synthetic, seed=5)
    other = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, synthetic=world))
    with pytest.raises(ConfigError, match=r"data\.synthetic\.seed"):
        open_recommender(other, folder, silent)
