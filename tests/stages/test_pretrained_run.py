"""The whole job from a pretrained model with semantic ids as new tokens: an adapter and new rows, then an export."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer, GenerationConfig

from tests.stages.test_titles_run import ITEMS, data  # noqa: F401 - the fixture of its world
from tests.text_worlds import small_tokenizer, small_tokenizer_folder
from tests.worlds import forward, score_items
from wpauc_jax import modes as run
from wpauc_jax.catalog.tokenizer import Tokenizer
from wpauc_jax.config import (
    CatalogConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    RlConfig,
    SftConfig,
)
from wpauc_jax.models import Prompts, init, load_pretrained, save_pretrained
from wpauc_jax.stages.run import best_folder
from wpauc_jax.stages.workspace import open_workspace
from wpauc_jax.training.checkpoint import load_params

LEVELS, CODES = 2, 3
FIRST = small_tokenizer().size


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A checkpoint with spare rows behind its tokenizer's tokens."""
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    shape = {"num_layers": 2, "width": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "ffn_width": 48}
    config = ModelConfig(**shape, vocab_size=FIRST + 4, attention_bias=False, tie_embeddings=False, init_std=0.2)
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer_folder())
    save_pretrained(folder, *init(config), add_files=tokenizer.save_pretrained)
    return folder


@pytest.fixture(scope="module")
def config(data, pretrained):  # noqa: F811
    return Config(
        data=DataConfig(source="recbole", path=str(data), k_core=0, max_history=3),
        catalog=CatalogConfig(ids="kmeans", embedding="cooccurrence", levels=LEVELS, codes=CODES, embedding_width=8),
        model=ModelConfig(pretrained=str(pretrained), layers="scanned", lora=LoraConfig(rank=2)),
        sft=SftConfig(batch_size=16, steps=20, evals=1, optim=OptimConfig(learning_rate=3e-2)),
        rl=RlConfig(batch_size=8, steps=2, evals=1, group_size=6, optim=OptimConfig(learning_rate=1e-3)),
        eval=EvalConfig(num_beams=10, batch_size=48),
    )


@pytest.fixture(scope="module")
def work(config, tmp_path_factory):
    """A finished and exported run, opened."""
    folder = tmp_path_factory.mktemp("run")
    for mode in ("all", "export"):
        run.MODES[mode](dataclasses.replace(config, mode=mode), folder)
    return open_workspace(config, folder, print)


def trained_params(work):
    return work.frozen.join(load_params(best_folder(work, "rl"), work.first_params))


def test_new_tokens_start_as_the_mean_of_their_items_titles(work, pretrained):
    _, before = load_pretrained(pretrained)
    new = work.catalog.vocab_size - FIRST
    assert work.catalog.first_code == FIRST and new > 4  # so that the tables had to grow
    titles = small_tokenizer().encode(work.dataset.titles)
    for name in ("embed", "head"):
        rows = work.first_params[f"{name}_rows"]
        assert rows.shape == (new, 32)
        for token in range(new):
            mine = [t for i, title in enumerate(titles) if FIRST + token in work.catalog.tokens[i] for t in title]
            wanted = np.asarray(before[name])[mine or slice(FIRST)].mean(0)
            np.testing.assert_allclose(rows[token], wanted, atol=1e-5)


def test_checkpoints_hold_what_is_trained_and_learning_moved_it(work):
    stored = load_params(best_folder(work, "sft"), work.first_params)
    assert set(stored) == {"layers", "embed_rows", "head_rows"}
    assert all("lora" in "".join(map(str, path)) for path, _ in jax.tree_util.tree_leaves_with_path(stored["layers"]))
    moved = jax.tree.map(lambda a, b: bool(jnp.abs(a - b).max() > 1e-3), stored, work.first_params)
    assert moved["head_rows"] and moved["layers"]["mlp"]["down"]["lora"]["lora_b"]
    lines = [json.loads(line) for line in (work.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["stage"] == "sft" and "loss" in line]
    assert losses[-1] < losses[0] - 0.3


def test_the_export_is_the_run(work):
    folder = work.folder / "export"
    policy, params = load_pretrained(folder, dtype="float32")
    assert load_file(folder / "model.safetensors")["model.norm.weight"].dtype == jnp.bfloat16
    prompt = work.builder.build([0, 3, 5])
    prompts = Prompts(jnp.asarray(prompt[None]), jnp.asarray([len(prompt)], jnp.int32))
    items = jnp.arange(ITEMS, dtype=jnp.int32)[None]
    trie = work.ranker("constrained").trie
    ours = score_items(work.policy, trained_params(work), prompts, trie, items).sum(-1)
    theirs = score_items(policy, params, prompts, trie, items).sum(-1)
    np.testing.assert_allclose(theirs, ours, atol=0.1)  # the weights were rounded to bfloat16
    assert float(jnp.ptp(ours)) > 1
    before = score_items(work.policy, work.frozen.join(work.first_params), prompts, trie, items).sum(-1)
    assert np.abs(before - ours).max() > 0.5


def test_the_exported_tokenizer_speaks_the_codes(work):
    tokenizer = AutoTokenizer.from_pretrained(work.folder / "export")
    names = list(work.catalog.code_names)
    assert names[:4] == ["<a_0>", "<a_1>", "<a_2>", "<b_0>"] and len(names) == work.catalog.vocab_size - FIRST
    assert tokenizer.convert_tokens_to_ids(names) == list(range(FIRST, work.catalog.vocab_size))
    rows = [json.loads(line) for line in (work.folder / "export" / "items.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == work.dataset.item_ids
    assert [row["tokens"] for row in rows] == work.catalog.sequences()
    text = "".join(names[token - FIRST] for token in rows[0]["tokens"] if token >= FIRST)
    assert tokenizer(text, add_special_tokens=False).input_ids == [t for t in rows[0]["tokens"] if t >= FIRST]
    assert Tokenizer(str(work.folder / "export")).size == work.catalog.vocab_size


def test_the_exported_trie_allows_the_catalogue_and_nothing_else(work):
    rows = [json.loads(line) for line in (work.folder / "export" / "items.jsonl").read_text().splitlines()]
    with np.load(work.folder / "export" / "trie.npz") as trie:
        token, first_child, item = (trie[name] for name in ("token", "first_child", "item"))
    found, open_paths = {}, [(0, [])]
    while open_paths:
        node, path = open_paths.pop()
        if item[node] >= 0:
            found[int(item[node])] = path
        open_paths += [(child, [*path, int(token[child])]) for child in range(first_child[node], first_child[node + 1])]
    assert found == {row["item"]: row["tokens"] for row in rows}


def test_the_exported_settings_are_those_of_the_search(work):
    folder = work.folder / "export"
    generation = GenerationConfig.from_pretrained(folder)
    assert (generation.num_beams, generation.max_new_tokens) == (10, work.catalog.tokens.shape[1])
    prompt = json.loads((folder / "prompt.json").read_text())
    history = [token for item in (4, 2) for token in (*prompt["lead"], *items_tokens(work, item, prompt))]
    built = [*prompt["head"], *history, *prompt["tail"], *prompt["lead"]]
    assert built == work.builder.build([4, 2]).tolist()


def items_tokens(work, item, prompt):
    tokens = [token for token in work.catalog.sequences()[item] if token != prompt["end"]]
    return [*tokens, *([prompt["line_end"]] if prompt["line_end"] >= 0 else [])]


def test_an_export_is_not_written_over(config, work):
    with pytest.raises(FileExistsError, match="export exists; name another folder"):
        run.MODES["export"](dataclasses.replace(config, mode="export"), work.folder)


def test_a_foreign_tokenizer_is_refused(config, pretrained, tmp_path):
    big = tmp_path / "tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    tokenizer.add_tokens([f"<more_{i}>" for i in range(9)])
    tokenizer.save_pretrained(big)
    catalog = dataclasses.replace(config.catalog, tokenizer=str(big))
    with pytest.raises(ConfigError, match=f"has {FIRST + 9} tokens, model.pretrained=.* has rows for {FIRST + 4}"):
        open_workspace(dataclasses.replace(config, catalog=catalog), tmp_path / "run", print)


def test_logits_of_the_export_are_the_merged_models(work):
    tokens = jnp.asarray([[1, 2, 3, FIRST, FIRST + 1]], jnp.int32)
    ours = forward(work.policy, trained_params(work), tokens)
    theirs = forward(*load_pretrained(work.folder / "export", dtype="float32"), tokens)
    np.testing.assert_allclose(theirs, ours[..., : theirs.shape[-1]], atol=0.1)
