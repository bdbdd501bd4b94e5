"""The search that docs/models.md writes for `transformers` finds our items with our scores."""

import dataclasses
import json
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.stages.test_old_run import ARCHIVE, CONFIG
from tests.transformers_beams import HAS_TORCH, WIDTH, beam_search, exported, rules, run_snippet
from tests.worlds import tiny_policy
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.catalog.items import catalog_from_codes
from wpauc_jax.catalog.trie import build_trie
from wpauc_jax.config import Config, EvalConfig, ExportConfig
from wpauc_jax.decode import score_catalogue
from wpauc_jax.models import save_pretrained
from wpauc_jax.modes import run
from wpauc_jax.stages.export import search_settings

HISTORIES = [[3, 0, 7], [5], [1, 11, 10, 9, 8, 2]]
exact_scores = jax.jit(score_catalogue, static_argnums=0)
BEAMS, TOP = 12, 10  # as many beams as items, so that a search finds every item
CODES = np.array([[0, 0], [0, 1], [0, 1], [0, 1], [1, 0], [1, 2], [1, 2], [2, 0], [2, 1], [2, 2], [2, 2], [2, 2]])


@pytest.fixture(scope="module", params=["exported", "unequal", "ended", "excluded"])
def folder(request, tmp_path_factory):
    """The export of a run; items of two and three tokens, which nothing ends; such items with a token behind; and one
    where no item of the history may answer.
    """
    base = tmp_path_factory.mktemp("model")
    if request.param == "exported":
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(base, filter="data")
        export = ExportConfig(path=str(base / "export"), dtype="float32")
        run(dataclasses.replace(CONFIG, mode="export", export=export), base / "old_run")
        return base / "export"
    ended = request.param == "ended"
    catalog = catalog_from_codes(CODES, (3, 3), first_code=14 if ended else 3, end=9 if ended else -1)
    generation = search_settings(Config(eval=EvalConfig(num_beams=BEAMS)), catalog)
    target = base / "model"
    save_pretrained(target, *tiny_policy(), generation=generation)
    form = {"head": [1, 2], "lead": [4], "tail": [5], "line_end": 6, "end": catalog.end, "max_history": 4}
    form["exclude_history"] = request.param == "excluded"
    (target / "prompt.json").write_text(json.dumps(form))
    lines = [json.dumps({"item": item, "tokens": tokens}) for item, tokens in enumerate(catalog.sequences())]
    (target / "items.jsonl").write_text("\n".join(lines))
    trie = build_trie(catalog.sequences(), trim=False)
    np.savez(target / "trie.npz", token=trie.token, first_child=trie.first_child, item=trie.item)
    return target


def settings(folder):
    return json.loads((folder / "generation_config.json").read_text())


def ours(folder, history):
    """(item, score) of the TOP best, by every item's exact score."""
    names, (policy, params) = rules(folder), exported(folder)
    prompt = names["prompt_of"](history)
    trie = build_trie([item["tokens"] for item in names["items"]])
    tokens = jnp.asarray([prompt + [0] * (WIDTH - len(prompt))], jnp.int32)
    excluded = jnp.asarray([history], jnp.int32) if names["form"]["exclude_history"] else None
    asked = PromptBatch(tokens, jnp.asarray([len(prompt)], jnp.int32), excluded)
    (scores,) = np.asarray(exact_scores(policy, params, asked, trie))
    assert abs(np.exp(scores).sum() - 1) < 1e-5
    best = np.argsort(-scores)[:TOP]
    return [(int(item), float(scores[item])) for item in best if np.isfinite(scores[item])]


def assert_same(found, wanted):
    assert [item for item, _ in found] == [item for item, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=1e-4)


@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_the_pages_rules_give_our_list(folder, history):
    found = beam_search(folder, history, num_beams=BEAMS, settings=settings(folder))
    assert_same(found[:TOP], ours(folder, history))


def test_both_settings_are_needed(folder):
    """Else the test above could not fail: without either of them the search finds other scores."""
    wanted = ours(folder, HISTORIES[0])
    for change in ({"renormalize": False}, {"penalty": 1.0}):
        found = beam_search(folder, HISTORIES[0], num_beams=BEAMS, settings=settings(folder), **change)[: len(wanted)]
        assert max(abs(one - other) for (_, one), (_, other) in zip(found, wanted, strict=True)) > 0.1


def test_answers_that_lead_nowhere_are_told(folder):
    names = rules(folder)
    whole = names["items"][4]["tokens"]
    assert names["item_at"](whole) == names["item_at"]([*whole, 0, 0]) == names["items"][4]
    assert names["item_at"](whole[:1]) is names["item_at"]([99]) is names["item_at"]([]) is None
    assert names["allowed_after"](whole, 0, set()) == names["allowed_after"]([99], 0, set()) == [0]
    assert set(names["allowed_after"]([], 0, set())) == {item["tokens"][0] for item in names["items"]}


@pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed; the page's first piece ran in NumPy")
@pytest.mark.parametrize("history", HISTORIES, ids=str)
def test_the_pages_search_gives_our_list_in_pytorch(folder, history):
    path = folder / "generation_config.json"
    path.write_text(json.dumps(settings(folder) | {"num_beams": BEAMS}))
    assert_same(run_snippet(folder, history, TOP), ours(folder, history))
