"""The examples of CONTRIBUTING.md: each is executed as it stands there, and what it adds is used."""

import dataclasses
import importlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.config import test_dispatch as dispatch
from tests.config.test_fields import FIELDS
from tests.data_worlds import dataset_of, write
from tests.test_docs import NEW_MODULE, blocks, text_of
from tests.worlds import TINY, some_prompts, trie_for
from wpauc_jax import modes
from wpauc_jax.batches.types import PromptBatch
from wpauc_jax.config import Config, ConfigError, DataConfig, ModelConfig, RlConfig
from wpauc_jax.config import fields as config_fields
from wpauc_jax.config import run as config_run
from wpauc_jax.data import sources
from wpauc_jax.data.dataset import positions
from wpauc_jax.data.prepare import prepare
from wpauc_jax.data.sources import DataError
from wpauc_jax.decode import Ranker
from wpauc_jax.models import policy as model_policy
from wpauc_jax.stages import baselines
from wpauc_jax.training import groups
from wpauc_jax.training.judge import Evidence

DOORS = (
    *(groups.WEIGHTING, sources.READERS, model_policy.FAMILIES, baselines.BASELINES),
    *(modes.MODES, config_run.MODES),
)
PLACE = re.compile(r"# (wpauc_jax/[\w/]+\.py)(?:, in (\w+))?\n")


def code_of(title: str) -> list[str]:
    """The code blocks of the section with that title."""
    section = text_of("CONTRIBUTING.md").partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    found = [code for language, code in blocks(section) if language == "python"]
    assert found and all(NEW_MODULE.match(code) or PLACE.match(code) for code in found)
    return found


@pytest.fixture
def example(monkeypatch):
    """Adds what an example adds, for one test: first the name to the choices, and then the code."""
    before = [dict(door) for door in DOORS]

    def allow(name, value):
        field = FIELDS[name][1]
        choices = (*field.metadata["choices"], value)
        monkeypatch.setattr(field, "metadata", types.MappingProxyType({**field.metadata, "choices": choices}))

    def add(title, setting=None):
        for code in code_of(title):
            place = PLACE.match(code)
            if place and place[2]:  # a setting with one more choice
                scope = {"choice": config_fields.choice}
                exec(compile(code, title, "exec"), scope)
                name = setting.rpartition(".")[2]
                first, _, new = scope[name].metadata["choices"]
                kind, field, _ = FIELDS[setting]
                assert (kind.__name__, field.metadata["choices"][0]) == (place[2], first)
                assert place[1] == f"{kind.__module__.replace('.', '/')}.py"
                allow(setting, new)
                return new
        return None

    def execute(title):
        for code in code_of(title):
            new, place = NEW_MODULE.match(code), PLACE.match(code)
            if new:
                module = types.ModuleType(new[1])
                monkeypatch.setitem(sys.modules, new[1], module)
                exec(compile(code, new[1], "exec"), vars(module))
            elif not place[2]:
                known = importlib.import_module(
                    place[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                )
                exec(compile(code, place[1], "exec"), dict(vars(known)))

    yield types.SimpleNamespace(add_choice=add, execute=execute, allow=allow)
    for door, entries in zip(DOORS, before, strict=True):
        door.clear()
        door.update(entries)


def through_the_door(example, title: str, setting: str) -> str:
    """Adds the example. A name that the setting allows and the dict lacks is found by the test of the dicts."""
    name = example.add_choice(title, setting)
    with pytest.raises(AssertionError, match=name):
        dispatch.test_every_value_has_an_entry(setting)
    example.execute(title)
    dispatch.test_every_value_has_an_entry(setting)
    return name


def test_a_weighting(example):
    config = RlConfig(
        weighting=through_the_door(example, "A loss or a weighting", "rl.weighting"), target_k=2, kl_coef=0.0
    )
    logps = jnp.log(jnp.array([[[0.4], [0.3], [0.2], [0.1]], [[0.1], [0.2], [0.3], [0.4]]]))
    trie = trie_for([(token,) for token in range(3, 10)], "constrained")
    ranker = types.SimpleNamespace(score=lambda params, cache, items: logps, trie=trie)
    items = jnp.array([[0, 1, 2, 3], [4, 5, 6, -1]])
    batch = groups.Groups(items, targets=jnp.array([[1], [9]]), ref_logps=None, evidence=Evidence())
    metrics = jax.jit(lambda: groups.group_sums(ranker, None, None, batch, config=config)[1])()
    first = np.array([1, 1 / 2, 1 / 3, 0]) / (11 / 6) * 3
    np.testing.assert_allclose(metrics["weight_by_rank"], (first + first) / 2, rtol=1e-6)
    weights = groups.WEIGHTING[config.weighting](config, logps[..., 0], items == batch.targets, items >= 0, 1)
    np.testing.assert_allclose(weights[0], [first[0], 1, first[1], first[2]], rtol=1e-6)
    np.testing.assert_allclose(weights[1], [first[2], first[1], first[0], 0], rtol=1e-6)
    nothing = jnp.zeros((1, 4), bool)
    assert not groups.WEIGHTING[config.weighting](config, jnp.zeros((1, 4)), nothing, nothing, 1).any()


def test_a_format(example, tmp_path):
    name = through_the_door(example, "A data format", "data.source")
    lines = ["ann > tea @ 3", "", "bob > milk @ 1", "ann > milk @ 1", "ann > rice @ 2", "bob > tea @ 9"]
    path = write(tmp_path / "cups.txt", "\n".join(lines) + "\n")
    dataset = prepare(DataConfig(source=name, path=str(path), k_core=0), tmp_path / "prepared")
    bought = {user: [dataset.item_ids[i] for i in dataset.item[dataset.offsets[u] : dataset.offsets[u + 1]]]
              for u, user in enumerate(dataset.users)}  # fmt: skip
    assert bought == {"ann": ["milk", "rice", "tea"], "bob": ["milk", "tea"]}
    write(path, "\n".join([*lines, "bob > tea"]) + "\n")
    with pytest.raises(DataError, match=r"cups.txt, line 7: not a line like `user > item @ time`: 'bob > tea'"):
        prepare(DataConfig(source=name, path=str(path), k_core=0), tmp_path / "again")
    prepare(DataConfig(source=name, path=str(path), k_core=0, bad_rows="skip"), tmp_path / "again")
    with pytest.raises(DataError, match=r"data.user_column='who' has no use for data.source='arrows'"):
        prepare(DataConfig(source=name, path=str(path), user_column="who"), tmp_path / "third")


def test_a_family(example):
    name = through_the_door(example, "A model family", "model.family")
    config = ModelConfig(family=name, vocab_size=TINY.vocab_size, width=16, init_std=0.5)
    policy, params = model_policy.init(config)
    prompts, items = some_prompts(), [(5,), (3,), (8,), (4,)]
    ranker = Ranker(policy, trie_for(items, "vocab"), "vocab")

    @jax.jit
    def everything(params, ranker):
        cache = ranker.prefill(params, PromptBatch(prompts.tokens, prompts.lengths))
        packed = jnp.concatenate([prompts.tokens, prompts.tokens], axis=1)
        segments = jnp.zeros_like(packed).at[:, prompts.tokens.shape[1] :].set(1)
        rows = jnp.concatenate([prompts.tokens[:1].repeat(4, 0), jnp.array([(*item, 2) for item in items])], axis=1)
        logps = jax.nn.log_softmax(policy.forward(params, rows))
        both, alone = policy.hidden(params, packed, segments), policy.hidden(params, prompts.tokens)
        return ranker.search(params, cache, num_beams=4), logps, both, alone

    found, logps, both, alone = everything(params, ranker)
    np.testing.assert_allclose(both[:, alone.shape[1] :], alone, atol=1e-5)  # what is packed is on its own
    width = prompts.tokens.shape[1]
    scores = np.array([logps[i, width - 1, item[0]] + logps[i, width, 2] for i, item in enumerate(items)])
    assert found.items[0].tolist() == np.argsort(-scores).tolist()
    np.testing.assert_allclose(found.scores[0], np.sort(scores)[::-1], atol=1e-5)


def test_a_baseline(example):
    example.execute("A baseline")
    (name,) = baselines.BASELINES.keys() - {"popularity", "last_item", "markov", "optimum"}
    data = dataset_of([6, 7, 8], num_items=9)
    rows = positions(data, "test")

    def ranked(exclude_history):
        work = types.SimpleNamespace(dataset=data, builder=types.SimpleNamespace(exclude_history=exclude_history))
        return baselines.BASELINES[name].ranks(work, rows)

    ranks = ranked(False)
    seen = {item: -1 for item in range(9)}
    for item, time, split in zip(data.item, data.time, data.split, strict=True):
        seen[int(item)] = max(seen[int(item)], int(time)) if split == 0 else seen[int(item)]
    order = sorted(seen, key=lambda item: (-seen[item], item))
    assert ranks.rank.tolist() == [order.index(item) for item in data.item[rows]]
    assert ranks.num_candidates == 9 and baselines.BASELINES[name].shown(Config())
    assert ranked(True).left_out.tolist() == [len({*data.histories(rows, 9)[i].tolist()} - {-1}) for i in range(3)]


def test_a_mode(example, tmp_path, capsys):
    example.allow("mode", "disk")
    with pytest.raises(AssertionError, match="disk"):
        dispatch.test_every_mode_is_described_and_says_who_else_may_be_at_work()
    example.execute("A mode")
    dispatch.test_every_mode_is_described_and_says_who_else_may_be_at_work()
    dispatch.test_every_value_has_an_entry("mode")
    write(tmp_path / "sft" / "a", "12345")
    write(tmp_path / "results.json", "x" * 1234)
    config = dataclasses.replace(Config(), mode="disk")
    with pytest.raises(ConfigError, match="is no run's work directory"):
        modes.run(config, tmp_path)
    write(tmp_path / "catalog.json", "{}")
    assert modes.run(config, tmp_path) is None
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["2", "catalog.json"],
        ["1,234", "results.json"],
        ["5", "sft"],
    ]


def test_nothing_of_an_example_is_left():
    assert "reciprocal" not in groups.WEIGHTING and "disk" not in modes.MODES
    assert "reciprocal" not in dispatch.choices("rl.weighting") and "wpauc_jax.models.fading" not in sys.modules
