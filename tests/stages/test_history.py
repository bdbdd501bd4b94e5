"""`exclude_history`: how it is decided, and that a whole run obeys it."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.data_worlds import dataset_of
from tests.stages.test_old_run import CONFIG, folder  # noqa: F401 - the fixture of its work directory
from wpauc_jax.config import CatalogConfig, ConfigError, RecommendConfig
from wpauc_jax.data.dataset import positions, repeats
from wpauc_jax.evaluation.ranks import Ranks
from wpauc_jax.modes import run
from wpauc_jax.stages.history import excludes_history
from wpauc_jax.stages.workspace import open_workspace
from wpauc_jax.training.checkpoint import load_params

ATOMIC = dataclasses.replace(
    CONFIG,
    exclude_history="on",
    catalog=CatalogConfig(ids="atomic"),
    sft=dataclasses.replace(CONFIG.sft, exclude_history=True),
)


def decided(rule, dataset, folder):  # noqa: F811
    said = []
    return excludes_history(dataclasses.replace(CONFIG, exclude_history=rule), folder, dataset, said.append), said


def without_repeats(dataset):
    """Every interaction another item."""
    item = np.arange(len(dataset.item), dtype=np.int32)
    return dataclasses.replace(dataset, item=item, item_ids=[str(n) for n in item], titles=[""] * len(item))


def test_auto_counts_the_repeated_targets(tmp_path):
    plain = dataset_of([9, 60, 150])
    rare = without_repeats(plain)
    assert decided("auto", plain, tmp_path)[0] is False
    found, said = decided("auto", rare, tmp_path)
    assert found is True
    total = len(positions(rare, "train"))
    assert said == [
        f"exclude_history=auto: 0 of {total} training targets (0.00%) stand in their own history: items of a user's "
        "history are left out of the ranking"
    ]
    rare.item[5] = rare.item[4]  # one of 211 is below 1%, three are not
    assert decided("auto", rare, tmp_path)[0] is True
    rare.item[[20, 30]] = rare.item[[19, 29]]
    found, said = decided("auto", rare, tmp_path)
    assert found is False and f"3 of {total} training targets" in said[0] and "every item is ranked" in said[0]


def test_what_is_asked_for_is_done(tmp_path):
    dataset = dataset_of([9, 60, 150])
    train, test = (int(repeats(dataset)[positions(dataset, split)].sum()) for split in ("train", "test"))
    found, said = decided("on", dataset, tmp_path)
    assert found is True
    assert said[1].startswith(f"{train} training targets stand in their own history: RL does not see them. {test} of 3")
    assert decided("off", without_repeats(dataset), tmp_path) == (False, [])


def test_auto_keeps_to_what_was_trained(folder):  # noqa: F811
    """The old directory knew no such rule: it ranks every item, whatever its data say."""
    found, said = decided("auto", without_repeats(dataset_of([9, 60])), folder)
    assert found is False and said == ["exclude_history=auto: every item is ranked, as rl was trained"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("atomic")
    run(dataclasses.replace(ATOMIC, mode="all"), path)
    return path


def test_a_run_ranks_what_the_user_does_not_have(trained, capsys):
    """Its ranks are those of exact scores among all other items, computed here from the model's own softmax."""
    work = open_workspace(ATOMIC, trained, print)
    assert work.one_token and work.builder.exclude_history
    for stage in ("sft", "rl"):
        ranks = Ranks.load(trained / "ranks" / f"{stage}.npz")
        params = load_params(trained / stage / "best", work.first_params)
        assert ranks.num_candidates == work.catalog.num_items
        logits = jax.jit(work.policy.forward)
        for p, rank, left_out in zip(ranks.sample, ranks.rank, ranks.left_out, strict=True):
            history = work.dataset.item[work.dataset.offsets[work.dataset.user_of(np.array([p]))[0]] : p]
            prompt = work.builder.build(history)
            tokens = np.zeros((1, work.builder.max_tokens), np.int32)
            tokens[0, : len(prompt)] = prompt
            scores = np.asarray(logits(params, tokens))[0, len(prompt) - 1, 3:].copy()
            scores[history] = -np.inf
            target = work.dataset.item[p]
            better = (scores > scores[target]).sum()
            assert left_out == len({*history.tolist()})
            if target in history:
                assert rank >= work.catalog.num_items - left_out
            else:
                assert rank == better
    assert json.loads((trained / "results.json").read_text())["identity"]["exclude_history"] == "on"


def test_what_is_recommended_is_new_to_the_user(trained, tmp_path):
    ids = open_workspace(ATOMIC, trained, lambda text: None).dataset.item_ids
    histories = {"a": [0, 1, 2, 3, 4, 5, 6, 7], "b": [3], "c": [*range(12)]}
    path, output = tmp_path / "histories.jsonl", tmp_path / "lists.jsonl"
    lines = [{"user": user, "history": [ids[item] for item in items]} for user, items in histories.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = RecommendConfig(input=str(path), output=str(output), top_k=10)
    run(dataclasses.replace(ATOMIC, mode="recommend", recommend=settings, exclude_history="auto"), trained)
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [len(answer["items"]) for answer in answers] == [4, 10, 0]
    for answer in answers:
        assert not {item["id"] for item in answer["items"]} & {ids[item] for item in histories[answer["user"]]}


def test_another_rule_is_refused_by_name(trained):
    for mode in ("evaluate", "rl", "export"):
        with pytest.raises(ConfigError, match="exclude_history: 'on' then, 'off' now"):
            run(
                dataclasses.replace(
                    ATOMIC, mode=mode, exclude_history="off", rl=dataclasses.replace(ATOMIC.rl, steps=5)
                ),
                trained,
            )
